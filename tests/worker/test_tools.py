"""`python -m worker.name` and `python -m worker.bench`, as the CLI and the Batch jobs start them."""

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from contract import env
from tests.worker.support import Bucket, LlmServer, Reply, Worker, call, completion


def run(worker: Worker, *command: str, stdin: str = "", **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: PLW1510 (tests look at the exit code)
        [sys.executable, "-m", *command],
        env={**worker.environ, **changes},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=90,
    )


def test_a_sample_is_named_as_a_batch_would_and_the_bucket_left_alone(
    bucket: Bucket, llm: LlmServer, worker: Worker, tmp_path: Path
) -> None:
    bucket.put_firms({firm: call(firm) for firm in ("ALPHA", "BRAVO", "CHARLIE")})
    assert worker.run().returncode == 0
    batch = {row["topic_id"]: row for row in bucket.topics()}
    before = bucket.keys("")
    out = tmp_path / "named.parquet"

    def behave(_number: int, request: dict[str, Any]) -> Reply:
        name = f"View of {request['messages'][1]['content'][10:30]}"
        return Reply(body=completion(json.dumps({"name": name, "summary": "It is."})))

    llm.behave = behave
    done = run(worker, "worker.name", str(out), stdin="CHARLIE\nALPHA\n")

    assert done.returncode == 0, done.stderr
    rows = pq.read_table(out).to_pylist()
    assert [row["firm_id"] for row in rows] == ["CHARLIE"] * 5 + ["ALPHA"] * 5
    for row in rows:
        same = batch[row["topic_id"]]
        assert (row["keywords"], row["sentence_ids"]) == (same["keywords"], same["sentence_ids"])
        assert row["name"] != same["name"]
    assert bucket.keys("") == before
    assert [path.name for path in tmp_path.iterdir()] == ["named.parquet"]


@pytest.mark.parametrize(
    ("stdin", "says"), [("", "give the firms to name on stdin"), ("NOBODY\n", "firm NOBODY cannot be named")]
)
def test_what_cannot_be_named_is_one_sentence(
    bucket: Bucket, llm: LlmServer, worker: Worker, tmp_path: Path, stdin: str, says: str
) -> None:
    bucket.put_firms({"ALPHA": call("ALPHA")})
    done = run(worker, "worker.name", str(tmp_path / "named.parquet"), stdin=stdin)
    assert done.returncode == 1
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_each_level_of_the_bench_is_a_line(llm: LlmServer, worker: Worker) -> None:
    meeting = threading.Barrier(3)

    def behave(number: int, _request: dict[str, Any]) -> Reply:
        if number < 3:
            meeting.wait(30)  # answered when three are in flight
        return Reply()

    llm.behave = behave
    done = run(worker, "worker.bench", BENCH_LEVELS="3", BENCH_SECONDS="0.5", **{env.LLM_MAX_CONCURRENT: "1"})
    assert done.returncode == 0, done.stderr
    (line,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert (line["in_flight"], line["errors"], line["requests"]) == (3, 0, len(llm.requests))
    assert llm.most_at_once == 3
    assert line["p50"] <= line["p95"]
    assert line["prompt_tokens"] == 100 * line["requests"]
    prompts = [request["messages"][1]["content"] for request in llm.requests]
    assert len(set(prompts)) == len(prompts)


def test_a_wrong_level_is_one_sentence(llm: LlmServer, worker: Worker) -> None:
    done = run(worker, "worker.bench", BENCH_LEVELS="many")
    assert done.returncode == 1
    assert "BENCH_LEVELS" in done.stderr
