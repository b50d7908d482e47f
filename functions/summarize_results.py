"""Counts the results of a run, decides whether it succeeded, and records that in the bucket.

A run is judged by the records and parts in the bucket, compared with its batch manifest, and by what the Map reports;
both must agree that the run succeeded. Whatever is missing, unreadable or of an unknown shape counts as a failure.
"""

# boto3-stubs overloads boto3.client with every service, and only the installed ones are known.
# pyright: reportUnknownMemberType=false

import json
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, cast

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from contract import ContractError, env
from contract.batch import Counts, topic_counts
from contract.bucket import JSON, Bucket, ChangedError
from contract.fallbacks import Fallback, FallbackKind, add_fallbacks, fallback_lines, fallback_records
from contract.layout import RunRef, latest_key
from contract.resource_names import batch_job_name
from contract.run import (
    DEFAULT_MIN_NAMED_SHARE,
    BatchRecord,
    Failure,
    FirmCounts,
    Repair,
    RunRecord,
    RunState,
    Summary,
    SummaryRequest,
    TokenCounts,
    TopicCounts,
)
from contract.topic_names import add_name_uses
from functions.failures import MAX_TEXT, describe_failure
from functions.results import BatchResult, read_results
from functions.storage import open_bucket

batch = boto3.client("batch")

# A state has at most 256 KiB, so that only this many failures are described in it.
_MAX_FAILURES = 20
_MAX_REPEATED_NAMES = 50


@dataclass(frozen=True)
class Run:
    """A run, as its state and the bucket show it."""

    ref: RunRef
    """Its run id is empty when the run failed before it had one."""
    results: list[BatchResult]
    unlisted_parts: list[str]
    note: str = ""
    problem: str = ""
    """What went wrong apart from the batches, in a sentence; empty when nothing did."""

    @property
    def failed(self) -> list[BatchResult]:
        return [result for result in self.results if result.problem]

    @property
    def repeated_names(self) -> dict[str, int]:
        """Names that were given to many unlike topics, each with how many, the most frequent one first."""
        uses = add_name_uses(result.progress.names for result in self.results if result.progress)
        unlike = {name: use.topics for name, use in uses.items() if use.is_for_unlike_topics}
        return dict(sorted(unlike.items(), key=lambda item: (-item[1], item[0])))

    @property
    def counts(self) -> Counts:
        """What the records count, except that a name of many unlike topics counts as none."""
        total = sum((result.counts for result in self.results), Counts())
        for name, topics in self.repeated_names.items():
            reason = f"the name {name!r} was given to {topics} topics of as many companies, which are not alike"
            total.named -= topics
            total.fallbacks = add_fallbacks({FallbackKind.REPEATED_NAME: Fallback(topics, reason)}, total.fallbacks)
        return total


def handler(event: SummaryRequest, _context: object) -> Summary:
    """Count the run, write its record, and return its summary.

    Raises:
        S3UnavailableError: when S3 fails; the state machine tries again.
    """
    state, execution = event["state"], event["execution"]
    bucket = open_bucket(state["bucket"])
    run = read_run(bucket, state)
    summary = summarize(run, min_named_share())
    explain(summary["failures"], run.ref)
    if not summary["has_failures"]:
        remove_unlisted_parts(bucket, run, summary)
    if run.ref.run:
        record(bucket, run, summary, execution)
    return summary


def min_named_share() -> float:
    return float(os.environ.get(env.MIN_NAMED_SHARE, DEFAULT_MIN_NAMED_SHARE))


def read_run(bucket: Bucket, state: RunState) -> Run:
    """Read the run from the state machine's data and from the bucket; what these lack is the run's problem."""
    quarter, manifest = state["quarter"], state.get("manifest")
    match manifest:
        case {"run": str(run), "batch_ids": list()}:
            known = cast(dict[str, Any], manifest)
            submitted, note = [str(batch_id) for batch_id in known["batch_ids"]], str(known.get("note", ""))
        case {"Error": str(error), "Cause": str(cause)}:
            return Run(RunRef(quarter, ""), [], [], problem=describe_failure(error, cause))
        case _:
            problem = f"the run has no batch manifest: {manifest!r:.{MAX_TEXT}}"
            return Run(RunRef(quarter, ""), [], [], problem=problem)
    ref = RunRef(quarter, run)
    try:
        results = read_results(bucket, ref)
    except ContractError as error:
        return Run(ref, [], [], note, problem=str(error))
    outcomes, problem = _outcomes(state.get("batches"))
    reported = {batch_id: outcomes.get(batch_id, "") for batch_id in submitted}
    if unknown := reported.keys() - {result.batch_id for result in results.batches}:
        problem = problem or f"{len(unknown)} batches were processed that {ref.manifest_key} does not name"
    return Run(
        ref, [_with_outcome(result, reported) for result in results.batches], results.unlisted_parts, note, problem
    )


def summarize(run: Run, min_share: float) -> Summary:
    """The summary of a run, without Batch's description of the failed jobs."""
    failed, counts = run.failed, run.counts
    naming = _judge_naming(counts, min_share)
    problem = run.problem or _describe(failed, len(run.results)) or naming
    firms = FirmCounts(
        total=_total(run, "total"),
        completed=_total(run, "completed"),
        skipped=_total(run, "skipped"),
        failed=_total(run, "failed"),
    )
    outcome = f"failed: {problem}" if problem else f"succeeded: {_achievement(firms, counts)}"
    summary = Summary(
        quarter=run.ref.quarter,
        run=run.ref.run,
        has_failures=bool(problem),
        message=" ".join(filter(None, [f"{run.ref.quarter} {outcome}.", run.note])),
        batches={"total": len(run.results), "succeeded": len(run.results) - len(failed), "failed": len(failed)},
        firms=firms,
        topics=_topics(counts),
        tokens=_tokens(counts),
        fallbacks=fallback_records(counts.fallbacks),
        seconds=round(sum(result.seconds for result in run.results), 3),
        failures=[
            Failure(batch_id=result.batch_id, reason=result.problem[:MAX_TEXT]) for result in failed[:_MAX_FAILURES]
        ],
    )
    if naming and counts.topics:
        summary["repair"] = Repair(repeated_names=list(run.repeated_names)[:_MAX_REPEATED_NAMES])
    return summary


def explain(failures: list[Failure], run: RunRef) -> None:
    """Add Batch's description of each failed batch's last job, which Batch keeps for about a week."""
    for failure in failures:
        try:
            job = _last_job(batch_job_name(os.environ[env.JOB_NAME_PREFIX], run.run, failure["batch_id"]))
        except (BotoCoreError, ClientError):
            continue
        if job:
            add_job(failure, job)


def add_job(failure: Failure, job: dict[str, Any]) -> None:
    """Add how a batch's job ended, from its description by Batch."""
    attempts: list[dict[str, Any]] = job.get("attempts", [])
    # The log stream is missing on the job when its host was lost; the attempts have theirs.
    containers = [job.get("container", {}), *(attempt.get("container", {}) for attempt in reversed(attempts))]
    reasons = [job.get("statusReason"), _first(containers, lambda container: container.get("reason"))]
    if text := "; ".join(dict.fromkeys(reason for reason in reasons if reason)):
        failure["status_reason"] = text[:MAX_TEXT]
    exit_code = _first(containers, lambda container: container.get("exitCode"))
    if exit_code is not None:
        failure["exit_code"] = exit_code
    if log_stream := _first(containers, lambda container: container.get("logStreamName")):
        failure["log_stream"] = log_stream
    if attempts:
        failure["attempts"] = len(attempts)


def remove_unlisted_parts(bucket: Bucket, run: Run, summary: Summary) -> None:
    """Remove the parts that no record lists, so that a reader of the run's whole folder finds each topic once."""
    try:
        bucket.delete(run.unlisted_parts)
    except ClientError as error:
        summary["message"] += f" {len(run.unlisted_parts)} parts that no record lists could not be removed: {error}."


def record(bucket: Bucket, run: Run, summary: Summary, execution: str) -> None:
    """Write the run's record; when it succeeded, also as the quarter's latest one, unless that is of a newer run."""
    run_record = RunRecord(
        quarter=run.ref.quarter,
        run=run.ref.run,
        execution=execution,
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        summary=summary,
        batches=[_batch_record(result) for result in run.results],
    )
    body = json.dumps(run_record, ensure_ascii=False).encode()
    bucket.put(run.ref.summary_key, body, JSON)
    if not summary["has_failures"]:
        _make_latest(bucket, run.ref, body)


def _outcomes(batches: object) -> tuple[dict[str, str], str]:
    """Map each batch id to `SUCCEEDED` or to its error, as the Map reports them; and what is wrong with the report."""
    match batches:
        case {"Error": str(error), "Cause": str(cause)}:
            return {}, describe_failure(error, cause)
        case list():
            return _read_outcomes(cast(list[object], batches))
        case _:
            return {}, f"the Map reported {batches!r:.{MAX_TEXT}} instead of a list of outcomes"


def _read_outcomes(items: list[object]) -> tuple[dict[str, str], str]:
    outcomes: dict[str, str] = {}
    for item in items:
        match item:
            case {"batch_id": str(batch_id), "status": "SUCCEEDED"}:
                outcomes[batch_id] = "SUCCEEDED"
            case {"batch_id": str(batch_id), "status": "FAILED"}:
                outcomes[batch_id] = str(cast(dict[str, Any], item).get("error", "FAILED"))
            case _:
                return outcomes, f"the Map reported an outcome of unknown shape: {item!r:.{MAX_TEXT}}"
    return outcomes, ""


def _with_outcome(result: BatchResult, reported: dict[str, str]) -> BatchResult:
    """A batch fails by its result or by its job. One that was complete already was not submitted, and has no job."""
    outcome = reported.get(result.batch_id, "SUCCEEDED")
    if outcome == "SUCCEEDED":
        return result
    job = f"its job ended with {outcome}" if outcome else "the Map reports nothing of its job"
    return replace(result, problem="; ".join(filter(None, [result.problem, job])))


def _describe(failed: list[BatchResult], total: int) -> str:
    if not total:
        return "it has no batches"
    if not failed:
        return ""
    first = failed[0]
    return f"{len(failed)} of {total} batches failed, the first is {first.batch_id}: {first.problem[:MAX_TEXT]}"


def _judge_naming(counts: Counts, min_share: float) -> str:
    if not counts.topics:
        return "no firm has a topic"
    share = counts.named / counts.topics
    if share < min_share:
        named = f"the LLM named {counts.named} of {counts.topics} topics, {share:.1%}; at least {min_share:.1%} must be"
        return "; ".join([named, *fallback_lines(counts.fallbacks)[:1]])
    return ""


def _achievement(firms: FirmCounts, counts: Counts) -> str:
    return (
        f"{firms['completed']} of {firms['total']} firms completed, {firms['skipped']} skipped, "
        f"{counts.named} of {counts.topics} topics named by the LLM"
    )


def _total(run: Run, field: str) -> int:
    return sum(cast(dict[str, int], result.firms)[field] for result in run.results)


def _topics(counts: Counts) -> TopicCounts:
    return cast(TopicCounts, topic_counts(counts))


def _tokens(counts: Counts) -> TokenCounts:
    return {"prompt": counts.prompt_tokens, "cached": counts.cached_tokens, "completion": counts.completion_tokens}


def _batch_record(result: BatchResult) -> BatchRecord:
    entry = BatchRecord(
        batch_id=result.batch_id,
        succeeded=not result.problem,
        firms=result.firms,
        topics=_topics(result.counts),
        tokens=_tokens(result.counts),
        seconds=result.seconds,
    )
    if result.problem:
        entry["problem"] = result.problem
    return entry


def _last_job(name: str) -> dict[str, Any] | None:
    """The description of the newest job of this name: a batch that was resumed has had several."""
    queue = os.environ[env.JOB_QUEUE_ARN]
    pages = batch.get_paginator("list_jobs").paginate(jobQueue=queue, filters=[{"name": "JOB_NAME", "values": [name]}])
    jobs = [job for page in pages for job in page["jobSummaryList"]]
    if not jobs:
        return None
    newest = max(jobs, key=lambda job: job.get("createdAt", 0))
    described = batch.describe_jobs(jobs=[newest["jobId"]])["jobs"]
    return cast(dict[str, Any], described[0]) if described else None


def _first(containers: list[dict[str, Any]], get: Callable[[dict[str, Any]], Any]) -> Any:
    return next((value for value in map(get, containers) if value is not None), None)


def _make_latest(bucket: Bucket, run: RunRef, body: bytes) -> None:
    """Replace the quarter's latest record if it is of an older run; after a change by another writer, decide again."""
    key = latest_key(run.quarter)
    while True:
        latest = bucket.get(key)
        if latest and _run_of(latest.body) > run.run:
            return
        try:
            bucket.put_if(key, body, JSON, etag=latest.etag if latest else None, writer=secrets.token_hex(8))
            return
        except ChangedError:
            continue


def _run_of(record: bytes) -> str:
    """The run of a latest record; empty when it cannot be read, so that any run that succeeded replaces it."""
    try:
        return str(json.loads(record)["run"])
    except (ValueError, TypeError, KeyError):
        return ""
