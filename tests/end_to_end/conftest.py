"""An embedded AWS with the stack `local`, and `ftm` on it.

The embedded AWS and its jobs are real processes. Most commands run in the process of the tests, as importing what they
need takes a second of CPU time in a process of their own; `ftm_process` is `ftm` as users start it.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import boto3
import pytest
from typer.testing import CliRunner

from cli.main import app
from cli.stack import Stack

QUARTER = "2023Q1"
FIRMS = 12

Ftm = Callable[..., "Ended"]


@dataclass(frozen=True)
class Ended:
    """The result of a command, which never has a traceback."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture(scope="session")
def variables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment variables with which `ftm` finds the stack."""
    return variables_of(tmp_path_factory.mktemp("local"))


@pytest.fixture(scope="session")
def ftm(variables: dict[str, str]) -> Iterator[Ftm]:
    with local_stack(variables) as call:
        yield call


def variables_of(directory: Path) -> dict[str, str]:
    """The environment variables with which `ftm` finds a stack `local` in this directory."""
    return {
        "FTM_STACK": "local",
        "FTM_LOCAL_DIR": str(directory),
        "NO_COLOR": "1",
        # The tests must not see stacks of a Pulumi CLI on this machine.
        "PULUMI_BACKEND_URL": f"file://{directory}",
    }


@contextmanager
def local_stack(variables: dict[str, str], *options: object) -> Iterator[Ftm]:
    """`ftm` with the stack `local` that these variables name, which `ftm local up` starts with the options."""

    def call(*arguments: object) -> Ended:
        result = CliRunner().invoke(app, [*map(str, arguments)], prog_name="ftm", env=variables)
        assert "Traceback" not in result.stderr, result.stderr
        return Ended(result.exit_code, result.stdout, result.stderr)

    # The daemon ignores the operator's AWS settings.
    up = ftm_process(variables | {"AWS_PROFILE": "nobody"}, "local", "up", *options)
    try:
        assert up.code == 0, up.err
        # Every half second, as on the stack `local`, takes as much CPU time as the jobs that are waited for.
        with patch.object(Stack, "poll_interval", 1.5):
            yield call
    finally:
        ftm_process(variables, "local", "down")


def ftm_process(variables: dict[str, str], *arguments: object) -> Ended:
    """Run `ftm` in a process."""
    ended = subprocess.run(
        [Path(sys.executable).with_name("ftm"), *map(str, arguments)],
        env=os.environ | variables,
        cwd=variables["FTM_LOCAL_DIR"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert "Traceback" not in ended.stderr, ended.stderr
    return Ended(ended.returncode, ended.stdout, ended.stderr)


@pytest.fixture(scope="session")
def stack(ftm: Ftm) -> dict[str, Any]:
    return ftm("local", "status", "--json").json


@pytest.fixture(scope="session")
def s3(stack: dict[str, Any]) -> Any:
    return client(stack, "s3")


def client(stack: dict[str, Any], service: str) -> Any:
    make_client: Any = boto3.client  # its stub has a signature for each service
    return make_client(
        service,
        endpoint_url=stack["endpoint"],
        region_name="us-east-1",
        aws_access_key_id="local",
        aws_secret_access_key="local",
    )
