"""An embedded AWS with a sample quarter, and `ftm` as users call it: a command with arguments."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

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
def ftm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ftm]:
    directory = tmp_path_factory.mktemp("local")
    environment = os.environ | {
        "FTM_STACK": "local",
        "FTM_LOCAL_DIR": str(directory),
        "NO_COLOR": "1",
        # The tests must not see stacks of a Pulumi CLI on this machine.
        "PULUMI_BACKEND_URL": f"file://{directory}",
    }
    command = Path(sys.executable).with_name("ftm")

    def call(*arguments: object) -> Ended:
        ended = subprocess.run(
            [command, *map(str, arguments)],
            env=environment,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert "Traceback" not in ended.stderr, ended.stderr
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    up = call("local", "up")
    assert up.code == 0, up.err
    yield call
    call("local", "down")


@pytest.fixture(scope="session")
def stack(ftm: Ftm) -> dict[str, Any]:
    return ftm("local", "status", "--json").json


@pytest.fixture(scope="session")
def s3(stack: dict[str, Any]) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=stack["endpoint"],
        region_name="us-east-1",
        aws_access_key_id="local",
        aws_secret_access_key="local",
    )
