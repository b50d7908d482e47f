"""Faults around one batch: whatever happens, it ends with each of its topics once. `make faults` prints a table."""

import itertools
import json
import os
import random
import resource
import signal
import time
from collections import Counter
from collections.abc import Hashable
from datetime import datetime, timedelta, tzinfo
from typing import Any
from unittest.mock import patch

import pytest

from contract.layout import chunk_key
from llm.client import Timeouts
from testing.faulty_s3 import FaultyS3
from testing.virtual_time import virtual_time
from testing.worker import MODEL, QUARTER, RUN, Bucket, FakeTime, LlmServer, Reply, Worker, call, completion

pytestmark = pytest.mark.faults

FIRMS = [f"FIRM{number:02}" for number in range(5)]
TOPICS = [(firm, number) for firm in FIRMS for number in range(5)]

TIMES = int(os.environ.get("FAULT_TIMES", "0"))
"""How often each signal ends a job. 0 is the short form, with each signal once and all of the LLM's faults in one
batch."""


@pytest.fixture(autouse=True)
def prefetch(bucket: Bucket) -> None:
    bucket.put_firms({firm: call(firm) for firm in FIRMS})


def topics(bucket: Bucket) -> list[Hashable]:
    return [(row["firm_id"], row["local_topic_id"]) for row in bucket.topics()]


def outcome(bucket: Bucket, *codes: int) -> str:
    progress = bucket.progress()
    named = f"{progress.counts.named} of {progress.counts.topics} topics named"
    return f"{progress.state} after exit codes {', '.join(map(str, codes))}; {named}"


@pytest.mark.parametrize(
    "signals",
    [(signal.SIGTERM,), (signal.SIGKILL,)] if TIMES else [(signal.SIGTERM, signal.SIGKILL)],
    ids=lambda signals: " ".join(number.name for number in signals),
)
def test_a_job_is_killed_at_a_random_moment(
    bucket: Bucket, llm: LlmServer, worker: Worker, survives: Any, signals: tuple[signal.Signals, ...]
) -> None:
    """The moment is that of a random request to the LLM, and some hundredths of a second. After SIGTERM the firms in
    flight are finished, so that a batch must be large enough for others to be left."""
    names = [f"FIRM{number:02}" for number in range(14)]
    bucket.put_firms({firm: call(firm) for firm in names})
    in_batch = [(firm, number) for firm in names for number in range(5)]
    times = TIMES or len(signals)
    # The short form chooses among the first requests, after which there is always enough left to kill.
    moments = len(in_batch) if TIMES else len(in_batch) // 4
    dice, codes, batches, found = random.Random(signals[0]), list[int](), 0, list[Hashable]()
    sent: Counter[signal.Signals] = Counter()
    llm.behave = lambda _number, _request: time.sleep(0.05) or Reply()
    while sent.total() < times or bucket.progress().state != "complete":
        number = signals[sent.total() % len(signals)]
        left = sent.total() < times
        with worker.fork(LLM_MAX_CONCURRENT="4") as process:
            moment = len(llm.requests) + (dice.randrange(moments) if left else 10**9)
            while process.is_running and len(llm.requests) < moment:
                time.sleep(0.01)
            time.sleep(dice.random() / 20)
            sent[number] += process.is_running
            process.send(number)
            done = process.finish()
        codes.append(done.returncode)
        assert "Traceback" not in done.stderr
        if done.returncode == 0:
            batches += 1
            found += [(batches, topic) for topic in topics(bucket)]
            if sent.total() < times:
                for key in [*bucket.keys("progress/"), *bucket.keys("intermediate/")]:
                    bucket.s3.delete_object(Bucket="worker-tests", Key=key)
                bucket.put(RUN.progress_key("none"), b"")
    ended = {signal.SIGTERM: os.EX_TEMPFAIL, signal.SIGKILL: -signal.SIGKILL}
    assert set(codes) == {0, *(ended[number] for number in signals)}
    ends = ", ".join(f"{code} ({count} times)" for code, count in sorted(Counter(codes).items()))
    expected = [(batch + 1, topic) for batch in range(batches) for topic in in_batch]
    name = " and ".join(number.name for number in signals)
    survives(f"job killed ({name})", sent.total(), expected, found, f"{batches} batches complete; exit codes {ends}")


VACUOUS = completion(json.dumps({"name": "Business update", "summary": "The company discusses its business."}))

ANSWERS = {
    "429": Reply(429, {"error": {"message": "rate limit reached"}}),
    "500": Reply(500, {"error": {"message": "internal error"}}),
    "503": Reply(503, b"<html>503 Service Temporarily Unavailable</html>"),
    "connection cut": Reply(close=True),
    "broken answer": Reply(body=b'{"choices": [{"mess'),
    "answer that is not JSON": Reply(body=completion("I am sorry.")),
    "vacuous answer": Reply(body=VACUOUS),
    "no answer in time": Reply(),
}


@pytest.mark.parametrize("fault", ANSWERS if TIMES else ["any of these"])
def test_the_llm_fails_at_a_fifth_of_the_requests(
    bucket: Bucket, llm: LlmServer, worker: Worker, survives: Any, fault: str
) -> None:
    failed = 0

    def behave(number: int, _request: dict[str, Any]) -> Reply:
        nonlocal failed
        dice = random.Random(f"{fault} {number}")
        if dice.random() >= 0.2:
            return Reply()
        failed += 1
        chosen = fault if fault in ANSWERS else dice.choice(list(ANSWERS))
        if chosen == "no answer in time":
            time.sleep(1)
        return ANSWERS[chosen]

    llm.behave = behave
    with patch("llm.client.Timeouts", lambda: Timeouts(request=0.5, min_request=0.5)):
        done = worker.run(FakeTime().clock)

    assert done.returncode == 0, done.stderr
    survives(f"LLM: {fault}", failed, TOPICS, topics(bucket), outcome(bucket, done.returncode))


@pytest.mark.parametrize("minutes", [12, 60] if TIMES else [12])
def test_vllm_is_gone_and_comes_back(
    bucket: Bucket, llm: LlmServer, worker: Worker, survives: Any, minutes: int
) -> None:
    """Within the same attempt, or after it has ended with 75."""
    up = llm.models

    def come_back(slept: float) -> None:
        if slept > minutes * 60:
            llm.models, llm.behave = up, lambda _number, _request: Reply()

    def vanish(number: int, _request: dict[str, Any]) -> Reply:
        if number < 12:
            return Reply()
        llm.models = Reply(503, b"<html>503 Service Temporarily Unavailable</html>")
        return Reply(close=True)

    llm.behave = vanish
    codes, clock = list[int](), FakeTime(come_back).clock
    with patch("llm.client.Timeouts", lambda: Timeouts(poll_interval=60)):
        while not codes or codes[-1] == os.EX_TEMPFAIL:
            codes.append(worker.run(clock).returncode)

    assert len(codes) == (1 if minutes < 25 else 3)
    survives(f"vLLM gone for {minutes} minutes", 1, TOPICS, topics(bucket), outcome(bucket, *codes))


def test_a_chunk_is_corrupt_until_it_is_uploaded_again(bucket: Bucket, worker: Worker, survives: Any) -> None:
    key = chunk_key(QUARTER, "chunk_0000.parquet")
    good = bucket.get(key)
    bucket.put(key, good[: len(good) // 2] + b"\0" * 100 + good[len(good) // 2 + 100 :])
    first = worker.run().returncode
    assert first == 1
    bucket.put(key, good)
    second = worker.run().returncode

    survives("chunk corrupt", 1, TOPICS, topics(bucket), outcome(bucket, first, second))


def test_the_clock_jumps(
    bucket: Bucket, worker: Worker, proxy: FaultyS3, survives: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By hours and days, each time that the worker reads it. S3 refuses what is signed for another hour, until the
    clock is right again. The batch's duration does not follow the clock."""
    rules = [
        proxy.fail(method, "progress/", "answer", 3, skip=1, status=403, code="RequestTimeTooSkewed")
        for method in ("GET", "PUT")
    ]
    jumps, hours = 0, itertools.cycle([0, 1, -2, 24, -24])

    class JumpingClock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            nonlocal jumps
            jumps += 1
            return datetime.now(tz) + timedelta(hours=next(hours))

    monkeypatch.setattr("worker.batch.datetime", JumpingClock)
    with virtual_time():
        began = time.monotonic()
        done = worker.run(AWS_ENDPOINT_URL=proxy.url)
        elapsed = time.monotonic() - began

    assert done.returncode == 0, done.stderr
    assert 0 < bucket.progress().seconds <= elapsed
    refused = sum(3 - int(rule.times) for rule in rules)
    assert jumps > 5
    assert refused > 0
    survives("clock jumps", jumps + refused, TOPICS, topics(bucket), outcome(bucket, done.returncode))


def test_the_disk_is_full(bucket: Bucket, worker: Worker, survives: Any) -> None:
    """No file may have a byte: the process that finds topics cannot be started."""
    with worker.fork(prepare=limit_files_to_zero_bytes) as process:
        first = process.finish()
    assert first.stderr == "worker: this machine refuses: [Errno 27] File too large\n"
    second = worker.run().returncode

    survives("disk full", 1, TOPICS, topics(bucket), outcome(bucket, first.returncode, second))


def limit_files_to_zero_bytes() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def test_neither_the_key_nor_the_transcript_is_in_logs_or_records(
    bucket: Bucket, llm: LlmServer, worker: Worker
) -> None:
    """Also when the LLM's server and S3 fail, and the server repeats the request in its errors."""

    def behave(number: int, request: dict[str, Any]) -> Reply:
        return Reply(400, {"error": {"message": f"refused: {request}"}}) if number % 5 == 2 else Reply()

    llm.behave = behave
    done = worker.run(LLM_API_KEY="sk-of-this-test", LLM_MODEL_NAME=MODEL)

    records = [bucket.get(key).decode() for key in bucket.keys("progress/")]
    for text in (done.stdout, done.stderr, *records):
        assert "sk-of-this-test" not in text
        assert "In segment" not in text
        assert "we saw" not in text
    assert bucket.progress().counts.topics == len(TOPICS)
