"""The tests against a real vLLM run by `make test-vllm`, which installs it; elsewhere they are not collected."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vllm.server import ENVIRONMENT, VllmServer
from tests.worker.conftest import aws, bucket  # noqa: F401 (fixtures)

collect_ignore_glob = [] if os.environ.get("TEST_VLLM") else ["test_*"]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny-qwen3"
    build = Path(__file__).with_name("tiny_qwen3.py")
    subprocess.run([ENVIRONMENT / "bin" / "python", build, folder], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def vllm(tiny_model: Path) -> Iterator[VllmServer]:
    server = VllmServer(tiny_model, tiny_model.parent / "vllm.log")
    try:
        server.start()
        yield server
    finally:
        server.kill()
