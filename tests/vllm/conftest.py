"""Fixtures for the tests with a real vLLM, which are collected only by `make test-vllm`."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from testing.vllm_server import VllmServer, build_model
from testing.worker_fixtures import aws, bucket  # noqa: F401 (fixtures)

collect_ignore_glob = [] if os.environ.get("TEST_VLLM") else ["test_*"]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny-qwen3"
    build_model(folder)
    return folder


@pytest.fixture(scope="session")
def vllm(tiny_model: Path) -> Iterator[VllmServer]:
    server = VllmServer(tiny_model, tiny_model.parent / "vllm.log")
    try:
        server.start()
        yield server
    finally:
        server.kill()
