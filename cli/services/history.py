"""The quarters and runs of a stack: from the bucket, and from Step Functions while they run."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypedDict

from cli.errors import NotFoundError
from cli.services import cost, executions, prefetch, resumption, runs, starting
from cli.services.executions import Execution
from cli.services.quarters import waiting_for_vllm
from cli.services.runs import Job, Report, RunSnapshot, Watcher
from cli.stack import Stack
from contract import ContractError, layout
from contract.batch import BatchLine, BatchProgress
from contract.layout import RunRef, check_run
from contract.run import BatchCounts, FirmCounts, RunRecord, TopicCounts

if TYPE_CHECKING:
    from mypy_boto3_stepfunctions.type_defs import ExecutionListItemTypeDef

UNCOUNTED = "UNFINISHED"
"""The status of a run that is not running and has no summary."""

_THREADS = 8


class RunItem(TypedDict):
    """One run; `ftm runs --json` prints a list of them, `ftm status --json` the last one of each quarter."""

    quarter: str
    run: str | None
    """None for an execution that has made no batches, and for a quarter that was never run."""
    status: str | None
    """RUNNING, SUCCEEDED, FAILED or UNFINISHED; also TIMED_OUT and ABORTED of an execution that has made no batches;
    None for a quarter that was never run."""
    started_at: str | None
    started_by: str
    """The operator's user name, if ftm started it; else empty."""
    seconds: float | None
    """From start to end, or to now."""
    batches: BatchCounts | None
    firms: FirmCounts | None
    topics: TopicCounts | None
    model: str
    dollars: float | None
    """The upper estimate of what it cost; None while it runs."""
    message: str


class BatchItem(TypedDict):
    """One batch of a run."""

    batch_id: str
    state: str
    """`complete`, `failed`, `running`, a Batch status such as `RUNNABLE`, or `lost`: without a job and not complete."""
    attempts: int
    firms: int
    completed: int
    skipped: int
    failed: int
    topics: int
    named: int
    updated_at: str
    seconds: float
    reason: str
    pace: dict[str, float] | None
    """While its job runs, the fields of `contract.batch.Pace`; None before its first minute has passed."""


class RunStatus(TypedDict):
    """`ftm status RUN --json` prints it."""

    report: Report
    batches: list[BatchItem]
    last_progress: str | None
    cause: str
    """Why the run makes no progress; empty while it does, and when it has ended."""
    overrun: str
    """Which job will probably be ended by its time limit; empty when none will, and when the run has ended."""


def quarters(stack: Stack) -> list[RunItem]:
    """Every quarter that has a prefetch or a run, with its last run; the newest quarter first."""
    names = sorted({*prefetch.quarters_of(stack), *runs.quarters_of(stack)}, reverse=True)
    running, last = _running(stack), executions.last_by_quarter(stack)

    def item(quarter: str) -> RunItem:
        found = runs_of(stack, quarter, running.get(quarter), last.get(quarter), limit=1)
        return found[0] if found else _empty(quarter)

    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(item, names))


def all_runs(stack: Stack, quarter: str | None, *, failed: bool, limit: int) -> list[RunItem]:
    """The runs of a quarter, or of all quarters, the newest first.

    Args:
        failed: only those that did not succeed and do not run.
        limit: at most so many runs per quarter.
    """
    running, last = _running(stack), executions.last_by_quarter(stack)
    names = [quarter] if quarter else sorted({*runs.quarters_of(stack), *last})
    found = [item for name in names for item in runs_of(stack, name, running.get(name), last.get(name), limit=limit)]
    kept = [item for item in found if not failed or item["status"] not in ("SUCCEEDED", "RUNNING")]
    return sorted(kept, key=lambda item: item["started_at"] or "", reverse=True)


def runs_of(
    stack: Stack, quarter: str, running: Execution | None, last: "ExecutionListItemTypeDef | None", *, limit: int
) -> list[RunItem]:
    """The newest runs of one quarter, the newest first.

    Args:
        running: the quarter's running execution.
        last: its last one, which comes first if it has made no batches.
    """
    ids = runs.runs_of(stack, quarter)
    items: list[RunItem] = []
    if running:
        manifest = executions.manifest_of(stack, running.arn)
        run = manifest["run"] if manifest else None
        ids = [name for name in ids if name != run]
        items.append(_running_item(stack, quarter, run, running))
    elif last and last["status"] != "SUCCEEDED":
        execution = executions.describe(stack, last["executionArn"])
        if not _has_batches(stack, execution):
            items.append(_without_batches_item(stack, quarter, execution))

    def item(run: str) -> RunItem:
        return _ended_item(stack, RunRef(quarter, run))

    with ThreadPoolExecutor(_THREADS) as pool:
        return [*items, *pool.map(item, ids[: limit - len(items)])]


def find_status(stack: Stack, name: str) -> RunStatus:
    """Details of the run with this id, or of the newest run of the quarter with this name, running or ended.

    Raises:
        NotFoundError: when there is no such run.
    """
    try:
        check_run(name)
    except ContractError:
        execution = executions.newest(stack, name)
        if execution and execution.status != "SUCCEEDED" and not _has_batches(stack, execution):
            return {
                "report": runs.report(RunSnapshot(replace(execution, input={"quarter": name})), None),
                "batches": [],
                "last_progress": None,
                "cause": waiting_for_vllm(stack, execution),
                "overrun": "",
            }
    return status_of(stack, find_run(stack, name))


def find_run(stack: Stack, name: str) -> RunRef:
    """The run with this id, or the newest run of the quarter with this name.

    Raises:
        NotFoundError: when there is no such run.
    """
    try:
        run = check_run(name)
    except ContractError:
        return RunRef(name, resumption.newest_run(stack, name))
    for quarter in runs.quarters_of(stack):
        if run in runs.runs_of(stack, quarter):
            return RunRef(quarter, run)
    raise NotFoundError(f"there is no run {run}: `{stack.command} runs` lists those that exist")


def status_of(stack: Stack, ref: RunRef) -> RunStatus:
    """Details of a run, running or ended.

    Raises:
        NotFoundError: when there is no such run.
    """
    lines = resumption.batch_lines(stack, ref)
    running = _running(stack).get(ref.quarter)
    if running and (manifest := executions.manifest_of(stack, running.arn)) and manifest["run"] == ref.run:
        snapshot = Watcher(stack, running.arn).snapshot()
        last = snapshot.last_progress
        return {
            "report": runs.report(snapshot, None),
            "batches": _batches(stack, lines, ref, {job.batch_id: job for job in snapshot.jobs}, None),
            "last_progress": last.isoformat(timespec="seconds") if last else None,
            "cause": snapshot.cause,
            "overrun": snapshot.overrun,
        }
    record = runs.record_of(stack, ref)
    batches = _batches(stack, lines, ref, {}, record)
    updated = max((batch["updated_at"] for batch in batches if batch["updated_at"]), default=None)
    report = runs.report_of_record(record) if record else _uncounted_report(ref, batches)
    return {"report": report, "batches": batches, "last_progress": updated, "cause": "", "overrun": ""}


def _running(stack: Stack) -> dict[str, Execution]:
    """The running executions by quarter."""
    found = (executions.describe(stack, arn) for arn, _ in executions.running_items(stack))
    return {str(execution.input.get("quarter", "")): execution for execution in found}


def _has_batches(stack: Stack, execution: Execution) -> bool:
    return "quarters" not in execution.input and executions.manifest_of(stack, execution.arn) is not None


def _without_batches_item(stack: Stack, quarter: str, execution: Execution) -> RunItem:
    is_running = execution.status == "RUNNING"
    return {
        **_empty(quarter),
        "status": execution.status,
        "started_at": execution.started_at.isoformat(timespec="seconds"),
        "started_by": starting.user_in(execution.name),
        "seconds": round(execution.seconds, 1),
        "message": waiting_for_vllm(stack, execution) if is_running else executions.reason(execution),
    }


def _running_item(stack: Stack, quarter: str, run: str | None, execution: Execution) -> RunItem:
    snapshot = Watcher(stack, execution.arn).snapshot()
    counts = snapshot.counts
    return {
        "quarter": quarter,
        "run": run,
        "status": execution.status,
        "started_at": execution.started_at.isoformat(timespec="seconds"),
        "started_by": starting.user_in(execution.name),
        "seconds": round(execution.seconds, 1),
        "batches": snapshot.batches,
        "firms": snapshot.firms,
        "topics": {"total": counts.topics, "named": counts.named},
        "model": runs.model_of(stack, RunRef(quarter, run)) if run else "",
        "dollars": None,
        "message": snapshot.cause or snapshot.overrun,
    }


def _ended_item(stack: Stack, ref: RunRef) -> RunItem:
    record = runs.record_of(stack, ref)
    start = datetime.strptime(ref.run, layout.RUN_FORMAT).replace(tzinfo=UTC).isoformat(timespec="seconds")
    empty: RunItem = {**_empty(ref.quarter), "run": ref.run, "status": UNCOUNTED, "started_at": start}
    if record is None:
        return {**empty, "message": "it has no summary: it was stopped, or its execution failed"}
    summary = record["summary"]
    return {
        **empty,
        "status": "FAILED" if summary["has_failures"] else "SUCCEEDED",
        "started_by": starting.user_in(record.get("execution", "").rsplit(":", 1)[-1]),
        "seconds": round(runs.seconds_of(record), 1),
        "batches": summary["batches"],
        "firms": summary["firms"],
        "topics": summary["topics"],
        "model": runs.model_of(stack, ref),
        "dollars": cost.spent(stack, record)["dollars"]["high"],
        "message": summary["message"] if summary["has_failures"] else "",
    }


def _empty(quarter: str) -> RunItem:
    return {
        "quarter": quarter,
        "run": None,
        "status": None,
        "started_at": None,
        "started_by": "",
        "seconds": None,
        "batches": None,
        "firms": None,
        "topics": None,
        "model": "",
        "dollars": None,
        "message": "",
    }


def _batches(
    stack: Stack, lines: Sequence[BatchLine], ref: RunRef, jobs: dict[str, Job], record: RunRecord | None
) -> list[BatchItem]:
    records = runs.RecordReader(stack).read(ref)
    failures = {failure["batch_id"]: failure for failure in record["summary"]["failures"]} if record else {}
    items: list[BatchItem] = []
    for line in lines:
        progress, job = records.get(line.batch_id), jobs.get(line.batch_id)
        failure = failures.get(line.batch_id)
        ended = failure.get("attempts", 1) if failure else progress.attempts if progress else 0
        attempts = job.attempt if job else ended
        reason = job.reason if job else failure["reason"] if failure else progress.error if progress else ""
        items.append(_batch(line, progress, _state(progress, job), attempts, reason))
    return items


def _state(progress: BatchProgress | None, job: Job | None) -> str:
    if job:
        return job.status
    if progress is None:
        return "lost"
    return "lost" if progress.state == "running" else progress.state


def _batch(line: BatchLine, progress: BatchProgress | None, state: str, attempts: int, reason: str) -> BatchItem:
    known = progress or BatchProgress(line.batch_id, layout.RunRef(line.quarter, ""), len(line.firm_ids))
    return {
        "batch_id": line.batch_id,
        "state": state,
        "attempts": attempts,
        "firms": len(line.firm_ids),
        "completed": len(known.completed),
        "skipped": len(known.skipped),
        "failed": len(known.failed),
        "topics": known.counts.topics,
        "named": known.counts.named,
        "updated_at": known.updated_at,
        "seconds": round(known.seconds, 1),
        "reason": reason,
        "pace": asdict(known.pace) if known.pace and state == "RUNNING" else None,
    }


def _uncounted_report(ref: RunRef, batches: Sequence[BatchItem]) -> Report:
    states = [batch["state"] for batch in batches]
    complete = states.count("complete")
    return {
        "quarter": ref.quarter,
        "run": ref.run,
        "execution_arn": "",
        "status": UNCOUNTED,
        "message": "the run has no summary: it was stopped, or its execution failed",
        "failures": [],
        "batches": {"total": len(batches), "succeeded": complete, "failed": len(batches) - complete},
        "firms": {
            "total": sum(batch["firms"] for batch in batches),
            "completed": sum(batch["completed"] for batch in batches),
            "skipped": sum(batch["skipped"] for batch in batches),
            "failed": sum(batch["failed"] for batch in batches),
        },
        "topics": {
            "total": sum(batch["topics"] for batch in batches),
            "named": sum(batch["named"] for batch in batches),
        },
        "tokens": {"prompt": 0, "cached": 0, "completion": 0},
        "fallbacks": [],
        "seconds": round(sum(batch["seconds"] for batch in batches), 1),
    }
