"""Which batches of a run are not complete, or lack names."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cli.errors import ConflictError
from cli.services import runs
from cli.stack import Stack
from contract.batch import BatchLine, BatchProgress, why_incomplete, why_repair
from contract.bucket import read_batch_manifest
from contract.layout import RunRef, check_run
from contract.run import RunRecord, model_conflict

ENDING_SECONDS = 60.0
"""Twice the time that a job has between SIGTERM and SIGKILL."""


@dataclass(frozen=True)
class IncompleteRun:
    """A run and its batches that are not complete or, where the run has too few names, lack some."""

    run: str
    batches: int
    incomplete: Mapping[str, str]
    """Batch to the reason why it does not count as complete, or which names it lacks."""
    firms: int
    """Firms in the incomplete batches, and firms that lack names."""
    model: str
    """The model that the run began with; empty when it is not known."""
    record: RunRecord | None
    """How the run ended; None without a summary."""

    @property
    def succeeded(self) -> bool:
        return not self.incomplete and self.record is not None and not self.record["summary"]["has_failures"]

    @property
    def is_counted(self) -> bool:
        """Whether the summary was made when all batches were complete, so that making it again changes nothing."""
        return self.record is not None and self.record["summary"]["batches"]["failed"] == 0


def find_incomplete(stack: Stack, quarter: str, run: str | None) -> IncompleteRun:
    """The incomplete batches of `run`, or of the quarter's newest run, by the same rule as the state machine's.

    Raises:
        ContractError: when `run` is not a run id, or the batch manifest is broken.
        NotFoundError: when there is no such run.
    """
    ref = RunRef(quarter, check_run(run) if run else newest_run(stack, quarter))
    lines = batch_lines(stack, ref)
    records = runs.RecordReader(stack).read(ref)
    parts = stack.bucket.keys(ref.parts_prefix)
    record = runs.record_of(stack, ref)
    repair = record["summary"].get("repair") if record else None
    incomplete: dict[str, str] = {}
    firms = 0
    for line in lines:
        progress = records.get(line.batch_id)
        if reason := _why(line, ref, progress, parts):
            incomplete[line.batch_id] = reason
            firms += len(line.firm_ids)
        elif repair and progress and (reason := why_repair(progress, repair["repeated_names"])):
            incomplete[line.batch_id] = reason
            lacking = sum(counts.named < counts.topics for counts in progress.completed.values())
            firms += lacking or len(progress.completed)
    return IncompleteRun(ref.run, len(lines), incomplete, firms, lines[0].model if lines else "", record)


def check_model(stack: Stack, quarter: str, run: IncompleteRun, *, may_change: bool) -> None:
    """Check that the run continues with the model that it began with.

    Raises:
        ConflictError: when the stack has another model now, and `may_change` is not set.
    """
    model = str(stack.outputs.get("llm_model", ""))  # a stack deployed by an earlier version has no such output
    conflict = model_conflict(RunRef(quarter, run.run), run.model, model, stack.command)
    if conflict and not may_change:
        raise ConflictError(conflict)


def wait_for_jobs(stack: Stack, run: str, report: Callable[[str], None]) -> None:
    """Wait until the run's jobs have ended: those of a stopped run have some seconds to finish the firms in flight.

    A batch that is started again at the same time loses nothing, but pays twice for the names of these firms.

    Raises:
        ConflictError: when jobs are left after ENDING_SECONDS, naming their batches.
    """
    deadline, reported = time.monotonic() + ENDING_SECONDS, False
    while jobs := runs.active_jobs(stack, run):
        batches = ", ".join(job.batch_id for job in jobs[:3]) + (", ..." if len(jobs) > 3 else "")
        if time.monotonic() >= deadline:
            raise ConflictError(f"run {run} still has jobs that have not ended ({batches}): try again in a minute")
        if not reported:
            report(f"waiting for jobs of run {run} that are still ending: {batches}")
            reported = True
        time.sleep(stack.poll_interval)


def newest_run(stack: Stack, quarter: str) -> str:
    """The quarter's newest run, however it ended.

    Raises:
        NotFoundError: when it has none.
    """
    known = runs.runs_of(stack, quarter)
    if not known:
        raise runs.no_run(stack, quarter)
    return known[0]


def batch_lines(stack: Stack, ref: RunRef) -> list[BatchLine]:
    """The batches in the manifest of a run.

    Raises:
        NotFoundError: when there is no such run.
    """
    if not stack.bucket.describe(ref.manifest_key):
        raise runs.no_such_run(stack, ref)
    return read_batch_manifest(stack.bucket, ref)


def _why(line: BatchLine, run: RunRef, record: BatchProgress | None, parts: Mapping[str, str]) -> str:
    return why_incomplete(line, run, record, parts) if record else "it has left no result"
