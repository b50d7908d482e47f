"""`evaluation.name_sample` and `evaluation.load_generator`, started like the CLI and the Batch jobs start them."""

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import evaluation.name_sample
from contract import env
from contract.layout import chunk_key
from evaluation import load_generator
from testing.worker import (
    BUCKET,
    CHUNK_SCHEMA,
    PROMPT_TOKENS,
    QUARTER,
    Bucket,
    LlmServer,
    Reply,
    Worker,
    call,
    completion,
)


def name_sample(worker: Worker, out: Path, stdin: str, **changes: str) -> subprocess.CompletedProcess[str]:
    return worker.call(lambda environ: evaluation.name_sample.main([str(out)], environ), stdin, **changes)


def generate_load(worker: Worker, **changes: str) -> subprocess.CompletedProcess[str]:
    return worker.call(load_generator.main, **changes)


def run_module(worker: Worker, *command: str, stdin: str = "", **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *command],
        check=False,
        env={**worker.environ, **changes},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=240,
    )


def test_a_sample_is_named_like_a_batch_and_the_bucket_is_unchanged(
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
    done = name_sample(worker, out, stdin="CHARLIE\nALPHA\n")

    assert done.returncode == 0, done.stderr
    rows = pq.read_table(out).to_pylist()
    assert [row["firm_id"] for row in rows] == ["CHARLIE"] * 5 + ["ALPHA"] * 5
    for row in rows:
        same = batch[row["topic_id"]]
        assert (row["keywords"], row["sentence_ids"]) == (same["keywords"], same["sentence_ids"])
        assert row["name"] != same["name"]
    assert bucket.keys("") == before
    assert [path.name for path in tmp_path.iterdir()] == ["named.parquet"]


def test_a_failed_firm_does_not_affect_other_firms(
    bucket: Bucket, llm: LlmServer, worker: Worker, tmp_path: Path
) -> None:
    bucket.put_firms({firm: call(firm) for firm in ("ALPHA", "BRK B", "CHARLIE")})
    out = tmp_path / "named.parquet"

    done = name_sample(worker, out, stdin="ALPHA\nNOBODY\n\n BRK B\r\nALPHA\n")

    assert done.returncode == 0
    assert [row["firm_id"] for row in pq.read_table(out).to_pylist()] == ["ALPHA"] * 5 + ["BRK B"] * 5
    assert sorted(done.stderr.splitlines()) == [
        f"1 of 3 firms are not in {out}",
        "10 of 10 topics named",
        "ALPHA: 5 of 5 topics named",
        "BRK B: 5 of 5 topics named",
        "firm NOBODY cannot be named: the prefetch manifest of 2023Q1 does not name it",
    ]


def test_naming_starts_before_the_last_firm_is_read(
    bucket: Bucket, llm: LlmServer, worker: Worker, tmp_path: Path
) -> None:
    """The last chunk cannot be read. Firms from earlier chunks have been named by then."""
    firms = [f"FIRM{number}" for number in range(6)]
    for firm in firms:
        bucket.put_chunk(f"{firm}.parquet", pa.Table.from_pylist(call(firm), CHUNK_SCHEMA))
    bucket.put_manifests({firm: f"{firm}.parquet" for firm in firms})
    last = chunk_key(QUARTER, "FIRM5.parquet")
    bucket.s3.put_object(Bucket=BUCKET, Key=last, Body=bucket.get(last), StorageClass="GLACIER")

    changes = {env.LLM_MAX_CONCURRENT: "1"}
    done = name_sample(worker, tmp_path / "named.parquet", stdin="\n".join(firms), **changes)

    assert done.returncode == 1
    assert "worker: S3 refuses: " in done.stderr
    assert "Traceback" not in done.stderr
    assert len(llm.requests) >= 10  # three firms are in progress at once: two of five are done


def test_firms_named_before_the_llm_failed_are_written(
    bucket: Bucket, llm: LlmServer, worker: Worker, tmp_path: Path
) -> None:
    bucket.put_firms({firm: call(firm) for firm in ("ALPHA", "BRAVO", "CHARLIE")})
    llm.behave = lambda number, _request: Reply(status=200 if number < 7 else 401, body=None if number < 7 else {})
    out = tmp_path / "named.parquet"

    done = name_sample(worker, out, stdin="ALPHA\nBRAVO\nCHARLIE\n", **{env.LLM_MAX_CONCURRENT: "1"})

    assert done.returncode == 1
    assert {row["firm_id"] for row in pq.read_table(out).to_pylist()} == {"ALPHA"}
    assert "5 of 5 topics named" in done.stderr.splitlines()
    assert f"2 of 3 firms are not in {out}" in done.stderr
    assert "wants a key (HTTP 401" in done.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == [out]


def test_an_unwritable_file_is_reported_before_the_first_request(
    bucket: Bucket, llm: LlmServer, worker: Worker, tmp_path: Path
) -> None:
    bucket.put_firms({"ALPHA": call("ALPHA")})
    out = tmp_path / "missing" / "named.parquet"

    done = run_module(worker, "evaluation.name_sample", str(out), stdin="ALPHA\n")

    assert done.returncode == 1
    assert done.stderr.splitlines() == [f"worker: {out} cannot be written: No such file or directory"]
    assert not llm.requests


def test_a_final_error_of_the_llm_ends_the_naming(
    bucket: Bucket, llm: LlmServer, worker: Worker, tmp_path: Path
) -> None:
    bucket.put_firms({firm: call(firm) for firm in ("ALPHA", "BRAVO", "CHARLIE")})
    llm.behave = lambda _number, _request: Reply(status=404, body={"error": {"message": "The model does not exist."}})

    done = name_sample(worker, tmp_path / "named.parquet", stdin="ALPHA\nBRAVO\nCHARLIE\n")

    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "has no model" in line
    assert line.endswith("check --model, and --llm-url")
    assert list(tmp_path.iterdir()) == []


def test_a_sample_without_any_llm_name_is_an_error(
    bucket: Bucket, llm: LlmServer, worker: Worker, tmp_path: Path
) -> None:
    bucket.put_firms({"ALPHA": call("ALPHA")})
    llm.behave = lambda _number, _request: Reply(status=400, body={"error": {"message": "No schemas here."}})

    done = name_sample(worker, tmp_path / "named.parquet", stdin="ALPHA\n")

    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "ALPHA: 0 of 5 topics named",
        "5 topics have no name: the request failed: HTTP 400: No schemas here. (kind: request_refused)",
        "worker: not one topic was named",
    ]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("stdin", "says"),
    [
        ("", ["worker: give the firms to name on stdin, one a line"]),
        (
            "NOBODY\n",
            [
                "firm NOBODY cannot be named: the prefetch manifest of 2023Q1 does not name it",
                "worker: not one topic was named",
            ],
        ),
    ],
)
def test_firms_that_cannot_be_named_are_reported(
    bucket: Bucket, llm: LlmServer, worker: Worker, tmp_path: Path, stdin: str, says: list[str]
) -> None:
    bucket.put_firms({"ALPHA": call("ALPHA")})
    done = name_sample(worker, tmp_path / "named.parquet", stdin=stdin)
    assert done.returncode == 1
    assert done.stderr.splitlines() == says
    assert list(tmp_path.iterdir()) == []


def measured(levels: str, seconds: str, **changes: str) -> dict[str, str]:
    return {env.BENCH_LEVELS: levels, env.BENCH_SECONDS: seconds, env.BENCH_START: "0", **changes}


def test_each_concurrency_level_of_the_load_test_is_a_line(llm: LlmServer, worker: Worker) -> None:
    meeting = threading.Barrier(3)

    def behave(number: int, _request: dict[str, Any]) -> Reply:
        if number < 3:
            meeting.wait(30)  # answered when three are in flight
        return Reply()

    llm.behave = behave
    done = generate_load(worker, **measured("3", "0.5", **{env.LLM_MAX_CONCURRENT: "1"}))
    assert done.returncode == 0, done.stderr
    (line,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert (line["in_flight"], line["errors"], line["retries"]) == (3, 0, 0)
    assert line["requests"] == len(llm.requests)
    assert llm.most_at_once == 3
    assert line["p50"] <= line["p95"]
    assert line["prompt_tokens"] == PROMPT_TOKENS * line["requests"]
    prompts = [request["messages"][1]["content"] for request in llm.requests]
    assert len(set(prompts)) == len(prompts)


def test_the_load_test_keeps_its_concurrency_level_and_reports_why_requests_failed(
    llm: LlmServer, worker: Worker
) -> None:
    """The client does not adapt its concurrency, which rejected requests would lower otherwise."""
    meeting = threading.Barrier(8)

    def behave(number: int, request: dict[str, Any]) -> Reply:
        if 1 <= number <= 8:
            meeting.wait(30)  # answered when eight are in flight
        return Reply(status=422, body={"error": {"message": "no case 7"}}) if number == 9 else Reply()

    llm.behave = behave
    done = generate_load(worker, **measured("8", "1"))
    (line,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert (line["in_flight"], line["errors"]) == (8, 1)
    assert line["fallbacks"] == {"request_refused": {"topics": 1, "example": "HTTP 422: no case 7"}}


def test_concurrent_load_tests_use_different_topics(llm: LlmServer, worker: Worker) -> None:
    """Even if they have the same process id, as the first process of each container does."""
    prompts: list[set[str]] = []
    for _ in range(2):
        llm.requests.clear()
        assert load_generator.main({**worker.environ, **measured("2", "0.3")}) == 0
        prompts.append({request["messages"][1]["content"] for request in llm.requests})
    assert all(prompts)
    assert prompts[0].isdisjoint(prompts[1])


def test_an_invalid_level_is_reported_in_one_sentence(llm: LlmServer, worker: Worker) -> None:
    done = generate_load(worker, **measured("many", "1"))
    assert done.returncode == 1
    assert "BENCH_LEVELS" in done.stderr
    assert "the environment lacks BENCH_LEVELS" in generate_load(worker).stderr
