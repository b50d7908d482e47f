"""The tests on Pulumi's real engine run by `make test-pulumi`; elsewhere they are not collected."""

import os
from collections.abc import Iterator

import pytest

from local.emulator.aws import EmbeddedAws
from testing.pulumi_engine import Engine
from testing.pulumi_provider.server import Provider

collect_ignore_glob = [] if os.environ.get("TEST_PULUMI") else ["test_*"]


@pytest.fixture(scope="session")
def embedded() -> Iterator[EmbeddedAws]:
    aws = EmbeddedAws.start()
    yield aws
    aws.stop()


@pytest.fixture(scope="session")
def provider(embedded: EmbeddedAws) -> Iterator[Provider]:
    provider = Provider(embedded.endpoint)
    yield provider
    provider.stop()


@pytest.fixture(scope="session")
def engine(provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return Engine(tmp_path_factory.mktemp("pulumi"), provider.port)
