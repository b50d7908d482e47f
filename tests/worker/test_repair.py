"""A resumed run of too few names: only the topics without one are requested, and nothing else changes."""

import json
import time
from typing import Any

import pytest

from contract.batch import BatchLine, BatchProgress
from testing.worker import (
    BATCH,
    BUCKET,
    MODEL,
    QUARTER,
    RUN,
    Bucket,
    LlmServer,
    Reply,
    Worker,
    call,
    completion,
    sentence,
)

FIRMS = ["ALPHA", "BRAVO", "CHARLIE"]
TOPICS = 5 * len(FIRMS)
UNNAMED = "dividend"
"""The server fails at each firm's topic with this word."""


def fail_at_one_subject(_number: int, request: dict[str, Any]) -> Reply:
    asked = request["messages"][1]["content"]
    return Reply(body=completion("I would rather not.")) if UNNAMED in asked else Reply()


def name_all_but_one_subject(bucket: Bucket, llm: LlmServer, worker: Worker) -> list[dict[str, Any]]:
    """A batch that is complete, in a run that was counted and lacks names; returns its topics."""
    bucket.put_firms({firm: call(firm) for firm in FIRMS})
    llm.behave = fail_at_one_subject
    assert worker.run().returncode == 0
    count_the_run(bucket)
    llm.requests.clear()
    llm.behave = lambda _number, _request: Reply()
    return topics(bucket)


def count_the_run(bucket: Bucket, *repeated_names: str) -> None:
    """What SummarizeResults records of a run that lacks names."""
    bucket.put(RUN.summary_key, json.dumps({"summary": {"repair": {"repeated_names": repeated_names}}}).encode())


def topics(bucket: Bucket) -> list[dict[str, Any]]:
    return sorted(bucket.topics(), key=lambda row: row["topic_id"])


def progress_of(bucket: Bucket) -> BatchProgress:
    progress = bucket.progress()
    assert sum(part.rows for part in progress.parts.values()) == progress.counts.topics
    return progress


def test_only_topics_without_a_name_are_requested(bucket: Bucket, llm: LlmServer, worker: Worker) -> None:
    before = name_all_but_one_subject(bucket, llm, worker)
    spent = progress_of(bucket).counts

    done = worker.run()

    assert done.returncode == 0, done.stderr
    assert f"{BATCH}: 0 of 3 firms to do, 3 lack names" in done.stdout
    assert len(llm.requests) == len(FIRMS)
    after = topics(bucket)
    assert {row["naming_method"] for row in after} == {"llm"}
    named = [row["naming_method"] == "llm" for row in before]
    assert [row for row, kept in zip(after, named, strict=True) if kept] == [
        row for row, kept in zip(before, named, strict=True) if kept
    ]
    progress = progress_of(bucket)
    counts = progress.counts
    assert (progress.state, progress.error, counts.fallbacks) == ("complete", "", {})
    assert (counts.topics, counts.named) == (TOPICS, TOPICS)
    assert counts.requests == spent.requests + len(FIRMS)
    assert counts.prompt_tokens > spent.prompt_tokens


def test_a_complete_batch_with_all_names_is_left_alone(bucket: Bucket, llm: LlmServer, worker: Worker) -> None:
    name_all_but_one_subject(bucket, llm, worker)
    assert worker.run().returncode == 0
    before, asked = bucket.get(RUN.progress_key(BATCH)), len(llm.requests)

    assert worker.run().returncode == 0
    assert (bucket.get(RUN.progress_key(BATCH)), len(llm.requests)) == (before, asked)


def test_a_repair_that_is_killed_loses_nothing_and_is_continued(bucket: Bucket, llm: LlmServer, worker: Worker) -> None:
    name_all_but_one_subject(bucket, llm, worker)
    llm.behave = lambda number, _request: Reply() if number < 2 else (llm.gate.clear(), Reply(close=True))[1]
    with worker.fork(LLM_MAX_CONCURRENT="1", CHECKPOINT_INTERVAL="1") as first:
        deadline = time.monotonic() + 240
        while (len(llm.requests) <= 2 or progress_of(bucket).counts.named == 12) and time.monotonic() < deadline:
            time.sleep(0.02)  # the record is written by a thread
        first.kill()
    killed = progress_of(bucket)
    assert (killed.state, killed.counts.topics) == ("complete", TOPICS)
    assert 12 < killed.counts.named < TOPICS
    assert len(topics(bucket)) == TOPICS

    llm.requests.clear()
    llm.behave = lambda _number, _request: Reply()
    llm.gate.set()
    assert worker.run().returncode == 0
    assert len(llm.requests) == TOPICS - killed.counts.named
    assert progress_of(bucket).counts.named == TOPICS
    assert len({row["topic_id"] for row in topics(bucket)}) == TOPICS


def test_an_incomplete_batch_is_completed_and_repaired_at_once(bucket: Bucket, llm: LlmServer, worker: Worker) -> None:
    name_all_but_one_subject(bucket, llm, worker)
    progress = bucket.progress()
    last = list(progress.parts)[-1]  # the part of the last firm
    del progress.parts[last], progress.completed[FIRMS[-1]]
    progress.state = "failed"
    bucket.put(RUN.progress_key(BATCH), progress.to_json())

    assert worker.run().returncode == 0
    assert len(llm.requests) == 2 + 5
    assert progress_of(bucket).counts.named == TOPICS


def test_topics_that_still_have_no_name_keep_their_keywords(bucket: Bucket, llm: LlmServer, worker: Worker) -> None:
    before = name_all_but_one_subject(bucket, llm, worker)
    llm.behave = fail_at_one_subject

    assert worker.run().returncode == 0
    assert [row["name"] for row in topics(bucket)] == [row["name"] for row in before]
    counts = progress_of(bucket).counts
    assert (counts.named, counts.fallbacks["unreadable"].topics) == (12, 3)


def test_a_name_that_counts_as_missing_is_requested_again(bucket: Bucket, llm: LlmServer, worker: Worker) -> None:
    bucket.put_firms({firm: call(firm, 8) for firm in FIRMS[:2]})  # one topic each
    assert worker.run(CHECKPOINT_INTERVAL="1").returncode == 0
    (name,) = {row["name"] for row in topics(bucket)}
    count_the_run(bucket, name.lower())
    llm.requests.clear()
    answer = json.dumps({"name": "Basin drilling activity", "summary": "Drilling improved in the basin."})
    llm.behave = lambda _number, _request: Reply(body=completion(answer))

    assert worker.run().returncode == 0
    assert len(llm.requests) == 2
    assert [row["name"] for row in topics(bucket)] == ["Basin drilling activity"] * 2
    assert progress_of(bucket).counts.named == 2


def test_a_server_that_still_cannot_name_is_the_reason_in_the_record(
    bucket: Bucket, llm: LlmServer, worker: Worker
) -> None:
    before = name_all_but_one_subject(bucket, llm, worker)
    llm.models = Reply(status=401, body={"error": {"message": "no key"}})

    assert worker.run().returncode == 1
    progress = progress_of(bucket)
    assert progress.state == "complete"
    assert "key" in progress.error
    assert topics(bucket) == before


def test_topics_that_are_not_found_again_need_a_new_run(bucket: Bucket, llm: LlmServer, worker: Worker) -> None:
    before = name_all_but_one_subject(bucket, llm, worker)
    bucket.put_firms({firm: [sentence(firm, n, f"Sales of pumps rose by {n}.") for n in range(9)] for firm in FIRMS})

    done = worker.run()

    assert done.returncode == 1
    assert "is not found again: the prefetch or the worker's way of finding topics has changed" in done.stderr
    assert topics(bucket) == before


@pytest.mark.parametrize(("model", "code"), [(MODEL, 0), ("another-model", 1)])
def test_a_run_continues_only_with_the_model_it_began_with(
    bucket: Bucket, llm: LlmServer, worker: Worker, model: str, code: int
) -> None:
    bucket.put_firms({"ALPHA": call("ALPHA", 8)})
    bucket.put(RUN.manifest_key, f"{BatchLine(BATCH, QUARTER, ['ALPHA'], model).to_json()}\n".encode())

    done = worker.run(LLM_MODEL_NAME=MODEL)

    assert done.returncode == code
    if code:
        assert f"began with the model {model}, and the stack now has {MODEL}" in done.stderr
        assert f"ftm resume {QUARTER} {RUN.run} --model-change" in done.stderr
        assert not llm.requests
    assert bucket.s3.list_objects_v2(Bucket=BUCKET, Prefix="progress/").get("KeyCount", 0) == (0 if code else 1)
