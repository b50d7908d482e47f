"""Says how a run ended, and records it in the bucket.

A run is judged by what lies in the bucket, held against its batch manifest, and by what the Map reports; each must
agree that all is well. Whatever is missing, unreadable or of an unknown shape counts as a failure.
"""

# boto3-stubs overloads boto3.client with every service, and only the installed ones are known.
# pyright: reportUnknownMemberType=false

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, cast

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from contract import ContractError, env
from contract.batch import Counts
from contract.fallbacks import fallback_lines, fallback_records
from contract.layout import latest_key, manifest_key, summary_key
from contract.resource_names import batch_job_name
from contract.run import (
    DEFAULT_MIN_NAMED_SHARE,
    BatchRecord,
    Failure,
    FirmCounts,
    RunRecord,
    RunState,
    Summary,
    SummaryRequest,
    TokenCounts,
    TopicCounts,
)
from functions.results import S3_CONFIG, BatchResult, read_results

s3 = boto3.client("s3", config=S3_CONFIG)
batch = boto3.client("batch")

# What one state may hold, with room to spare: so many failures in full, and so many characters of a text of others.
_MAX_FAILURES = 20
_MAX_TEXT = 500


@dataclass(frozen=True)
class Run:
    """A run as its state and the bucket show it."""

    quarter: str
    run: str
    results: list[BatchResult]
    note: str = ""
    trouble: str = ""
    """What went wrong beside the batches, in a sentence; empty when nothing did."""

    @property
    def failed(self) -> list[BatchResult]:
        return [result for result in self.results if result.problem]

    @property
    def counts(self) -> Counts:
        return sum((result.counts for result in self.results), Counts())


def handler(event: SummaryRequest, _context: object) -> Summary:
    """Count the run, record it, and answer with its summary."""
    state, execution = event["state"], event["execution"]
    run = read_run(state)
    summary = summarize(run, min_named_share())
    explain(summary["failures"], run.run)
    if run.run:
        record(state["bucket"], run, summary, execution)
    return summary


def min_named_share() -> float:
    return float(os.environ.get(env.MIN_NAMED_SHARE, DEFAULT_MIN_NAMED_SHARE))


def read_run(state: RunState) -> Run:
    """What the state machine and the bucket say of this run; what they do not say is its trouble."""
    quarter, bucket, manifest = state["quarter"], state["bucket"], state.get("manifest")
    match manifest:
        case {"run": str(run), "batch_ids": list()}:
            known = cast(dict[str, Any], manifest)
            submitted, note = [str(batch_id) for batch_id in known["batch_ids"]], str(known.get("note", ""))
        case {"Error": str(error), "Cause": str(cause)}:
            return Run(quarter, "", [], trouble=_sentence(error, cause))
        case _:
            return Run(quarter, "", [], trouble=f"the run has no batch manifest: {manifest!r:.{_MAX_TEXT}}")
    try:
        results = read_results(s3, bucket, quarter, run)
    except ContractError as error:
        return Run(quarter, run, [], note, trouble=str(error))
    outcomes, trouble = _outcomes(state.get("batches"))
    reported = {batch_id: outcomes.get(batch_id, "") for batch_id in submitted}
    if unknown := reported.keys() - {result.batch_id for result in results}:
        trouble = trouble or f"{len(unknown)} batches were processed that {manifest_key(quarter, run)} does not name"
    return Run(quarter, run, [_with_outcome(result, reported) for result in results], note, trouble)


def summarize(run: Run, min_share: float) -> Summary:
    """The summary of a run, without what Batch knows of its failures."""
    failed, counts = run.failed, run.counts
    problem = run.trouble or _describe(failed, len(run.results)) or _judge_naming(counts, min_share)
    firms = FirmCounts(
        total=_total(run, "total"),
        completed=_total(run, "completed"),
        skipped=_total(run, "skipped"),
        failed=_total(run, "failed"),
    )
    outcome = f"failed: {problem}" if problem else f"succeeded: {_achievement(firms, counts)}"
    return Summary(
        quarter=run.quarter,
        run=run.run,
        has_failures=bool(problem),
        message=" ".join(filter(None, [f"{run.quarter} {outcome}.", run.note])),
        batches={"total": len(run.results), "succeeded": len(run.results) - len(failed), "failed": len(failed)},
        firms=firms,
        topics=_topics(counts),
        tokens=_tokens(counts),
        fallbacks=fallback_records(counts.fallbacks),
        seconds=round(sum(result.seconds for result in run.results), 3),
        failures=[
            Failure(batch_id=result.batch_id, reason=result.problem[:_MAX_TEXT]) for result in failed[:_MAX_FAILURES]
        ],
    )


def explain(failures: list[Failure], run: str) -> None:
    """Add what Batch knows of each failed batch's last job: Batch keeps a job for about a week."""
    for failure in failures:
        try:
            job = _last_job(batch_job_name(os.environ[env.JOB_NAME_PREFIX], run, failure["batch_id"]))
        except (BotoCoreError, ClientError):
            continue
        if job:
            add_job(failure, job)


def add_job(failure: Failure, job: dict[str, Any]) -> None:
    """Add what the description of a batch's job says of its end."""
    attempts: list[dict[str, Any]] = job.get("attempts", [])
    # The log stream is missing on the job when its host was lost; the attempts have theirs.
    containers = [job.get("container", {}), *(attempt.get("container", {}) for attempt in reversed(attempts))]
    reasons = [job.get("statusReason"), _first(containers, lambda container: container.get("reason"))]
    if text := "; ".join(dict.fromkeys(reason for reason in reasons if reason)):
        failure["status_reason"] = text[:_MAX_TEXT]
    exit_code = _first(containers, lambda container: container.get("exitCode"))
    if exit_code is not None:
        failure["exit_code"] = exit_code
    if log_stream := _first(containers, lambda container: container.get("logStreamName")):
        failure["log_stream"] = log_stream
    if attempts:
        failure["attempts"] = len(attempts)


def record(bucket: str, run: Run, summary: Summary, execution: str) -> None:
    """Write the run's record; when it succeeded, also as the quarter's latest, unless a newer run is that already."""
    run_record = RunRecord(
        quarter=run.quarter,
        run=run.run,
        execution=execution,
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        summary=summary,
        batches=[_batch_record(result) for result in run.results],
    )
    body = json.dumps(run_record, ensure_ascii=False).encode()
    s3.put_object(Bucket=bucket, Key=summary_key(run.quarter, run.run), Body=body, ContentType="application/json")
    if not summary["has_failures"]:
        _make_latest(bucket, run, body)


def _outcomes(batches: object) -> tuple[dict[str, str], str]:
    """Batch id to `SUCCEEDED` or to the error, as the Map reports them; and what is wrong with the report."""
    match batches:
        case {"Error": str(error), "Cause": str(cause)}:
            return {}, _sentence(error, cause)
        case list():
            return _read_outcomes(cast(list[object], batches))
        case _:
            return {}, f"the Map reported {batches!r:.{_MAX_TEXT}} instead of a list of outcomes"


def _read_outcomes(items: list[object]) -> tuple[dict[str, str], str]:
    outcomes: dict[str, str] = {}
    for item in items:
        match item:
            case {"batch_id": str(batch_id), "status": "SUCCEEDED"}:
                outcomes[batch_id] = "SUCCEEDED"
            case {"batch_id": str(batch_id), "status": "FAILED"}:
                outcomes[batch_id] = str(cast(dict[str, Any], item).get("error", "FAILED"))
            case _:
                return outcomes, f"the Map reported an outcome of unknown shape: {item!r:.{_MAX_TEXT}}"
    return outcomes, ""


def _with_outcome(result: BatchResult, reported: dict[str, str]) -> BatchResult:
    """A batch fails by its result, or by its job; one that was not submitted, being complete already, has no job."""
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
    return f"{len(failed)} of {total} batches failed, the first is {first.batch_id}: {first.problem[:_MAX_TEXT]}"


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
    return {"total": counts.topics, "named": counts.named}


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


def _sentence(error: str, cause: str) -> str:
    """What a state failed with. A function's cause is JSON around the sentence that it raised."""
    try:
        text = json.loads(cause)["errorMessage"]
    except (ValueError, TypeError, KeyError):
        text = cause
    if error == ContractError.__name__:
        return str(text)[:_MAX_TEXT]
    return f"{error}: {text}"[:_MAX_TEXT]


def _last_job(name: str) -> dict[str, Any] | None:
    """The description of the newest job of this name: a resumed batch has had several."""
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


def _make_latest(bucket: str, run: Run, body: bytes) -> None:
    """Replace the quarter's latest record on the condition that nobody else did in between; if so, look again."""
    key = latest_key(run.quarter)
    while True:
        run_before, condition = _latest(bucket, key)
        if run_before > run.run:
            return
        try:
            s3.put_object(Bucket=bucket, Key=key, Body=body, ContentType="application/json", **condition)
            return
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") not in ("PreconditionFailed", "ConditionalRequestConflict"):
                raise


def _latest(bucket: str, key: str) -> tuple[str, dict[str, Any]]:
    """The run that is the latest so far, and the condition under which its record may be replaced."""
    try:
        answer = s3.get_object(Bucket=bucket, Key=key)
    except s3.exceptions.NoSuchKey:
        return "", {"IfNoneMatch": "*"}
    try:
        run = str(json.loads(answer["Body"].read())["run"])
    except (ValueError, TypeError, KeyError):
        run = ""  # Nobody can read it: any run that succeeded is better.
    return run, {"IfMatch": answer["ETag"]}
