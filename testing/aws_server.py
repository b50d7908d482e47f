"""moto's AWS in a thread of this process, for code in this process and in others."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import boto3
from moto.server import ThreadedMotoServer


@contextmanager
def aws_server() -> Iterator[dict[str, str]]:
    """Start a server; yield the environment variables with which boto3 reaches it."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # or pytest formats a line for each request
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
    finally:
        server.stop()


@cache
def s3_client(endpoint: str) -> Any:
    """A client of the server at `endpoint`."""
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
