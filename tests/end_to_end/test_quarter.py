"""A quarter on the embedded AWS, with the commands of the README."""

import io
from collections import Counter
from typing import Any

import pyarrow.parquet as pq
import pytest

from contract import layout
from contract.topics import TOPIC_COLUMNS
from tests.end_to_end.conftest import FIRMS, QUARTER, Ended, Ftm


@pytest.fixture(scope="module")
def run(ftm: Ftm) -> Ended:
    """The sample quarter, run as the README says."""
    assert ftm("prefetch", "sample", QUARTER, "--firms", FIRMS).code == 0
    assert ftm("vllm", "scale", 1, "--wait").code == 0
    return ftm("run-quarter", QUARTER, "--batch-size", 8, "--yes", "--json")


def test_a_run_succeeds_and_accounts_for_every_firm(run: Ended):
    assert run.code == 0, run.err
    report = run.json
    assert set(report) == {
        "quarter", "run", "execution_arn", "status", "message", "failures", "batches", "firms", "topics", "tokens",
        "fallbacks", "seconds",
    }  # fmt: skip
    assert report["quarter"] == QUARTER
    assert report["status"] == "SUCCEEDED"
    assert report["batches"] == {"total": 2, "succeeded": 2, "failed": 0}
    assert report["firms"]["total"] == FIRMS == report["firms"]["completed"] + report["firms"]["skipped"]
    assert report["topics"]["total"] == report["topics"]["named"] > 0
    assert report["tokens"]["prompt"] > report["tokens"]["cached"] > 0


def test_the_bucket_contains_each_topic_once_with_its_name(run: Ended, s3: Any, stack: dict[str, Any]):
    rows = parts(s3, stack["outputs"]["bucket"], run.json["run"])
    assert all(list(row) == list(TOPIC_COLUMNS) for row in rows)
    assert len(rows) == run.json["topics"]["total"]
    assert max(Counter(row["topic_id"] for row in rows).values()) == 1
    assert all(row["name"] and row["summary"] and row["naming_method"] == "llm" for row in rows)
    assert {row["model"] for row in rows} == {stack["llm"]["model"]}


def test_topics_shows_the_results_of_the_last_run(run: Ended, ftm: Ftm):
    topics = ftm("topics", QUARTER, "--json").json
    assert len(topics) == run.json["topics"]["total"]
    assert set(topics[0]) == {
        "firm_id", "firm_name", "topic_id", "name", "summary", "keywords", "n_sentences", "naming_method",
    }  # fmt: skip
    firm = topics[0]["firm_id"]
    shown = ftm("topics", QUARTER, "--firm", firm).out
    assert topics[0]["name"] in shown
    assert ftm("topics", QUARTER, "--firm", "NO SUCH FIRM").code == 3


def test_vllm_status_knows_the_requests_of_the_run(run: Ended, ftm: Ftm):
    status = ftm("vllm", "status", "--json").json
    (gpu,) = status["gpus"]
    assert (gpu["market"], gpu["state"]) == ("spot", "InService")
    assert status["load"] == {"running": 0, "waiting": 0, "kv_cache_use": 0.0}
    assert status["minutes_idle"] <= gpu["minutes_up"]
    assert status["notes"] == []


def test_a_failed_batch_is_reported_and_the_others_are_kept(run: Ended, ftm: Ftm, s3: Any, stack: dict[str, Any]):
    """One firm is in a chunk that is not Parquet, the last chunk of the prefetch: only the last batch fails."""
    assert run.code == 0
    bucket, quarter = stack["outputs"]["bucket"], "2023Q2"
    assert ftm("prefetch", "sample", quarter, "--firms", 4).code == 0
    key = layout.prefetch_manifest_key(quarter)
    body = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    broken = (
        body.replace(b'"n_chunks": 1', b'"n_chunks": 2')
        .replace(b'"chunk_sizes": {', b'"chunk_sizes": {"chunk_0001.parquet": 1, ')
        .replace(b'"n_firms": 4', b'"n_firms": 5')
        .replace(b'"firm_to_chunk": {', b'"firm_to_chunk": {"AAAA": "chunk_0001.parquet", ')
    )
    assert len(broken) > len(body)
    s3.put_object(Bucket=bucket, Key=key, Body=broken)
    s3.put_object(Bucket=bucket, Key=layout.chunk_key(quarter, "chunk_0001.parquet"), Body=b"PAR1 not really")

    failed = ftm("run-quarter", quarter, "--batch-size", 2, "--yes", "--json")

    assert failed.code == 1
    report = failed.json
    assert report["status"] == "FAILED"
    assert report["batches"] == {"total": 3, "succeeded": 2, "failed": 1}
    assert report["firms"] == {"total": 5, "completed": 4, "skipped": 0, "failed": 1}
    assert f"{quarter}_batch_0002" in failed.err
    assert "chunk_0001.parquet of the prefetch cannot be read as Parquet" in failed.err
    assert {row["firm_id"] for row in parts(s3, bucket, report["run"], quarter)}.isdisjoint({"AAAA"})
    assert ftm("topics", quarter).code == 3
    assert ftm("topics", quarter, "--run", report["run"], "--json").json


def test_a_quarter_does_not_start_without_vllm(run: Ended, ftm: Ftm):
    assert run.code == 0
    assert ftm("vllm", "scale", 0).code == 0
    refused = ftm("run-quarter", QUARTER, "--yes")
    assert refused.code != 0
    assert "ftm --stack local vllm scale 1" in refused.err
    assert ftm("run-quarter", QUARTER, "--vllm", 1, "--yes", "--json").json["status"] == "SUCCEEDED"


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["run-quarter", "2023Q5", "--yes"], 2, "2023Q5"),
        (["run-quarter", "23Q1", "--yes"], 2, "23Q1"),
        (["run-quarter", "2019Q2", "--yes"], 3, "has no prefetch"),
        (["run-quarter", QUARTER, "--batch-size", "0", "--yes"], 2, "--batch-size"),
        (["run-quarter", QUARTER, "--batch-size", "1000000", "--yes"], 2, "--batch-size"),
        (["--stack", "nowhere", "vllm", "status"], 3, "nowhere"),
        (["topics", "2019Q2"], 3, "2019Q2"),
        (["vllm", "scale", "99"], 2, "0 to 2"),
    ],
)
def test_invalid_input_gives_a_sentence_and_an_exit_code(ftm: Ftm, arguments: list[str], code: int, sentence: str):
    refused = ftm(*arguments)
    assert refused.code == code
    assert sentence in refused.err
    assert not refused.out


def parts(s3: Any, bucket: str, run: str, quarter: str = QUARTER) -> list[dict[str, Any]]:
    listing = s3.list_objects_v2(Bucket=bucket, Prefix=layout.RunRef(quarter, run).parts_prefix)
    bodies = [s3.get_object(Bucket=bucket, Key=each["Key"])["Body"].read() for each in listing["Contents"]]
    return [row for body in bodies for row in pq.read_table(io.BytesIO(body)).to_pylist()]
