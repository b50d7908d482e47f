"""Failures of AWS and Pulumi: each gives one sentence and the right exit code, never a traceback."""

import ast
import os
import stat
import subprocess
import sys
from pathlib import Path

import boto3
import pytest
from botocore.stub import Stubber
from typer.testing import CliRunner, Result

from cli.errors import explain
from cli.main import app
from contract.exit_codes import ExitCode
from local import state

from .conftest import Aws, Ftm


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(app, list(arguments), prog_name="ftm")
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    return result


@pytest.fixture
def pulumi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `pulumi` on the PATH whose output a test sets with `answer`."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path / "pulumi"


def answer(pulumi: Path, stderr: str = "", stdout: str = "", code: int = 255) -> None:
    pulumi.write_text(f"#!/bin/sh\necho {stderr!r} >&2\necho {stdout!r}\nexit {code}\n")
    pulumi.chmod(pulumi.stat().st_mode | stat.S_IXUSR)


def test_no_pulumi(pulumi: Path) -> None:
    result = run("--stack", "prod", "topics", "2023Q1")

    assert result.exit_code == 3
    assert "install it from https://www.pulumi.com/docs/install" in result.stderr


@pytest.mark.parametrize(
    ("error", "sentence", "code"),
    [
        ("error: no stack named 'nowhere' found", "there is no stack 'nowhere'", 3),
        ("error: PULUMI_ACCESS_TOKEN must be set for login during non-interactive CLI sessions", "`pulumi login`", 4),
        ("error: could not list bucket: ... AccessDenied: not yours", "may not read the stack nowhere", 4),
        ("error: something else broke", "something else broke", 3),
    ],
)
def test_an_error_of_pulumi_becomes_a_sentence(pulumi: Path, error: str, sentence: str, code: int) -> None:
    answer(pulumi, error.replace("'", ""))

    result = run("--stack", "nowhere", "vllm", "status")

    assert result.exit_code == code
    assert sentence in result.stderr


def test_a_stack_that_was_never_deployed(pulumi: Path) -> None:
    answer(pulumi, stdout="{}", code=0)

    result = run("--stack", "new", "vllm", "status")

    assert result.exit_code == 3
    assert "pulumi up --stack new" in result.stderr


def test_a_banner_of_pulumi_before_the_outputs_is_skipped(pulumi: Path) -> None:
    answer(pulumi, stdout='A new version of Pulumi is available\\n{"bucket": "calls"}', code=0)

    assert CliRunner().invoke(app, ["--stack", "prod", "outputs", "bucket"], prog_name="ftm").stdout == "calls\n"


def test_no_outputs_from_pulumi(pulumi: Path) -> None:
    answer(pulumi, stdout="A new version of Pulumi is available", code=0)

    result = run("--stack", "prod", "outputs")

    assert "Pulumi printed no outputs, but 'A new version of Pulumi is available'" in result.stderr


def test_outputs_come_from_the_published_parameter_without_pulumi(
    aws: Aws, pulumi: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        monkeypatch.setenv(f"AWS_{name}", "x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", aws.endpoint)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    aws.client("ssm").put_parameter(Name="/ftm/outputs", Value='{"bucket": "calls"}', Type="String")

    result = CliRunner().invoke(app, ["--stack", "prod", "--verbose", "outputs", "bucket"], prog_name="ftm")

    assert not pulumi.exists()
    assert result.stdout == "calls\n"
    assert "outputs of the stack prod: SSM parameter /ftm/outputs" in result.stderr


def test_without_pulumi_the_reason_why_aws_cannot_be_asked_is_reported(
    aws: Aws, pulumi: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_ENDPOINT_URL", aws.endpoint)
    without_credentials = run("--stack", "prod", "--region", "us-east-1", "status")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    without_a_stack = run("--stack", "nowhere", "--region", "us-east-1", "status")

    assert without_credentials.exit_code == 4
    assert "parameter /ftm/outputs in AWS: no AWS credentials" in without_credentials.stderr
    assert without_a_stack.exit_code == 3
    assert "parameter /ftm-nowhere/outputs in AWS: it does not exist in this region" in without_a_stack.stderr


def test_the_local_stack_when_it_is_not_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTM_LOCAL_DIR", str(tmp_path))

    result = run("--stack", "local", "run-quarter", "2023Q1")

    assert result.exit_code == 3
    assert "start it with `ftm local up`" in result.stderr


def test_an_output_that_the_stack_lacks(aws: Aws, ftm: Ftm) -> None:
    del aws.outputs["state_machine_arn"]
    state.write(
        state.LocalState(os.getpid(), "local", aws.endpoint, "us-east-1", aws.outputs, state.Llm("m", True), "")
    )

    assert "no output 'state_machine_arn'" in ftm("run-quarter", "2023Q1", exit_code=3).stderr


def test_an_aws_that_does_not_answer(aws: Aws, ftm: Ftm) -> None:
    state.write(
        state.LocalState(os.getpid(), "local", "http://127.0.0.1:9", "us-east-1", aws.outputs, state.Llm("m", True), "")
    )

    assert 'Could not connect to the endpoint URL: "http://127.0.0.1:9/' in ftm("topics", "2023Q1", exit_code=3).stderr


@pytest.mark.parametrize(
    ("code", "words", "exit_code"),
    [
        ("ExpiredToken", "the AWS credentials have expired", ExitCode.DENIED),
        ("InvalidAccessKeyId", "does not know these credentials", ExitCode.DENIED),
        ("AccessDenied", "no permission for GetObject: because", ExitCode.DENIED),
        ("SlowDown", "throttled GetObject", ExitCode.FAILED),
        ("NoSuchBucket", "the bucket does not exist", ExitCode.NOT_FOUND),
        ("InternalError", "AWS refused GetObject: InternalError: because", ExitCode.FAILED),
    ],
)
def test_errors_of_aws_have_a_sentence_and_an_exit_code(code: str, words: str, exit_code: ExitCode) -> None:
    s3 = boto3.client("s3", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
    with Stubber(s3) as stub:
        stub.add_client_error("get_object", code, "because.")
        with pytest.raises(s3.exceptions.ClientError) as refused:
            s3.get_object(Bucket="b", Key="k")

    sentence, code_of_error = explain(refused.value)
    assert words in sentence
    assert code_of_error == exit_code


def test_no_credentials(pulumi: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(pulumi, stdout='{"bucket": "b", "region": "us-east-1"}', code=0)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))

    result = run("topics", "2023Q1")

    assert result.exit_code == 4
    assert "no AWS credentials" in result.stderr


def test_a_profile_that_does_not_exist(pulumi: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(pulumi, stdout='{"bucket": "b", "region": "us-east-1"}', code=0)
    monkeypatch.setenv("HOME", str(tmp_path))

    result = run("--profile", "nobody", "topics", "2023Q1")

    assert result.exit_code == 4
    assert "(nobody)" in result.stderr


def test_help_imports_neither_a_heavy_library_nor_the_commands() -> None:
    code = "import sys, atexit, cli.main; atexit.register(lambda: print(list(sys.modules))); cli.main.main()"
    ended = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=True)

    for words in ("run-quarter", "Exit codes", "FTM_STACK"):
        assert words in ended.stdout
    imported = set(ast.literal_eval(ended.stdout.splitlines()[-1]))
    heavy = {"boto3", "botocore", "rich", "pyarrow", "moto", "pulumi", "importlib.metadata", "http.client", "asyncio"}
    assert not imported & (heavy | {"cli.commands", "cli.services", "cli.rendering", "contract.bucket"})
