"""The worker with real servers and a small real model: llama.cpp with SmolLM2, and LiteLLM's proxy before it.

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
from testing.worker import Bucket, Worker, batch_environment, call, kill

BIN = Path(__file__).parents[2] / ".venv-servers" / "bin"
KEY = "sk-of-the-tests"
MODEL = "smollm2"
LIMITED = "smollm2-limited"
"""The same model under LiteLLM's rate limit."""
REQUESTS_PER_MINUTE = 4

pytestmark = pytest.mark.skipif(not os.environ.get("TEST_SERVERS"), reason="make test-servers sets TEST_SERVERS")


class Server:
    """A server process."""

    def __init__(self, command: list[str], port: int, log: Path) -> None:
        self._command, self._log = command, log
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
def running(server: Server) -> Iterator[Server]:
    server.start()
    try:
        server.wait()
        yield server
    finally:
        server.kill()


def llama_cpp(folder: Path, context: int = 4096) -> Server:
    port = free_port()
    script = Path(__file__).with_name("llama_server.py")
    return Server([str(BIN / "python"), str(script), str(port), str(context), KEY], port, folder / "llama.log")


def litellm(folder: Path, upstream: str) -> Server:
    """LiteLLM's proxy before `upstream`; JSON is YAML too."""
    models = [
        {
            "model_name": name,
            "litellm_params": {"model": f"openai/{MODEL}", "api_base": upstream, "api_key": KEY, **limit},
        }
        for name, limit in ((MODEL, {}), (LIMITED, {"rpm": REQUESTS_PER_MINUTE}))
    ]
    config = {
        "model_list": models,
        "general_settings": {"master_key": KEY},
        "router_settings": {"optional_pre_call_checks": ["enforce_model_rate_limits"], "num_retries": 0},
    }
    path, port = folder / "litellm.yaml", free_port()
    path.write_text(json.dumps(config))
    command = [str(BIN / "litellm"), "--config", str(path), "--host", "127.0.0.1", "--port", str(port)]
    return Server(["env", "LITELLM_LOCAL_MODEL_COST_MAP=True", *command], port, folder / "litellm.log")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(llama_cpp(tmp_path_factory.mktemp("llama"))) as server:
        yield server


@pytest.fixture(scope="module")
def proxy(llama: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(litellm(tmp_path_factory.mktemp("litellm"), llama.url)) as server:
        yield server


def worker_of(bucket: Bucket, server: Server, key: str = KEY, model: str = "") -> Worker:
    environment = batch_environment(bucket, server.url)
    return Worker({**environment, env.LLM_API_KEY: key, env.LLM_MODEL_NAME: model, env.CHECKPOINT_INTERVAL: "1"})


def assert_accounted_for(bucket: Bucket) -> None:
    """Check that each topic has a name or a reason for having none."""
    counts = bucket.progress().counts
    without = sum(one.topics for one in counts.fallbacks.values())
    assert counts.topics == counts.named + without > 0
    assert all(one.example for one in counts.fallbacks.values())


def test_a_batch_ends_with_names_or_reasons(bucket: Bucket, llama: Server) -> None:
    bucket.put_firms({"ALPHA": call("ALPHA", 24)})
    done = worker_of(bucket, llama).run_process()
    assert done.returncode == 0, done.stderr
    assert_accounted_for(bucket)


@pytest.mark.parametrize("key", ["wrong", ""])
def test_a_wrong_key_ends_within_seconds(bucket: Bucket, llama: Server, key: str) -> None:
    bucket.put_firms({"ALPHA": call("ALPHA", 24)})
    began = time.monotonic()
    done = worker_of(bucket, llama, key).run_process()
    assert done.returncode == 1
    assert "check LLM_API_KEY" in done.stderr
    assert "HTTP 401" in done.stderr
    assert time.monotonic() - began < 30


def test_with_a_context_that_is_too_small_topics_keep_keywords_and_the_reason_has_the_figures(
    bucket: Bucket, tmp_path: Path
) -> None:
    bucket.put_firms({"ALPHA": call("ALPHA", 24)})
    with running(llama_cpp(tmp_path, context=256)) as server:
        done = worker_of(bucket, server).run_process()
    assert done.returncode == 0, done.stderr
    fallbacks = bucket.progress().counts.fallbacks
    assert fallbacks["context_too_small"].topics == bucket.progress().counts.topics
    assert "256" in fallbacks["context_too_small"].example


def test_a_server_that_is_killed_in_mid_batch_and_comes_back_is_waited_for(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put_firms({firm: call(firm, 24) for firm in ("ALPHA", "BRAVO")})
    with running(llama_cpp(tmp_path)) as server:
        worker = worker_of(bucket, server).start(LLM_MAX_CONCURRENT="1")
        try:
            assert worker.stdout
            while "1 of 2 firms" not in (line := worker.stdout.readline()):
                assert line, "the worker ended before its first checkpoint"
            server.kill()
            time.sleep(5)
            server.start()
            _, errors = worker.communicate(timeout=240)
        finally:
            kill(worker)
    assert worker.returncode == 0, errors
    assert f"waiting for the LLM at {server.url}" in errors
    assert len(bucket.progress().completed) == 2
    assert_accounted_for(bucket)


def test_a_batch_through_litellm_ends_with_names_or_reasons(bucket: Bucket, proxy: Server) -> None:
    bucket.put_firms({"ALPHA": call("ALPHA", 24)})
    done = worker_of(bucket, proxy, model=MODEL).run_process()
    assert done.returncode == 0, done.stderr
    assert_accounted_for(bucket)
    assert {row["model"] for row in bucket.topics()} <= {MODEL, None}


@pytest.mark.parametrize(
    ("key", "model", "sentences"),
    [
        ("wrong", MODEL, ["HTTP 400: No connected db.", "check LLM_API_KEY"]),
        ("", MODEL, ["HTTP 500: Internal Server Error", "set LLM_API_KEY"]),
        (KEY, "", [f"serves several models ({MODEL}, {LIMITED})", "choose one with LLM_MODEL_NAME"]),
        (KEY, "qwen3", [f"it serves {MODEL}, {LIMITED}, not qwen3", "set LLM_MODEL_NAME"]),
    ],
)
def test_a_wrong_key_or_model_at_litellm_ends_within_seconds(
    bucket: Bucket, proxy: Server, key: str, model: str, sentences: list[str]
) -> None:
    bucket.put_firms({"ALPHA": call("ALPHA", 24)})
    began = time.monotonic()
    done = worker_of(bucket, proxy, key, model).run_process()
    assert done.returncode == 1
    assert [sentence for sentence in sentences if sentence not in done.stderr] == [], done.stderr
    assert time.monotonic() - began < 45


def test_a_rate_limit_of_litellm_is_obeyed(bucket: Bucket, proxy: Server) -> None:
    """LiteLLM asks to wait a minute: few requests are refused meanwhile, and all topics are asked about."""
    bucket.put_firms({"ALPHA": call("ALPHA")})
    done = worker_of(bucket, proxy, model=LIMITED).run_process()
    assert done.returncode == 0, done.stderr
    assert "limits the rate (HTTP 429: " in done.stderr
    counts = bucket.progress().counts
    assert_accounted_for(bucket)
    assert counts.requests > REQUESTS_PER_MINUTE
    assert 0 < counts.retries < counts.requests / 2
    assert "request_failed" not in counts.fallbacks
