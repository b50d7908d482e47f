"""Fixtures for the tests with Pulumi's real engine, which are collected only by `make test-pulumi`."""

import os
from collections.abc import Iterator
from typing import Any

import boto3
import pytest

from local.emulator.aws import EmbeddedAws
from local.state import ACCESS_KEY, REGION, SECRET_KEY
from testing.pulumi_engine import Engine, Stack
from testing.pulumi_provider.server import Provider

collect_ignore_glob = [] if os.environ.get("TEST_PULUMI") else ["test_*"]


class Aws:
    """Clients of the embedded AWS in which the provider creates resources."""

    def __init__(self, embedded: EmbeddedAws) -> None:
        self.endpoint = embedded.endpoint
        self._session: Any = boto3.Session(ACCESS_KEY, SECRET_KEY, region_name=REGION)

    def client(self, service: str) -> Any:
        return self._session.client(service, endpoint_url=self.endpoint)


@pytest.fixture(scope="session")
def aws() -> Iterator[Aws]:
    embedded = EmbeddedAws.start()
    yield Aws(embedded)
    embedded.stop()


@pytest.fixture(scope="session", autouse=True)
def environment_of_the_program(aws: Aws) -> Iterator[None]:
    """The program, which runs in this process, asks the embedded AWS for running executions."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", aws.endpoint)
        for key, value in (("AWS_ACCESS_KEY_ID", ACCESS_KEY), ("AWS_SECRET_ACCESS_KEY", SECRET_KEY)):
            patch.setenv(key, value)
        yield


@pytest.fixture(scope="session")
def provider(aws: Aws) -> Iterator[Provider]:
    provider = Provider(aws.endpoint)
    yield provider
    provider.stop()


@pytest.fixture(scope="session")
def engine(provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return Engine(tmp_path_factory.mktemp("pulumi"), provider.port)


@pytest.fixture(scope="session")
def deployed(engine: Engine) -> Stack:
    """The stack prod, deployed with default settings. Tests only preview changes to it."""
    stack = engine.stack("prod", {})
    stack.up()
    return stack
