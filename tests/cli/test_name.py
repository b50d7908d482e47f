"""`ftm name`: the checks before the first paid request, and the worker's environment."""

import json
import sys
from pathlib import Path

import pytest

from .conftest import SUCCEEDS, Aws, Ftm, put_job_definition, put_manifest, register

Q = SUCCEEDS


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file to which a fake worker writes its environment, firms and arguments."""
    seen = tmp_path / "seen.json"
    script = tmp_path / "python"
    script.write_text(
        f"#!{sys.executable}\nimport json, os, sys\n"
        f"json.dump([dict(os.environ), sys.stdin.read().split(), sys.argv[1:]], open({str(seen)!r}, 'w'))\n"
    )
    script.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(script))
    return seen


def test_the_worker_gets_the_topic_settings_of_the_stacks_jobs(
    aws: Aws, ftm: Ftm, worker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_manifest(aws, Q)
    out = str(tmp_path / "named.parquet")
    monkeypatch.setenv("TOPIC_EMBEDDING_MODEL", "the operator's")

    ftm("name", Q, "--sample", "2", "--llm-url", "http://host/v1", "--model", "m", "--out", out)
    environment, firms, arguments = json.loads(worker.read_text())
    assert environment["TOPIC_EMBEDDING_MODEL"] == ""
    assert (environment["LLM_BASE_URL"], environment["LLM_MODEL_NAME"]) == ("http://host/v1", "m")
    assert (environment["QUARTER"], environment["S3_BUCKET"]) == (Q, aws.outputs["bucket"])
    assert len(firms) == 2
    assert arguments == ["-m", "evaluation.name_sample", out]

    aws.outputs["job_definition_arn"] = put_job_definition(aws, TOPIC_EMBEDDING_MODEL="all-MiniLM-L6-v2")
    register(aws)
    ftm("name", Q, "--sample", "2", "--out", out)
    assert json.loads(worker.read_text())[0]["TOPIC_EMBEDDING_MODEL"] == "all-MiniLM-L6-v2"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--llm-url", "nowhere", "--out", "{}/named.parquet"], "--llm-url is 'nowhere', which is not a valid URL"),
        (["--llm-url", "http://host:port", "--out", "{}/named.parquet"], "--llm-url is 'http://host:port'"),
        (["--out", "{}"], "is a folder: name a file in it"),
        (["--out", "{}/nowhere/named.parquet"], "nowhere is not a folder to write named.parquet into"),
    ],
)
def test_invalid_options_are_reported_before_anything_is_named(
    aws: Aws, ftm: Ftm, worker: Path, tmp_path: Path, options: list[str], sentence: str
) -> None:
    put_manifest(aws, Q)

    refused = ftm("name", Q, *(option.format(tmp_path) for option in options), exit_code=2)

    assert sentence in refused.stderr
    assert not worker.exists()


def test_a_deleted_job_definition_is_reported(aws: Aws, ftm: Ftm, worker: Path, tmp_path: Path) -> None:
    put_manifest(aws, Q)
    aws.outputs["job_definition_arn"] += "0"
    register(aws)

    refused = ftm("name", Q, "--out", str(tmp_path / "named.parquet"), exit_code=3)

    assert "does not exist: is the stack deployed in this region?" in refused.stderr
    assert not worker.exists()
