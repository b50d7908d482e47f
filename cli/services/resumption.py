"""Which batches of a run are not complete."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cli.errors import ConflictError, NotFoundError
from cli.services import runs
from cli.stack import Stack
from contract.batch import BatchLine, BatchProgress, why_incomplete
from contract.bucket import read_batch_manifest
from contract.layout import RunRef, check_run
from contract.run import RunRecord

ENDING_SECONDS = 60.0
"""Twice what a job gets between SIGTERM and SIGKILL."""


@dataclass(frozen=True)
class IncompleteRun:
    """A run and its batches that are not complete."""

    run: str
    batches: int
    incomplete: Mapping[str, str]
    """Batch to the reason why it does not count as complete."""
    firms: int
    """Firms in the incomplete batches."""
    record: RunRecord | None
    """How the run ended; None when it was never counted."""

    @property
    def succeeded(self) -> bool:
        return not self.incomplete and self.record is not None and not self.record["summary"]["has_failures"]

    @property
    def is_counted(self) -> bool:
        """Whether the run was counted when all its batches were complete, so that counting again changes nothing."""
        return self.record is not None and self.record["summary"]["batches"]["failed"] == 0


def find_incomplete(stack: Stack, quarter: str, run: str | None) -> IncompleteRun:
    """The incomplete batches of `run`, or of the quarter's newest run, by the same rule as the state machine's.

    Raises:
        ContractError: when `run` is not a run id, or the batch manifest is broken.
        NotFoundError: when there is no such run.
    """
    run = check_run(run) if run else newest_run(stack, quarter)
    ref = RunRef(quarter, run)
    lines = batch_lines(stack, quarter, run)
    records = runs.RecordReader(stack).read(ref)
    parts = stack.bucket.keys(ref.parts_prefix)
    incomplete = {line.batch_id: _why(line, ref, records.get(line.batch_id), parts) for line in lines}
    incomplete = {batch: reason for batch, reason in incomplete.items() if reason}
    firms = sum(len(line.firm_ids) for line in lines if line.batch_id in incomplete)
    return IncompleteRun(run, len(lines), incomplete, firms, runs.record_of(stack, ref))


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
        raise NotFoundError(f"{quarter} has no run: start one with `{stack.command} run-quarter {quarter}`")
    return known[0]


def batch_lines(stack: Stack, quarter: str, run: str | None) -> list[BatchLine]:
    """The batches in the manifest of a run, or of the newest one.

    Raises:
        NotFoundError: when there is no such run.
    """
    ref = RunRef(quarter, run or newest_run(stack, quarter))
    if not stack.bucket.describe(ref.manifest_key):
        raise runs.no_such_run(stack, ref)
    return read_batch_manifest(stack.bucket, ref)


def _why(line: BatchLine, run: RunRef, record: BatchProgress | None, parts: Mapping[str, str]) -> str:
    return why_incomplete(line, run, record, parts) if record else "it has left no result"
