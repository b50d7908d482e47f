"""Fixtures for tests of the worker and the evaluation: a bucket on moto's server, an LLM server and the worker."""

from collections.abc import Iterator

import pytest

from testing.aws_server import aws_server, s3_client
from testing.faulty_s3 import FaultyS3, faulty_s3
from testing.worker import BUCKET, Bucket, LlmServer, Worker, batch_environment, serving


@pytest.fixture(scope="session")
def aws() -> Iterator[dict[str, str]]:
    """The environment variables with which processes reach the AWS server."""
    with aws_server() as environment:
        yield environment


@pytest.fixture
def bucket(aws: dict[str, str]) -> Iterator[Bucket]:
    s3 = s3_client(aws["AWS_ENDPOINT_URL"])
    s3.create_bucket(Bucket=BUCKET)
    yield Bucket(s3, aws)
    for item in s3.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        s3.delete_object(Bucket=BUCKET, Key=item["Key"])
    s3.delete_bucket(Bucket=BUCKET)


@pytest.fixture
def proxy(aws: dict[str, str]) -> Iterator[FaultyS3]:
    """A proxy to the server, at which requests fail like requests to S3."""
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
