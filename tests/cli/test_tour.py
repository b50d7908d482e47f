"""What follows a quarter's first run, on the embedded AWS: resuming, lists of quarters, namings, load.

The first run itself is tests/end_to_end's.
"""

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

    def put_chunk(self, quarter: str, body: bytes | None) -> bytes:
        """Put something else in the place of the quarter's only chunk, if given; returns what was there."""
        local = self.json("local", "status")
        s3 = boto3.client(
            "s3",
            endpoint_url=local["endpoint"],
            region_name=local["region"],
            aws_access_key_id="local",
            aws_secret_access_key="local",
        )
        bucket, key = local["outputs"]["bucket"], layout.chunk_key(quarter, "chunk_0000.parquet")
        before = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        if body is not None:
            s3.put_object(Bucket=bucket, Key=key, Body=body)
        return before


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


def test_a_list_goes_on_past_a_failed_quarter_which_is_then_resumed(ftm: Operator) -> None:
    good = ftm.put_chunk("2023Q1", b"not Parquet")

    done = ftm("run-quarters", "2023Q1..2023Q2", "--batch-size", "3", "--yes", "--json", exit_code=1)

    report = json.loads(done.stdout)
    assert report["failed"] == ["2023Q1"]
    assert [quarter["status"] for quarter in report["quarters"]] == ["FAILED", "SUCCEEDED"]
    assert "2023Q1 failed: " in done.stderr
    ftm("topics", "2023Q1", exit_code=3)  # no run of it has succeeded

    ftm.put_chunk("2023Q1", good)
    resumed = ftm.json("resume", "2023Q1", "--yes")
    assert resumed["status"] == "SUCCEEDED"
    assert resumed["run"] == report["quarters"][0]["run"]
    assert resumed["batches"] == {"total": 2, "succeeded": 2, "failed": 0}
    assert resumed["firms"]["completed"] + resumed["firms"]["skipped"] == 5
    assert "nothing to resume" in ftm("resume", "2023Q1").stderr
    assert ftm.json("topics", "2023Q1")


def test_a_naming_by_another_llm_compares_with_the_results(ftm: Operator, tmp_path: Path) -> None:
    llm, out = ftm.json("vllm", "status")["base_url"], tmp_path / "named.parquet"
    before = ftm.json("topics", "2023Q2")

    ftm("name", "2023Q2", "--sample", "2", "--llm-url", llm, "--out", str(out))
    result = ftm.json("compare", "2023Q2", "--with", str(out))

    assert result["firms"] == 2
    assert result["matched"] == result["b"]["topics"] > 0
    assert result["same_names"] == 1  # the stand-in says the same twice
    assert ftm.json("topics", "2023Q2") == before


def test_an_llm_that_is_not_there_leaves_no_file(ftm: Operator, tmp_path: Path) -> None:
    out = tmp_path / "named.parquet"

    told = ftm("name", "2023Q2", "--llm-url", "nowhere", "--out", str(out), exit_code=1).stderr

    assert "LLM_BASE_URL is 'nowhere'" in told
    assert not out.exists()


def test_load_is_measured_by_jobs_that_begin_together(ftm: Operator) -> None:
    load = ftm.json("vllm", "bench", "--concurrent", "2", "--levels", "2", "--seconds", "1")

    assert load["jobs"] == 2
    assert [level["in_flight"] for level in load["levels"]] == [4]
    assert all(level["requests"] and not level["errors"] for level in load["levels"])
    assert load["knee"] == 4


def test_up_again_says_that_it_runs(ftm: Operator) -> None:
    assert "it runs already" in ftm("local", "up").stderr
