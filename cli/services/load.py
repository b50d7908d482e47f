"""The stack's vLLM under load: Batch jobs that measure together, and what they measured."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypedDict

from cli.errors import CliError, UsageError
from cli.stack import Stack
from contract import env, layout
from contract import resource_names as names

LEVELS = "1,2,4,8,16,32,64"
"""Requests in flight of each job, one level after the other."""

_BOOT_SECONDS = 300
"""For the jobs' hosts to come: the jobs begin together, by the clock."""

_LOG_SECONDS = 60
"""How long CloudWatch may take to show what a job that has ended said."""

_ENOUGH = 0.9
"""The share of the best throughput that the knee has: beyond it requests mostly wait."""

_WAITING = {"SUBMITTED", "PENDING", "RUNNABLE", "STARTING"}


@dataclass(frozen=True)
class Measurement:
    """Jobs that measure together."""

    jobs: Sequence[str]
    start: float
    """When they begin, seconds since the epoch."""
    levels: Sequence[int]


class Level(TypedDict):
    """All jobs together at one level."""

    in_flight: int
    requests: int
    errors: int
    retries: int
    """Requests that were sent once more; what they waited in between is part of their seconds."""
    requests_per_second: float
    p50: float | None
    """Seconds; the median of the jobs' medians; None when no request was answered."""
    p95: float | None
    """Seconds; the worst job's."""
    tokens_per_second: float
    """Prompt and completion."""
    cached_share: float
    """Share of the prompt tokens that the prefix cache held."""


class Load(TypedDict):
    """`ftm vllm bench --json` prints it."""

    jobs: int
    levels: list[Level]
    knee: int
    """The fewest requests in flight that reach nine tenths of the best throughput."""


def parse_levels(text: str) -> list[int]:
    """The levels of `1,2,4`.

    Raises:
        UsageError: when they are not growing numbers.
    """
    numbers = [int(part) if part.strip().isdecimal() else 0 for part in text.split(",")]
    if min(numbers) > 0 and numbers == sorted(set(numbers)):
        return numbers
    raise UsageError(f"{text!r} are no levels: write growing numbers, such as {LEVELS}")


def length(levels: Sequence[int], seconds: int) -> int:
    """How long the measurement takes, from its start."""
    return len(levels) * (seconds + env.BENCH_PAUSE_SECONDS)


def submit(stack: Stack, count: int, levels: Sequence[int], seconds: int) -> Measurement:
    """Submit jobs that measure together."""
    moment = datetime.now(UTC)
    # On this machine processes start at once.
    start = moment.timestamp() + (_BOOT_SECONDS if stack.endpoint is None else 10)
    variables = {
        env.BENCH_LEVELS: ",".join(map(str, levels)),
        env.BENCH_SECONDS: str(seconds),
        env.BENCH_START: str(round(start)),
    }
    ids: list[str] = []
    for number in range(count):
        job = stack.batch.submit_job(
            jobName=f"{names.prefix(stack.name)}-bench-{layout.run_id(moment)}-{number}",
            jobQueue=stack.output("job_queue_arn"),
            jobDefinition=stack.output("job_definition_arn"),
            containerOverrides={
                "command": ["python", "-m", "evaluation.load_generator"],
                "environment": [{"name": name, "value": value} for name, value in variables.items()],
            },
            # A job that starts again would measure alone.
            retryStrategy={"attempts": 1},
        )
        ids.append(job["jobId"])
    return Measurement(ids, start, levels)


def collect(stack: Stack, measurement: Measurement, on_change: Callable[[str], None]) -> Load:
    """Wait for the jobs to end, and add up what they measured.

    Raises:
        CliError: when a job failed, did not tell all levels, or came too late to measure together with the others, or
            when no request was answered.
    """
    told = ""
    while True:
        described = stack.batch.describe_jobs(jobs=list(measurement.jobs))["jobs"]
        states = [job["status"] for job in described]
        if told != (told := ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states)))):
            on_change(told)
        failed = next((job for job in described if job["status"] == "FAILED"), None)
        if failed:
            stream = failed.get("container", {}).get("logStreamName", "")
            said = _log(stack, stream)
            raise CliError(f"a measuring job failed ({failed.get('statusReason', '')}): {said[-1] if said else ''}")
        late = sum(state in _WAITING for state in states)
        if late and time.time() > measurement.start:
            raise CliError(f"{late} of {len(states)} jobs got no host in time to measure together: ask for fewer")
        if set(states) == {"SUCCEEDED"}:
            streams = [job.get("container", {}).get("logStreamName", "") for job in described]
            return _add_up([_levels(stack, stream, measurement.levels) for stream in streams])
        time.sleep(stack.patience)


def terminate(stack: Stack, measurement: Measurement) -> None:
    """End jobs that nobody waits for any more."""
    for job in measurement.jobs:
        stack.batch.terminate_job(jobId=job, reason="the measurement was given up")


def _levels(stack: Stack, stream: str, asked: Sequence[int]) -> list[dict[str, Any]]:
    """What a job that has ended measured at each level."""
    deadline = time.monotonic() + _LOG_SECONDS
    while True:
        levels = [json.loads(line) for line in _log(stack, stream) if line.startswith("{")]
        if [level["in_flight"] for level in levels] == list(asked):
            return levels
        if time.monotonic() > deadline:
            raise CliError(
                f"a measuring job told {len(levels)} of {len(asked)} levels: see the log stream {stream} of "
                f"{stack.output('batch_log_group')}"
            )
        time.sleep(stack.patience)


def _log(stack: Stack, stream: str) -> list[str]:
    """A job's output as far as CloudWatch has it, by lines."""
    if not stream:
        return []
    try:
        events = stack.logs.get_log_events(
            logGroupName=stack.output("batch_log_group"), logStreamName=stream, startFromHead=True
        )["events"]
    except stack.logs.exceptions.ResourceNotFoundException:  # it comes with the first line
        return []
    return [event.get("message", "") for event in events]


def _add_up(jobs: Sequence[Sequence[dict[str, Any]]]) -> Load:
    levels = [_level(parts) for parts in zip(*jobs, strict=True)]
    if not any(level["requests"] for level in levels):
        errors = sum(level["errors"] for level in levels)
        raise CliError(
            f"vLLM answered none of the requests, and {errors:,} failed: the log of its service may tell why"
        )
    return {"jobs": len(jobs), "levels": levels, "knee": _knee(levels)}


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
    return next(level["in_flight"] for level in levels if level["requests_per_second"] >= best * _ENOUGH)
