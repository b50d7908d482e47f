"""The operator's day on the embedded AWS: the deployed program, the real state machines, functions and worker."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from contract import layout

pytestmark = pytest.mark.xdist_group("ftm-local")

MINUTES = 60


class Operator:
    """Types `ftm` commands on the stack `local`."""

    def __init__(self, folder: Path) -> None:
        self._env = {**os.environ, "FTM_LOCAL_DIR": str(folder), "FTM_STACK": "local"}

    def __call__(self, *arguments: str, exit_code: int = 0) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-c", "from cli.main import main; main()", *arguments]
        done = subprocess.run(command, env=self._env, capture_output=True, text=True, timeout=5 * MINUTES, check=False)
        assert done.returncode == exit_code, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    def json(self, *arguments: str, exit_code: int = 0) -> Any:
        return json.loads(self(*arguments, "--json", exit_code=exit_code).stdout)

    def s3(self) -> tuple[Any, str]:
        local = self.json("local", "status")
        client = boto3.client(
            "s3",
            endpoint_url=local["endpoint"],
            region_name=local["region"],
            aws_access_key_id="local",
            aws_secret_access_key="local",
        )
        return client, local["outputs"]["bucket"]


@pytest.fixture(scope="module")
def ftm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """An operator whose stack `local` is up, with two sample quarters and a GPU."""
    operator = Operator(tmp_path_factory.mktemp("ftm"))
    operator("local", "up")
    try:
        operator("prefetch", "sample", "2023Q1", "--firms", "5")
        operator("prefetch", "sample", "2023Q2", "--firms", "4")
        operator("vllm", "scale", "1", "--wait")
        yield operator
    finally:
        operator("local", "down")


def test_a_quarter_end_to_end(ftm: Operator) -> None:
    report = ftm.json("run-quarter", "2023Q1", "--batch-size", "2", "--yes")

    assert report["status"] == "SUCCEEDED"
    assert report["batches"] == {"total": 3, "succeeded": 3, "failed": 0}
    assert report["firms"]["completed"] + report["firms"]["skipped"] == report["firms"]["total"] == 5
    assert report["topics"]["named"] == report["topics"]["total"] > 0
    topics = ftm.json("topics", "2023Q1")
    assert len(topics) == report["topics"]["total"]
    assert all(topic["name"] and topic["keywords"] for topic in topics)


def test_a_failed_batch_is_told_and_resumed(ftm: Operator) -> None:
    s3, bucket = ftm.s3()
    chunk = layout.chunk_key("2023Q2", "chunk_0000.parquet")
    good = s3.get_object(Bucket=bucket, Key=chunk)["Body"].read()
    s3.put_object(Bucket=bucket, Key=chunk, Body=b"not Parquet")

    failed = ftm("run-quarter", "2023Q2", "--batch-size", "2", "--yes", exit_code=1)

    assert "2023Q2_batch_0000" in failed.stdout
    assert "Parquet" in failed.stdout
    ftm("topics", "2023Q2", exit_code=3)  # no run has succeeded
    s3.put_object(Bucket=bucket, Key=chunk, Body=good)
    resumed = ftm.json("resume", "2023Q2", "--yes")
    assert resumed["status"] == "SUCCEEDED"
    assert resumed["run"] in failed.stdout
    assert resumed["firms"]["completed"] + resumed["firms"]["skipped"] == 4
    assert "nothing to resume" in ftm("resume", "2023Q2").stderr


def test_a_list_of_quarters_goes_on_past_a_failed_one(ftm: Operator) -> None:
    s3, bucket = ftm.s3()
    chunk = layout.chunk_key("2023Q1", "chunk_0000.parquet")
    good = s3.get_object(Bucket=bucket, Key=chunk)["Body"].read()
    s3.put_object(Bucket=bucket, Key=chunk, Body=b"not Parquet")
    try:
        report = ftm.json("run-quarters", "2023Q1..2023Q2", "--yes", exit_code=1)
    finally:
        s3.put_object(Bucket=bucket, Key=chunk, Body=good)

    assert report["failed"] == ["2023Q1"]
    assert [quarter["status"] for quarter in report["quarters"]] == ["FAILED", "SUCCEEDED"]


def test_gpus_are_switched_off_and_a_run_then_refuses(ftm: Operator) -> None:
    assert ftm.json("vllm", "scale", "0", "--wait")["running"] == 0
    refused = ftm("run-quarter", "2023Q1", "--yes", exit_code=3)

    assert "vllm scale 1 --wait" in refused.stderr
    assert ftm.json("run-quarter", "2023Q1", "--yes", "--vllm", "1")["status"] == "SUCCEEDED"


def test_up_again_says_that_it_runs(ftm: Operator) -> None:
    assert "it runs already" in ftm("local", "up").stderr
