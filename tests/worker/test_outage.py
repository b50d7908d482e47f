"""A batch whose LLM disappears, or hangs when the job must stop; in virtual time."""

import threading
from typing import Any
from unittest.mock import patch

from llm.client import Timeouts
from testing.worker import Bucket, FakeTime, LlmServer, Reply, Worker, call

UNAVAILABLE = Reply(status=503, body=b"<html>503 Service Temporarily Unavailable</html>")


def test_a_batch_without_its_llm_ends_with_75_and_continues_later(
    bucket: Bucket, llm: LlmServer, worker: Worker
) -> None:
    bucket.put_firms({firm: call(firm) for firm in ("ALPHA", "BRAVO", "CHARLIE")})

    def vanish(number: int, _request: dict[str, Any]) -> Reply:
        if number < 7:
            return Reply()
        llm.models = UNAVAILABLE
        return Reply(close=True)

    up, llm.behave = llm.models, vanish
    with patch("llm.client.Timeouts", lambda: Timeouts(poll_interval=60)):
        done = worker.run(FakeTime().clock, LLM_MAX_CONCURRENT="1")

    assert done.returncode == 75
    assert "was absent for 25 minutes" in done.stderr
    progress = bucket.progress()
    assert (progress.state, list(progress.completed)) == ("failed", ["ALPHA"])
    assert "was absent" in progress.error
    assert "Traceback" not in done.stderr

    llm.models, llm.behave = up, lambda _number, _request: Reply()
    assert worker.run().returncode == 0
    assert (bucket.progress().state, bucket.progress().error) == ("complete", "")
    assert len(bucket.topics()) == 15


def test_requests_in_flight_are_cancelled_when_the_job_must_stop(
    bucket: Bucket, llm: LlmServer, worker: Worker
) -> None:
    """SIGTERM while the server hangs: completed firms are written, the others are left to the next attempt."""
    bucket.put_firms({firm: call(firm) for firm in ("ALPHA", "BRAVO")})
    hang = threading.Event()

    def behave(number: int, _request: dict[str, Any]) -> Reply:
        if number >= 5:
            signal_self()
            hang.wait(30)
        return Reply()

    def signal_self() -> None:
        import os
        import signal

        os.kill(os.getpid(), signal.SIGTERM)

    llm.behave = behave
    time = FakeTime()
    done = worker.run(time.clock, LLM_MAX_CONCURRENT="1", CHECKPOINT_INTERVAL="10")
    hang.set()

    assert done.returncode == 75
    assert 20.0 in time.slept
    assert list(bucket.progress().completed) == ["ALPHA"]
    assert len(bucket.topics()) == 5
