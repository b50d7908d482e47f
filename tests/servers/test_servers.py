"""The worker with a real server and a small real model: llama.cpp and SmolLM2.

The names of SmolLM2 are bad and many are rejected. The tests check that each batch ends as it should, with reasons.
"""

import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from contract import env
from testing.worker import Bucket, Worker, batch_environment, call

BIN = Path(__file__).parents[2] / ".venv-servers" / "bin"
KEY = "sk-of-the-tests"

pytestmark = pytest.mark.skipif(not os.environ.get("TEST_SERVERS"), reason="make test-servers sets TEST_SERVERS")


class Server:
    """A server process."""

    def __init__(self, command: list[str], port: int, log: Path) -> None:
        self._command, self._port, self._log = command, port, log
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{port}/v1"

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, start_new_session=True)

    def wait(self) -> None:
        """Wait until the server lists its models."""
        request = urllib.request.Request(f"{self.url}/models", headers={"Authorization": f"Bearer {KEY}"})  # noqa: S310
        for _ in range(240):
            try:
                with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310
                    assert json.load(answer)["data"]
                    return
            except OSError:
                time.sleep(0.5)
        raise AssertionError(self._log.read_text(errors="replace")[-3000:])

    def kill(self) -> None:
        if self._process:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def llama(folder: Path, context: int = 4096) -> Iterator[Server]:
    port = free_port()
    command = [str(BIN / "python"), str(Path(__file__).with_name("llama_server.py")), str(port), str(context), KEY]
    server = Server(command, port, folder / "llama.log")
    server.start()
    try:
        server.wait()
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with llama(tmp_path_factory.mktemp("llama")) as server:
        yield server


def worker_of(bucket: Bucket, server: Server, key: str = KEY) -> Worker:
    environment = batch_environment(bucket, server.url)
    return Worker({**environment, env.LLM_API_KEY: key, env.CHECKPOINT_INTERVAL: "1"})


def assert_accounted_for(bucket: Bucket) -> None:
    """Check that each topic has a name or a reason for having none."""
    counts = bucket.progress().counts
    without = sum(one.topics for one in counts.fallbacks.values())
    assert counts.topics == counts.named + without > 0
    assert all(one.example for one in counts.fallbacks.values())


def test_a_batch_ends_with_names_or_reasons(bucket: Bucket, server: Server) -> None:
    bucket.put_firms({"ALPHA": call("ALPHA", 24)})
    done = worker_of(bucket, server).run_process()
    assert done.returncode == 0, done.stderr
    assert_accounted_for(bucket)


@pytest.mark.parametrize("key", ["wrong", ""])
def test_a_wrong_key_ends_within_seconds(bucket: Bucket, server: Server, key: str) -> None:
    bucket.put_firms({"ALPHA": call("ALPHA", 24)})
    began = time.monotonic()
    done = worker_of(bucket, server, key).run_process()
    assert done.returncode == 1
    assert "check LLM_API_KEY" in done.stderr
    assert "HTTP 401" in done.stderr
    assert time.monotonic() - began < 30


def test_with_a_context_that_is_too_small_topics_keep_keywords_and_the_reason_has_the_figures(
    bucket: Bucket, tmp_path: Path
) -> None:
    bucket.put_firms({"ALPHA": call("ALPHA", 24)})
    with llama(tmp_path, context=256) as server:
        done = worker_of(bucket, server).run_process()
    assert done.returncode == 0, done.stderr
    fallbacks = bucket.progress().counts.fallbacks
    assert fallbacks["context_too_small"].topics == bucket.progress().counts.topics
    assert "256" in fallbacks["context_too_small"].example
