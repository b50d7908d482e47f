"""`python -m evaluation.load_test`: measures the stack's vLLM with Batch jobs that send requests at the same time.

The jobs run `evaluation.load_generator`; this process submits them, waits for them and adds up their results. The
request on stdin is a `Request`, the answer on stdout a `Load`; progress goes to stderr. SIGINT ends the jobs.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypedDict

from contract import env, layout
from contract.fallbacks import Fallback, FallbackRecord, add_fallbacks, fallback_records, parse_fallbacks
from evaluation import EvaluationError
from evaluation.jobs import LOG_SECONDS, WAITING, Target, read_log, submit
from evaluation.process import answer_request

_KNEE_SHARE = 0.9
"""The knee is the lowest concurrency with this share of the peak throughput; above it, requests mostly wait."""


@dataclass(frozen=True)
class Measurement:
    """Jobs that measure at the same time."""

    jobs: Sequence[str]
    """Their ids."""
    start: float
    """When they start measuring, in seconds since the epoch."""
    levels: Sequence[int]


class Level(TypedDict):
    """All jobs together at one concurrency level."""

    in_flight: int
    requests: int
    errors: int
    retries: int
    """Retries of requests; the pause before a retry is part of the latency."""
    requests_per_second: float
    p50: float | None
    """In seconds: the median of the medians of the jobs; None if no request was answered."""
    p95: float | None
    """In seconds, of the slowest job."""
    tokens_per_second: float
    """Prompt and completion."""
    cached_share: float
    """Share of the prompt tokens that were in the prefix cache."""


class Load(TypedDict):
    """`ftm vllm bench --json` prints it."""

    jobs: int
    levels: list[Level]
    knee: int
    """The lowest number of concurrent requests that reaches 90% of the peak throughput."""
    fallbacks: list[FallbackRecord]
    """Why requests would have left their topics without a name, over all levels, the most frequent reason first."""


class Request(Target):
    """The stack to measure, and how. AWS credentials and region come from the environment."""

    log_group: str
    jobs: int
    levels: list[int]
    """Concurrent requests of each job, one level after the other."""
    seconds: int
    """Duration of each level."""
    boot_seconds: int
    """Seconds that the hosts of the jobs may take to start; the jobs then start measuring at the same time."""
    poll_interval: float


def main() -> int:
    return answer_request(_answer)


class LoadTest:
    """Submits the measuring jobs and collects their results.

    Args:
        batch: a boto3 client.
        logs: a boto3 client.
        on_change: called with a line of progress.
    """

    def __init__(self, request: Request, batch: Any, logs: Any, on_change: Callable[[str], None]) -> None:
        self._request = request
        self._batch = batch
        self._logs = logs
        self._on_change = on_change

    def run(self) -> Load:
        """Measure; the jobs are ended if that fails or is interrupted.

        Raises:
            EvaluationError: when a job failed, did not report all levels, or started too late, or when no request was
                answered.
        """
        measurement = self._submit()
        begin = f"{datetime.fromtimestamp(measurement.start):%H:%M:%S}"
        duration = len(measurement.levels) * (self._request["seconds"] + env.BENCH_PAUSE_SECONDS)
        self._on_change(f"jobs: {len(measurement.jobs)}; they measure together from {begin} on, for {duration} seconds")
        try:
            return self._collect(measurement)
        except BaseException:
            for job in measurement.jobs:
                self._batch.terminate_job(jobId=job, reason="the measurement was given up")
            raise

    def _submit(self) -> Measurement:
        request, moment = self._request, datetime.now(UTC)
        start = moment.timestamp() + request["boot_seconds"]
        variables = {
            env.BENCH_LEVELS: ",".join(map(str, request["levels"])),
            env.BENCH_SECONDS: str(request["seconds"]),
            env.BENCH_START: str(round(start)),
        }
        names = [f"bench-{layout.run_id(moment)}-{number}" for number in range(request["jobs"])]
        ids = [submit(self._batch, request, name, "evaluation.load_generator", variables) for name in names]
        return Measurement(ids, start, request["levels"])

    def _collect(self, measurement: Measurement) -> Load:
        last = ""
        while True:
            described = self._batch.describe_jobs(jobs=list(measurement.jobs))["jobs"]
            states = [job["status"] for job in described]
            if last != (last := ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states)))):
                self._on_change(last)
            if failed := next((job for job in described if job["status"] == "FAILED"), None):
                lines = self._log(failed.get("container", {}).get("logStreamName", ""))
                reason, line = failed.get("statusReason", ""), lines[-1] if lines else "its log is empty"
                raise EvaluationError(f"a measuring job failed ({reason}): {line}")
            late = sum(state in WAITING for state in states)
            if late and time.time() > measurement.start:
                raise EvaluationError(
                    f"{late} of {len(states)} jobs had no host when the measurement began: ask for fewer jobs"
                )
            if set(states) == {"SUCCEEDED"}:
                streams = [job.get("container", {}).get("logStreamName", "") for job in described]
                return add_up([self._levels(stream, measurement.levels) for stream in streams])
            time.sleep(self._request["poll_interval"])

    def _levels(self, stream: str, asked: Sequence[int]) -> list[dict[str, Any]]:
        """The results of an ended job for each level."""
        deadline = time.monotonic() + LOG_SECONDS
        while True:
            levels = [json.loads(line) for line in self._log(stream) if line.startswith("{")]
            if [level["in_flight"] for level in levels] == list(asked):
                return levels
            if time.monotonic() > deadline:
                raise EvaluationError(
                    f"a measuring job reported {len(levels)} of {len(asked)} levels: see the log stream {stream} of "
                    f"{self._request['log_group']}"
                )
            time.sleep(self._request["poll_interval"])

    def _log(self, stream: str) -> list[str]:
        return read_log(self._logs, self._request["log_group"], stream)


def add_up(jobs: Sequence[Sequence[dict[str, Any]]]) -> Load:
    """The levels of all jobs together.

    Raises:
        EvaluationError: when no request was answered.
    """
    levels = [_level(parts) for parts in zip(*jobs, strict=True)]
    fallbacks: dict[str, Fallback] = {}
    for part in (part for parts in jobs for part in parts):
        fallbacks = add_fallbacks(fallbacks, parse_fallbacks(part["fallbacks"]))
    if not any(level["requests"] for level in levels):
        errors = sum(level["errors"] for level in levels)
        reasons = fallback_records(fallbacks)
        why = f" ({reasons[0]['example']})" if reasons else ""
        raise EvaluationError(f"vLLM answered none of the requests, and {errors:,} failed{why}: see `ftm vllm logs`")
    return {"jobs": len(jobs), "levels": levels, "knee": _knee(levels), "fallbacks": fallback_records(fallbacks)}


def _level(parts: Sequence[dict[str, Any]]) -> Level:
    def total(name: str) -> int:
        return sum(int(part[name]) for part in parts)

    seconds = max(float(part["seconds"]) for part in parts)
    medians = sorted(part["p50"] for part in parts if part["p50"] is not None)
    worst = [part["p95"] for part in parts if part["p95"] is not None]
    return {
        "in_flight": total("in_flight"),
        "requests": total("requests"),
        "errors": total("errors"),
        "retries": total("retries"),
        "requests_per_second": round(total("requests") / seconds, 2),
        "p50": medians[len(medians) // 2] if medians else None,
        "p95": max(worst, default=None),
        "tokens_per_second": round((total("prompt_tokens") + total("completion_tokens")) / seconds, 1),
        "cached_share": round(total("cached_tokens") / (total("prompt_tokens") or 1), 4),
    }


def _knee(levels: Sequence[Level]) -> int:
    best = max(level["requests_per_second"] for level in levels)
    return next(level["in_flight"] for level in levels if level["requests_per_second"] >= best * _KNEE_SHARE)


def _answer(request: Request) -> Load:
    import boto3

    def log(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    return LoadTest(request, boto3.client("batch"), boto3.client("logs"), log).run()


if __name__ == "__main__":
    sys.exit(main())
