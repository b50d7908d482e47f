"""`ftm local` while the embedded AWS runs, and the stack `local` with other AWS settings in the environment."""

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from local import state

URL = "http://127.0.0.1:8000/v1"


@pytest.fixture
def running(local_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that uses a real LLM server's model. Its process is this one."""
    monkeypatch.setenv("FTM_LOCAL_DIR", str(local_dir))
    llm = state.Llm("qwen3:latest", fake=False, url=URL)
    state.write(state.LocalState(os.getpid(), "local", "http://127.0.0.1:5000", "us-east-1", {}, llm, "2023-04-05"))


def up(*options: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["local", "up", *options], prog_name="ftm")
    return result.exit_code, result.stderr


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--port", "5000"],
        ["--llm-url", "http://127.0.0.1:8000"],
        ["--llm-url", URL, "--llm-model", "qwen3"],
    ],
)
def test_up_with_the_options_of_the_running_daemon(options: list[str]):
    code, message = up(*options)
    assert code == 0
    assert "it is already up" in message


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--port", "5001"], "it is already up, without --port 5001 (it is 5000): `ftm local down` first"),
        (["--llm-url", "http://other:1/v1"], f"without --llm-url http://other:1/v1 (it is {URL}):"),
        (["--llm-url", URL, "--llm-model", "llama3"], "without --llm-model llama3 (it is qwen3:latest):"),
    ],
)
def test_up_with_other_options_is_a_conflict(options: list[str], sentence: str):
    code, message = up(*options)
    assert code == 5
    assert sentence in message


@pytest.mark.usefixtures("running")
def test_the_model_is_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LLM_MODEL_NAME", "llama3")
    assert up()[0] == 0
    assert up("--llm-url", URL)[0] == 5


def test_a_model_without_a_server_is_rejected():
    assert up("--llm-model", "qwen3") == (
        2,
        "ftm: --llm-model needs --llm-url: the fake vLLM has only one model\n",
    )


@pytest.mark.usefixtures("running")
def test_status_distinguishes_a_real_server_from_the_fake_one():
    result = CliRunner().invoke(app, ["local", "status", "--json"], prog_name="ftm")
    assert json.loads(result.stdout)["llm"] == {"model": "qwen3:latest", "fake": False, "url": URL}


def test_the_operators_aws_settings_are_ignored(ftm, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    ftm("--region", "eu-west-1", "vllm", "status")
