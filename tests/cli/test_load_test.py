"""`evaluation.load_test`: adding up the measurements of several Batch jobs."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from cli.rendering.vllm import print_load
from evaluation import EvaluationError, load_test

from .conftest import Aws, make_vllm_healthy

Measure = Callable[..., load_test.Load]


class SlowLog:
    """A clock for the load test: time passes only while it waits, and each wait adds a line to the logs of the jobs."""

    time = time.time

    def __init__(self, aws: Aws) -> None:
        self._aws = aws
        self._now = 0.0
        self.lines: list[str] = []

    def monotonic(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        self._now += seconds
        if self.lines:
            self._say(self.lines.pop(0))

    def _say(self, line: str) -> None:
        batch, logs = self._aws.client("batch"), self._aws.client("logs")
        group = self._aws.outputs["batch_log_group"]
        found = batch.list_jobs(jobQueue=self._aws.outputs["job_queue_arn"], jobStatus="SUCCEEDED")["jobSummaryList"]
        for job in batch.describe_jobs(jobs=[job["jobId"] for job in found])["jobs"]:
            stream = job["container"]["logStreamName"]
            if not logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=stream)["logStreams"]:
                logs.create_log_stream(logGroupName=group, logStreamName=stream)
            event = {"timestamp": round(time.time() * 1000), "message": line}
            logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=[event])


@pytest.fixture
def log(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> SlowLog:
    make_vllm_healthy(aws)
    aws.client("logs").create_log_group(logGroupName=aws.outputs["batch_log_group"])
    log = SlowLog(aws)
    monkeypatch.setattr(load_test, "time", log)
    return log


@pytest.fixture
def measure(aws: Aws) -> Measure:
    """Return a function that runs a load test as `ftm vllm bench` does."""

    def run(jobs: int, *levels: int) -> load_test.Load:
        request: load_test.Request = {
            "name_prefix": "ftm-local",
            "job_queue_arn": aws.outputs["job_queue_arn"],
            "job_definition_arn": aws.outputs["job_definition_arn"],
            "log_group": aws.outputs["batch_log_group"],
            "jobs": jobs,
            "levels": list(levels),
            "seconds": 20,
            "boot_seconds": 300,
            "poll_interval": 3,
        }
        return load_test.LoadTest(request, aws.client("batch"), aws.client("logs"), progress.append).run()

    progress: list[str] = []
    return run


def level(in_flight: int, requests: int, **changes: Any) -> str:
    measured = {
        "in_flight": in_flight,
        "requests": requests,
        "errors": 0,
        "retries": 1,
        "seconds": 2.0,
        "p50": 0.1,
        "p95": 0.2,
        "prompt_tokens": 100 * requests,
        "cached_tokens": 50 * requests,
        "completion_tokens": 20 * requests,
        "fallbacks": {},
    }
    return json.dumps(measured | changes)


def test_the_results_of_all_jobs_are_added_up_once_their_logs_are_complete(log: SlowLog, measure: Measure) -> None:
    log.lines = [level(1, 10), "a word of the client", level(2, 19), level(4, 20)]

    measured = measure(3, 1, 2, 4)

    assert (measured["jobs"], measured["knee"]) == (3, 6)
    assert [one["in_flight"] for one in measured["levels"]] == [3, 6, 12]
    assert [one["requests_per_second"] for one in measured["levels"]] == [15, 28.5, 30]
    assert [one["retries"] for one in measured["levels"]] == [3, 3, 3]


def test_a_log_without_a_concurrency_level_is_an_error(log: SlowLog, measure: Measure) -> None:
    log.lines = [level(1, 10)]

    with pytest.raises(EvaluationError, match="reported 1 of 2 levels: see the log stream ftm-local-worker/"):
        measure(2, 1, 2)


def test_a_vllm_that_answers_no_request_is_an_error(log: SlowLog, measure: Measure) -> None:
    refused = {"request_refused": {"topics": 9, "example": "HTTP 422: no such field"}}
    log.lines = [level(1, 0, errors=9, p50=None, p95=None, fallbacks=refused)]

    with pytest.raises(EvaluationError, match=r"none of the requests, and 18 failed \(HTTP 422: no such field\)"):
        measure(2, 1)


def test_why_requests_failed_is_counted_over_all_jobs_and_printed(
    log: SlowLog, measure: Measure, capsys: pytest.CaptureFixture[str]
) -> None:
    log.lines = [
        level(1, 10, errors=3, fallbacks={"request_refused": {"topics": 3, "example": "HTTP 422: no such field"}}),
        level(2, 10, errors=1, fallbacks={"request_failed": {"topics": 1, "example": "HTTP 500: broken"}}),
    ]

    measured = measure(2, 1, 2)
    print_load(measured)

    assert [(one["reason"], one["topics"]) for one in measured["fallbacks"]] == [
        ("request_refused", 6),
        ("request_failed", 2),
    ]
    assert "6\trequest_refused\tHTTP 422: no such field" in capsys.readouterr().out
