"""Fixtures of the worker and the evaluation: a bucket on moto's server, an LLM server, and the worker between them."""

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from testing.faulty_s3 import FaultyS3, faulty_s3
from testing.worker import BUCKET, Bucket, LlmServer, Worker, batch_environment, serving


@pytest.fixture(scope="session")
def aws() -> Iterator[dict[str, str]]:
    """The environment in which processes reach moto's server."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    yield settings
    server.stop()


@pytest.fixture
def bucket(aws: dict[str, str]) -> Iterator[Bucket]:
    s3: Any = boto3.client(
        "s3",
        endpoint_url=aws["AWS_ENDPOINT_URL"],
        region_name=aws["AWS_DEFAULT_REGION"],
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    s3.create_bucket(Bucket=BUCKET)
    yield Bucket(s3, aws)
    for item in s3.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        s3.delete_object(Bucket=BUCKET, Key=item["Key"])
    s3.delete_bucket(Bucket=BUCKET)


@pytest.fixture
def proxy(aws: dict[str, str]) -> Iterator[FaultyS3]:
    """A way to moto's server on which requests fail as they do on the way to S3."""
    with faulty_s3(aws["AWS_ENDPOINT_URL"]) as server:
        yield server


@pytest.fixture
def llm() -> Iterator[LlmServer]:
    server = LlmServer()
    server.gate.set()
    with serving(server):
        yield server


@pytest.fixture
def worker(bucket: Bucket, llm: LlmServer) -> Worker:
    return Worker(batch_environment(bucket, llm.url))
