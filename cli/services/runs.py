"""A run in progress and how it ended: its execution, the batches' progress in the bucket, and their jobs."""

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypedDict, cast

from cli.errors import NotFoundError, UsageError
from cli.services import executions, parquet, stalls
from cli.services.executions import Execution
from cli.services.retries import Retries
from cli.stack import Stack
from contract import ContractError, layout
from contract import resource_names as names
from contract.batch import BatchProgress, Counts, Pace, parse_progress, topic_counts
from contract.bucket import THREADS
from contract.fallbacks import FallbackRecord, fallback_records
from contract.layout import RunRef
from contract.run import BatchCounts, BatchManifest, Failure, FirmCounts, RunRecord, Summary, TokenCounts, TopicCounts

if TYPE_CHECKING:
    from mypy_boto3_batch.literals import JobStatusType
    from mypy_boto3_batch.type_defs import JobDetailTypeDef

_ACTIVE: "tuple[JobStatusType, ...]" = ("SUBMITTED", "RUNNABLE", "STARTING", "RUNNING")


class Report(TypedDict):
    """The state of a run; `ftm run-quarter --json` prints it, docs/json.md documents it."""

    quarter: str
    run: str | None
    """None when the execution ended before it made a batch manifest."""
    execution_arn: str
    status: str
    """RUNNING, SUCCEEDED, FAILED, TIMED_OUT, ABORTED, or UNKNOWN when AWS could not be reached any more."""
    message: str
    """One sentence: why the run failed; empty unless it did."""
    failures: list[Failure]
    """The failed batches with their reasons."""
    batches: BatchCounts
    firms: FirmCounts
    topics: TopicCounts
    tokens: TokenCounts
    fallbacks: list[FallbackRecord]
    """Why topics have no name, the most frequent reason first."""
    seconds: float
    """From the execution's start to its end."""


@dataclass(frozen=True)
class Job:
    """A batch's job that has not ended."""

    batch_id: str
    status: str
    attempt: int
    """Counted from 1; higher means that Batch has retried."""
    reason: str
    """Why it waits, or why the attempt before this one ended."""
    log_stream: str = ""
    """Of the attempt that runs; empty until it has written a line."""
    started_at: datetime | None = None
    ends_at: datetime | None = None
    """When its time limit ends the attempt that runs."""


@dataclass(frozen=True)
class RunSnapshot:
    """A run at one moment."""

    execution: Execution
    manifest: BatchManifest | None = None
    records: Mapping[str, BatchProgress] = field(default_factory=dict[str, BatchProgress])
    """The batches that this execution processes and that have written progress."""
    jobs: tuple[Job, ...] = ()
    retried: int = 0
    """Batches that needed more than one attempt so far."""
    cause: str = ""
    """Why the run makes no progress; empty while it does."""

    @property
    def batches(self) -> BatchCounts:
        active = {job.batch_id for job in self.jobs}
        states = [record.state for batch, record in self.records.items() if batch not in active]
        total = len(self.manifest["batch_ids"]) if self.manifest else 0
        return {"total": total, "succeeded": states.count("complete"), "failed": states.count("failed")}

    @property
    def firms(self) -> FirmCounts:
        records = self.records.values()
        return {
            "total": self.manifest["firms"] if self.manifest else 0,
            "completed": sum(len(record.completed) for record in records),
            "skipped": sum(len(record.skipped) for record in records),
            "failed": sum(len(record.failed) for record in records),
        }

    @property
    def counts(self) -> Counts:
        return sum((record.counts for record in self.records.values()), Counts())

    @property
    def paces(self) -> dict[str, Pace]:
        """The pace of each batch whose job runs, as its worker last estimated it."""
        running = {job.batch_id for job in self.jobs if job.status == "RUNNING"}
        found = {batch: record.pace for batch, record in self.records.items() if batch in running}
        return {batch: pace for batch, pace in found.items() if pace}

    @property
    def overrun(self) -> str:
        """Which job will probably be ended by its time limit, in a sentence; empty when none will."""
        paces = self.paces
        for job in self.jobs:
            pace = paces.get(job.batch_id)
            if not pace or not job.ends_at:
                continue
            written = datetime.fromisoformat(self.records[job.batch_id].updated_at)
            missing = written + timedelta(seconds=pace.seconds_left) - job.ends_at
            if missing > timedelta():
                return (
                    f"{job.batch_id} will need about {_hours(missing)} more than its job's time limit allows, at"
                    f" {pace.topics_per_minute:,.0f} topics a minute: `ftm resume` continues the run afterwards, a"
                    " higher batchTimeoutHours or smaller batches avoid it"
                )
        return ""

    @property
    def last_progress(self) -> datetime | None:
        """When a worker last wrote a checkpoint, or else started; None before the first worker starts."""
        written = [datetime.fromisoformat(record.updated_at) for record in self.records.values() if record.updated_at]
        started = [job.started_at for job in self.jobs if job.started_at]
        return max([*written, *started], default=None)


class Watcher:
    """Takes snapshots of one execution, and fetches only what has changed since the last one."""

    def __init__(self, stack: Stack, arn: str) -> None:
        self._stack = stack
        self._arn = arn
        self._manifest: BatchManifest | None = None
        self._records = RecordReader(stack)
        self._retried: set[str] = set()
        self._stalls = stalls.StallFinder(stack)

    def snapshot(self) -> RunSnapshot:
        execution = executions.describe(self._stack, self._arn)
        self._manifest = self._manifest or executions.manifest_of(self._stack, self._arn)
        if not self._manifest:
            return RunSnapshot(execution)
        quarter, run = str(execution.input["quarter"]), self._manifest["run"]
        # The jobs before the records: a job that has ended has left its record.
        jobs = active_jobs(self._stack, run) if execution.status == "RUNNING" else ()
        self._retried |= {job.batch_id for job in jobs if job.attempt > 1}
        records = self._records.read(RunRef(quarter, run))
        mine = {batch: records[batch] for batch in self._manifest["batch_ids"] if batch in records}
        snapshot = RunSnapshot(execution, self._manifest, mine, jobs, len(self._retried))
        running = {job.batch_id: job.log_stream for job in jobs if job.status == "RUNNING"}
        return replace(snapshot, cause=self._stalls.find(snapshot.last_progress, running, len(jobs)))


def watch(stack: Stack, execution: Execution, retries: Retries) -> Iterator[RunSnapshot]:
    """Yield snapshots of the execution until it has ended; the last one shows its end.

    Raises:
        LostConnectionError: when AWS cannot be reached any more.
    """
    watcher = Watcher(stack, execution.arn)
    while True:
        snapshot = retries.call(watcher.snapshot)
        yield snapshot
        if snapshot.execution.status != "RUNNING":
            return
        time.sleep(stack.poll_interval)


def report(snapshot: RunSnapshot, summary: Summary | None, status: str | None = None) -> Report:
    """The state of a run: as its summary counted it, or as its progress records show while there is no summary.

    Args:
        status: reported instead of the execution's.
    """
    counts, execution = snapshot.counts, snapshot.execution
    ended_badly = execution.status not in ("RUNNING", "SUCCEEDED")
    message = (summary["message"] if summary else executions.reason(execution)) if ended_badly else ""
    shared = {
        "execution_arn": execution.arn,
        "status": status or execution.status,
        "message": message,
        "failures": failures(snapshot, summary),
        "seconds": round(execution.seconds, 1),
    }
    if summary:
        return cast(Report, _counted(summary) | shared)
    progress = {
        "quarter": str(execution.input.get("quarter", "")),
        "run": snapshot.manifest["run"] if snapshot.manifest else None,
        "batches": snapshot.batches,
        "firms": snapshot.firms,
        "topics": topic_counts(counts),
        "tokens": {
            "prompt": counts.prompt_tokens,
            "cached": counts.cached_tokens,
            "completion": counts.completion_tokens,
        },
        "fallbacks": fallback_records(counts.fallbacks),
    }
    return cast(Report, progress | shared)


def report_of_record(record: RunRecord) -> Report:
    """The state of a run that has ended, from its record in the bucket."""
    summary = record["summary"]
    ended = {
        "execution_arn": record.get("execution", ""),
        "status": "FAILED" if summary["has_failures"] else "SUCCEEDED",
        "message": summary["message"] if summary["has_failures"] else "",
        "failures": summary["failures"],
        "seconds": round(seconds_of(record), 1),
    }
    return cast(Report, _counted(summary) | ended)


def seconds_of(record: RunRecord) -> float:
    """From the start of a run to its end; a run is named by its start."""
    try:
        start = datetime.strptime(record["run"], layout.RUN_FORMAT).replace(tzinfo=UTC)
        return max(0.0, (datetime.fromisoformat(record["finished_at"]) - start).total_seconds())
    except (KeyError, ValueError):
        return record["summary"]["seconds"]


def failures(snapshot: RunSnapshot, summary: Summary | None) -> list[Failure]:
    """The batches that failed, each with its reason."""
    if summary:
        return summary["failures"]
    failed = [record for record in snapshot.records.values() if record.state == "failed"]
    return [{"batch_id": record.batch_id, "reason": record.error or "it failed"} for record in failed]


def _counted(summary: Summary) -> dict[str, object]:
    counted = {name: summary[name] for name in ("quarter", "batches", "firms", "topics", "tokens")}
    # The record of a run of an earlier version of ftm has no fallbacks.
    return {**counted, "fallbacks": summary.get("fallbacks", []), "run": summary["run"] or None}


def active_jobs(stack: Stack, run: str) -> tuple[Job, ...]:
    """The run's jobs that have not ended, by batch.

    Listed by state and not by name: a run leaves thousands of ended jobs and has at most 40 active ones.
    """
    prefix = names.batch_job_name(names.prefix(stack.name), run, "")
    pages = (
        page
        for status in _ACTIVE
        for page in stack.batch.get_paginator("list_jobs").paginate(
            jobQueue=stack.output("job_queue_arn"), jobStatus=status
        )
    )
    ids = sorted(
        {job["jobId"] for page in pages for job in page["jobSummaryList"] if job["jobName"].startswith(prefix)}
    )
    described = (
        job
        for start in range(0, len(ids), 100)  # DescribeJobs takes a hundred
        for job in stack.batch.describe_jobs(jobs=ids[start : start + 100])["jobs"]
    )
    return tuple(sorted((_job(job, prefix) for job in described), key=lambda job: job.batch_id))


def runs_of(stack: Stack, quarter: str) -> list[str]:
    """The quarter's runs, the newest first."""
    found: list[str] = []
    for key in stack.bucket.keys(layout.manifests_prefix(quarter)):
        with suppress(ContractError):  # other records are there too
            found.append(layout.run_of_manifest(key).run)
    return sorted(found, reverse=True)


def record_of(stack: Stack, run: RunRef) -> RunRecord | None:
    """How a run ended, as SummarizeResults recorded it; None without a record, or when the record is broken."""
    return _read_record(stack, run.summary_key)


def _read_record(stack: Stack, key: str) -> RunRecord | None:
    found = stack.bucket.get(key)
    if found is None:
        return None
    record = executions.json_object(found.body.decode(errors="replace"))
    return cast(RunRecord, record) if "summary" in record else None


def quarters_of(stack: Stack) -> list[str]:
    """The quarters that have a run, the newest first."""
    prefix = layout.manifests_prefix("").rstrip("/") + "/"
    pages = stack.s3.get_paginator("list_objects_v2").paginate(
        Bucket=stack.output("bucket"), Prefix=prefix, Delimiter="/"
    )
    folders = (item.get("Prefix", "") for page in pages for item in page.get("CommonPrefixes", []))
    return sorted((folder.removeprefix(prefix).rstrip("/") for folder in folders), reverse=True)


def latest_records(stack: Stack) -> Iterator[RunRecord]:
    """The record of each quarter's last successful run, the newest quarter first."""
    for quarter in quarters_of(stack):
        if record := _read_record(stack, layout.latest_key(quarter)):
            yield record


def model_of(stack: Stack, run: RunRef) -> str:
    """The model that named a run's topics, from its first part; empty when there is none."""
    part = min(stack.bucket.keys(run.parts_prefix), default="")
    found = stack.bucket.get(part) if part else None
    if found is None:
        return ""
    try:
        rows = parquet.read_rows(found.body, ("model",), None, stack.bucket.url(part))
    except UsageError:
        return ""
    return next((str(row["model"]) for row in rows if row["model"]), "")


def newest_record(stack: Stack, quarter: str) -> RunRecord | None:
    """The record of the quarter's last run that has one."""
    records = (record_of(stack, RunRef(quarter, run)) for run in runs_of(stack, quarter))
    return next(filter(None, records), None)


def no_run(stack: Stack, quarter: str) -> NotFoundError:
    return NotFoundError(f"{quarter} has no run: start one with `{stack.command} run-quarter {quarter}`")


def no_such_run(stack: Stack, run: RunRef) -> NotFoundError:
    known = runs_of(stack, run.quarter)
    return NotFoundError(
        f"{run.quarter} has no run {run.run}" + (f"; its runs: {', '.join(known[:5])}" if known else " and no other")
    )


class RecordReader:
    """Reads a run's progress records; later reads fetch only those whose ETag has changed."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._etags: dict[str, str] = {}
        self._records: dict[str, BatchProgress] = {}

    def read(self, run: RunRef) -> dict[str, BatchProgress]:
        """The run's records by batch id; a broken one counts as missing, as it does for SummarizeResults."""
        found = self._stack.bucket.keys(run.progress_prefix)
        changed = [key for key, etag in found.items() if self._etags.get(key) != etag]
        with ThreadPoolExecutor(max_workers=THREADS) as pool:
            for record in filter(None, pool.map(self._fetch, changed)):
                self._records[record.batch_id] = record
        self._etags = found
        return self._records

    def _fetch(self, key: str) -> BatchProgress | None:
        found = self._stack.bucket.get(key)
        try:
            return parse_progress(found.body) if found else None
        except ContractError:
            return None


def records_of(stack: Stack, run: RunRef) -> dict[str, BatchProgress]:
    """A run's progress records by batch id.

    Raises:
        NotFoundError: when the run has left none, naming the quarter's runs.
    """
    if records := RecordReader(stack).read(run):
        return records
    raise no_such_run(stack, run)


def _hours(duration: timedelta) -> str:
    """`3:05`, in hours and minutes."""
    minutes = round(duration.total_seconds() / 60)
    return f"{minutes // 60}:{minutes % 60:02} hours"


def _job(job: "JobDetailTypeDef", prefix: str) -> Job:
    # A job is still RUNNING for a moment after its attempt has succeeded; that attempt is not retried.
    lost = [attempt for attempt in job.get("attempts", []) if attempt.get("container", {}).get("exitCode") != 0]
    reason = job.get("statusReason", "")
    if lost:
        reason = lost[-1].get("statusReason", "") or lost[-1].get("container", {}).get("reason", "") or reason
    started = job.get("startedAt")
    started_at = datetime.fromtimestamp(started / 1000, UTC) if started and job["status"] == "RUNNING" else None
    limit = job.get("timeout", {}).get("attemptDurationSeconds")
    return Job(
        batch_id=job["jobName"].removeprefix(prefix),
        status=job["status"],
        attempt=len(lost) + 1,
        reason=reason,
        log_stream=job.get("container", {}).get("logStreamName", ""),
        started_at=started_at,
        ends_at=started_at + timedelta(seconds=limit) if started_at and limit else None,
    )
