"""A run is green only with good names: one for everything is red, with the reason, and a repair turns it green."""

import io
import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract import layout
from testing.worker import CHUNK_SCHEMA, QUARTER, LlmServer, Reply, completion, sentence, serving
from tests.end_to_end.conftest import Ended, Ftm, client, local_stack, variables_of

FIRMS = {
    "ALPHA": "Apparel gross margin in stores climbed {n} points as shoppers bought footwear.",
    "BRAVO": "Drilling gross margin per barrel of crude reached {n} percent after pipeline tariffs.",
    "CHARLIE": "Vaccine gross margin was {n} percent once patients enrolled in clinical trials.",
}
"""One topic each, which are not alike; one name for fewer than three of them would be accepted."""


@pytest.fixture(scope="module")
def llm() -> Iterator[LlmServer]:
    server = LlmServer()
    server.gate.set()
    with serving(server):
        yield server


@pytest.fixture(scope="module")
def ftm(llm: LlmServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ftm]:
    with local_stack(variables_of(tmp_path_factory.mktemp("named")), "--llm-url", llm.url) as call:
        put_prefetch(call("local", "status", "--json").json)
        yield call


def put_prefetch(stack: dict[str, Any]) -> None:
    s3, bucket, chunk = client(stack, "s3"), stack["outputs"]["bucket"], "chunk_0000.parquet"
    rows = [sentence(firm, n, text.replace("{n}", str(n))) for firm, text in FIRMS.items() for n in range(8)]
    body = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, CHUNK_SCHEMA), body)
    s3.put_object(Bucket=bucket, Key=layout.chunk_key(QUARTER, chunk), Body=body.getvalue())
    manifest = {
        "quarter": QUARTER,
        "created_at": "2023-04-01T00:00:00Z",
        "n_firms": len(FIRMS),
        "n_chunks": 1,
        "chunk_sizes": {chunk: len(FIRMS)},
        "firm_to_chunk": dict.fromkeys(FIRMS, chunk),
    }
    s3.put_object(Bucket=bucket, Key=layout.prefetch_manifest_key(QUARTER), Body=json.dumps(manifest))


def answer(llm: LlmServer, name: str, summary: str) -> None:
    llm.behave = lambda _number, _request: Reply(body=completion(json.dumps({"name": name, "summary": summary})))


def test_a_smoke_test_finds_a_server_that_cannot_name(ftm: Ftm, llm: LlmServer) -> None:
    assert ftm("vllm", "scale", 1, "--wait").code == 0
    assert ftm("vllm", "smoke", QUARTER, "--json").json["passed"]
    answer(llm, "Business update", "The company talks about its business.")

    smoke = ftm("vllm", "smoke", QUARTER, "--json")

    assert smoke.code == 1
    assert not smoke.json["passed"]
    assert [topic["firm_id"] for topic in smoke.json["topics"]] == ["ALPHA", "BRAVO", "CHARLIE"]
    assert "'Business update' would fit any company" in smoke.json["topics"][0]["problem"]


def test_a_run_begins_only_after_a_smoke_test_of_a_vllm_that_has_come_up(ftm: Ftm, llm: LlmServer) -> None:
    answer(llm, "Business update", "The company talks about its business.")
    llm.requests.clear()
    assert ftm("run-quarter", QUARTER, "--dry-run", "--json").json["smoke_test"]

    refused = ftm("run-quarter", QUARTER, "--vllm", 1, "--yes", "--json")

    assert refused.code == 1
    assert (refused.json["status"], refused.json["run"]) == ("FAILED", None)
    assert refused.json["batches"] == {"total": 0, "succeeded": 0, "failed": 0}
    assert "no quarter was run, because the smoke test of vLLM has failed" in refused.json["message"]
    assert "named 0 of 3 topics; " in refused.json["message"]
    assert "'Business update' would fit any company" in refused.json["message"]
    assert len(llm.requests) == 6
    (shown,) = ftm("runs", QUARTER, "--json").json
    assert (shown["run"], shown["status"], shown["message"]) == (None, "FAILED", refused.json["message"])
    assert ftm("status", QUARTER, "--json").json["report"] == refused.json
    assert ftm("watch", QUARTER, "--json").json == refused.json
    assert "the smoke test of vLLM has failed" in ftm("watch").err
    assert ftm("vllm", "status", "--json").json["desired"] == 0


@pytest.fixture(scope="module")
def red(ftm: Ftm, llm: LlmServer) -> Ended:
    """A run of two batches, of which neither has three firms: no worker can notice the name."""
    assert ftm("vllm", "scale", 1, "--wait").code == 0
    answer(llm, "Gross margin gains", "The gross margin rose in the quarter by some points.")
    # The claim of the run that was refused would count for a minute.
    stack = ftm("local", "status", "--json").json
    client(stack, "s3").delete_object(Bucket=stack["outputs"]["bucket"], Key=layout.claim_key(QUARTER))
    return ftm("run-quarter", QUARTER, "--batch-size", 2, "--no-smoke-test", "--yes", "--json")


def test_one_name_for_everything_is_red(ftm: Ftm, red: Ended) -> None:
    assert red.code == 1
    assert (
        "the name 'gross margin gains' was given to 3 topics of as many companies, which are not alike"
        in red.json["message"]
    )
    assert red.json["topics"] == {"total": 3, "named": 0}
    assert red.json["batches"] == {"total": 2, "succeeded": 2, "failed": 0}
    assert f"ask for the missing names: ftm --stack local resume {QUARTER} {red.json['run']}" in red.err
    assert ftm("topics", QUARTER).code == 3


def test_a_repair_with_another_model_turns_it_green_and_loses_nothing_when_a_job_is_killed(
    ftm: Ftm, llm: LlmServer, red: Ended
) -> None:
    stack = ftm("local", "status", "--json").json
    s3, bucket, model = client(stack, "s3"), stack["outputs"]["bucket"], stack["llm"]["model"]
    run = layout.RunRef(QUARTER, red.json["run"])
    manifest = {"Bucket": bucket, "Key": run.manifest_key}
    body = s3.get_object(**manifest)["Body"].read()
    s3.put_object(**manifest, Body=body.replace(f'"{model}"'.encode(), b'"another-model"'))

    refused = ftm("resume", QUARTER, "--yes")
    assert refused.code == 5
    assert f"began with the model another-model, and the stack now has {model}" in refused.err

    killed: list[int] = []

    def kill_once(number: int, _request: dict[str, Any]) -> Reply:
        if number == 0 and not killed:
            killed.append(kill_job(stack))
        return Reply()

    llm.requests.clear()
    llm.behave = kill_once
    green = ftm("resume", QUARTER, "--model-change", "--no-smoke-test", "--yes", "--json")

    assert green.code == 0, green.err
    assert killed
    assert (green.json["run"], green.json["topics"]) == (run.run, {"total": len(FIRMS), "named": len(FIRMS)})
    assert len(FIRMS) <= len(llm.requests) <= len(FIRMS) + 2  # the killed job may have been waiting for two names
    assert s3.get_object(**manifest)["Body"].read() == body
    keys = [item["Key"] for item in s3.list_objects_v2(Bucket=bucket, Prefix=run.parts_prefix)["Contents"]]
    tables = [pq.read_table(io.BytesIO(s3.get_object(Bucket=bucket, Key=key)["Body"].read())) for key in keys]
    rows = pa.concat_tables(tables).to_pylist()
    assert sorted(row["firm_id"] for row in rows) == sorted(FIRMS)
    assert {(row["naming_method"], row["model"]) for row in rows} == {("llm", model)}
    assert len({topic["name"] for topic in ftm("topics", QUARTER, "--json").json}) == len(FIRMS)
    assert not ftm("run-quarter", QUARTER, "--dry-run", "--json").json["smoke_test"]


def kill_job(stack: dict[str, Any]) -> int:
    """Kill a running job, which Batch takes for a lost host; return its process id."""
    batch = client(stack, "batch")
    job, *_ = batch.list_jobs(jobQueue=stack["outputs"]["job_queue_arn"], jobStatus="RUNNING")["jobSummaryList"]
    (described,) = batch.describe_jobs(jobs=[job["jobId"]])["jobs"]
    process = int(described["container"]["taskArn"].rsplit("pid-", 1)[1])
    os.kill(process, signal.SIGKILL)
    return process
