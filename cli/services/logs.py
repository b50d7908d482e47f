"""Log lines from CloudWatch: a run's workers attempt by attempt, vLLM's, and the functions'."""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypedDict

from cli.errors import NotFoundError, UsageError
from cli.services import resumption, runs
from cli.stack import Stack
from contract import resource_names as names
from contract.layout import RunRef

if TYPE_CHECKING:
    from mypy_boto3_batch.type_defs import JobDetailTypeDef

FUNCTIONS = ("prefetch-check", "create-batch-manifest", "summarize-results", "notify-completion")

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


@dataclass(frozen=True)
class Attempt:
    """One attempt of a batch's job."""

    batch_id: str
    number: int
    log_stream: str
    """Empty when the host was lost before the first line, or Batch no longer knows the job."""
    status: str
    """Batch's reason and the exit code; the only information when the host was lost."""


class LoggedLine(TypedDict):
    at: str
    text: str


class LoggedAttempt(TypedDict):
    """An attempt with its lines, as `ftm logs --json` prints it."""

    batch_id: str
    number: int
    log_stream: str
    status: str
    lines: list[LoggedLine]


@dataclass(frozen=True)
class Line:
    source: str
    """The batch and attempt, or the log stream."""
    at: datetime
    text: str


@dataclass(frozen=True)
class Filter:
    """Selects log lines."""

    since: datetime | None = None
    search: str = ""
    """Text that a line must contain, ignoring case."""

    def accepts(self, text: str) -> bool:
        return self.search.lower() in text.lower()


def parse_since(text: str | None) -> datetime | None:
    """The moment `10m`, `2h` or `1d` ago.

    Raises:
        UsageError: for anything else.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,5})([smhd])", text.strip())
    if not match:
        raise UsageError(f"--since is {text!r}, which is not a valid duration: write 30s, 10m, 2h or 1d")
    return datetime.now(UTC) - timedelta(**{_UNITS[match[2]]: int(match[1])})


def attempts_of(stack: Stack, quarter: str, run: str | None, batch: str | None) -> list[Attempt]:
    """All attempts of a run's jobs, or of one batch's, in order.

    Batch keeps a job for about a week; of an older run only the failed batches' log streams are known.

    Raises:
        NotFoundError: when the run or the batch does not exist, or no log of it is known any more.
    """
    run = run or resumption.newest_run(stack, quarter)
    ref = RunRef(quarter, run)
    lines = resumption.batch_lines(stack, ref)
    if batch and batch not in (line.batch_id for line in lines):
        raise NotFoundError(f"run {run} of {quarter} has no batch {batch}: it has {lines[0].batch_id} and so on")
    prefix = names.batch_job_name(names.prefix(stack.name), run, "")
    jobs = sorted(
        _jobs(stack, f"{prefix}{batch}" if batch else f"{prefix}*"),
        key=lambda job: (job["jobName"], job.get("createdAt", 0)),
    )
    found = [attempt for job in jobs for attempt in _attempts(job, job["jobName"].removeprefix(prefix))]
    if found:
        return found
    if recorded := _recorded_attempts(stack, ref, batch):
        return recorded
    raise NotFoundError(
        f"Batch no longer knows the jobs of run {run} of {quarter}: it forgets them after about a week"
        if runs.record_of(stack, ref)
        else f"run {run} of {quarter} has no job yet"
    )


def lines_of(stack: Stack, group: str, stream: str, source: str, wanted: Filter) -> Iterator[Line]:
    """The lines of one log stream, the oldest first; none when it does not exist yet."""
    reader = _Stream(stack, group, stream, source, wanted)
    while lines := reader.read():
        yield from lines


def follow_streams(
    stack: Stack, group: str, find: Callable[[], dict[str, str]], wanted: Filter, is_over: Callable[[], bool]
) -> Iterator[Line]:
    """The lines of log streams as they are written, until `is_over`.

    Args:
        find: the streams by name, each with its source; called repeatedly, since retries open new streams.
    """
    readers: dict[str, _Stream] = {}
    while True:
        last_round = is_over()
        for stream, source in find().items():
            reader = readers.setdefault(stream, _Stream(stack, group, stream, source, wanted))
            while lines := reader.read():
                yield from lines
        if last_round:
            return
        time.sleep(stack.poll_interval)


def group_lines(stack: Stack, group: str, wanted: Filter) -> Iterator[Line]:
    """The lines of all streams of a log group, in the order of time.

    Raises:
        NotFoundError: when there is no such group.
    """
    start = round(wanted.since.timestamp() * 1000) if wanted.since else 0
    pages = stack.logs.get_paginator("filter_log_events").paginate(logGroupName=group, startTime=start)
    try:
        for page in pages:
            for event in page["events"]:
                text = event.get("message", "").rstrip("\n")
                if wanted.accepts(text):
                    yield Line(event.get("logStreamName", ""), _moment(event.get("timestamp", 0)), text)
    except stack.logs.exceptions.ResourceNotFoundException as error:
        raise NotFoundError(f"there is no log group {group}: is the stack deployed in this region?") from error


def follow_group(stack: Stack, group: str, wanted: Filter) -> Iterator[Line]:
    """The lines of a log group as they are written; does not end."""
    seen: set[tuple[str, datetime, str]] = set()
    since = wanted.since or datetime.now(UTC)
    while True:
        for line in group_lines(stack, group, Filter(since, wanted.search)):
            key = (line.source, line.at, line.text)
            if key not in seen:
                seen.add(key)
                yield line
                since = max(since, line.at)
        time.sleep(stack.poll_interval)


class _Stream:
    """Reads one log stream from where it stopped last."""

    def __init__(self, stack: Stack, group: str, stream: str, source: str, wanted: Filter) -> None:
        self._stack = stack
        self._group = group
        self._stream = stream
        self._source = source
        self._wanted = wanted
        self._token: str | None = None

    def read(self) -> list[Line]:
        """The next page; empty at the end of what CloudWatch has so far."""
        options = {"nextToken": self._token} if self._token else {}
        if self._wanted.since:
            options["startTime"] = round(self._wanted.since.timestamp() * 1000)  # pyright: ignore[reportArgumentType]
        try:
            answer = self._stack.logs.get_log_events(
                logGroupName=self._group,
                logStreamName=self._stream,
                startFromHead=True,
                **options,  # pyright: ignore[reportArgumentType]
            )
        except self._stack.logs.exceptions.ResourceNotFoundException:  # created with its first line
            return []
        if not answer["events"]:
            return []
        self._token = answer["nextForwardToken"]
        found = [
            Line(self._source, _moment(event.get("timestamp", 0)), event.get("message", "").rstrip("\n"))
            for event in answer["events"]
        ]
        kept = [line for line in found if self._wanted.accepts(line.text)]
        return kept or self.read()


def _jobs(stack: Stack, name: str) -> "list[JobDetailTypeDef]":
    pages = stack.batch.get_paginator("list_jobs").paginate(
        jobQueue=stack.output("job_queue_arn"), filters=[{"name": "JOB_NAME", "values": [name]}]
    )
    ids = [job["jobId"] for page in pages for job in page["jobSummaryList"]]
    return [
        job
        for start in range(0, len(ids), 100)  # DescribeJobs takes a hundred
        for job in stack.batch.describe_jobs(jobs=ids[start : start + 100])["jobs"]
    ]


def _attempts(job: "JobDetailTypeDef", batch_id: str) -> list[Attempt]:
    found: list[Attempt] = []
    for number, attempt in enumerate(job.get("attempts", []), 1):
        container = attempt.get("container", {})
        reasons = [attempt.get("statusReason", ""), container.get("reason", "")]
        if (code := container.get("exitCode")) is not None:
            reasons.append(f"exit code {code}")
        found.append(Attempt(batch_id, number, container.get("logStreamName", ""), _joined(reasons)))
    stream = job.get("container", {}).get("logStreamName", "")
    if not found or (job["status"] not in ("SUCCEEDED", "FAILED") and stream not in [one.log_stream for one in found]):
        status = _joined([job["status"], job.get("statusReason", "")])
        found.append(Attempt(batch_id, len(found) + 1, stream, status))
    return found


def _recorded_attempts(stack: Stack, ref: RunRef, batch: str | None) -> list[Attempt]:
    record = runs.record_of(stack, ref)
    failures = record["summary"]["failures"] if record else []
    return [
        Attempt(
            failure["batch_id"],
            failure.get("attempts", 1),
            failure.get("log_stream", ""),
            _joined([failure["reason"], failure.get("status_reason", "")]),
        )
        for failure in failures
        if batch in (None, failure["batch_id"])
    ]


def _joined(words: Sequence[str]) -> str:
    return "; ".join(dict.fromkeys(filter(None, words)))


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
