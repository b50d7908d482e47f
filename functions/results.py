"""What the workers of a run left in the bucket, compared with the run's batch manifest.

The summary of a run and its resumption decide by the same function whether a batch is complete.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from botocore.exceptions import ClientError

from contract import ContractError
from contract.batch import BatchLine, BatchProgress, Counts, why_incomplete
from contract.bucket import THREADS, Bucket, read_batch_manifest, read_progress
from contract.layout import RunRef
from contract.run import FirmCounts


@dataclass(frozen=True)
class BatchResult:
    """The result of one batch of the manifest."""

    batch_id: str
    firms: FirmCounts
    counts: Counts
    seconds: float
    problem: str
    """Why the batch is not complete, in a sentence; empty when it is."""
    progress: BatchProgress | None = None
    """Its progress record, if there is a valid one."""


@dataclass(frozen=True)
class RunResults:
    """The results of a run."""

    batches: list[BatchResult]
    """In the manifest's order."""
    unlisted_parts: list[str]
    """Keys of parts that no progress record lists: an attempt left them that ended, or was overtaken, before it could
    write its record."""


def read_results(bucket: Bucket, run: RunRef) -> RunResults:
    """Read all progress records of a run, and one listing of its parts.

    The parts are listed first: a part that is in the listing and in no record that was read later will not be listed
    by any record, once the run's batches are complete.

    Raises:
        ContractError: when the run has no batch manifest, or a broken one.
        S3UnavailableError: when S3 fails.
    """
    lines = read_batch_manifest(bucket, run)
    parts = bucket.keys(run.parts_prefix)

    def find(line: BatchLine) -> BatchProgress | str:
        return _read_progress(bucket, run, line.batch_id)

    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(find, lines))
    listed = {key for progress in found if isinstance(progress, BatchProgress) for key in progress.parts}
    return RunResults(
        [_judge(line, run, progress, parts) for line, progress in zip(lines, found, strict=True)],
        sorted(parts.keys() - listed),
    )


def _read_progress(bucket: Bucket, run: RunRef, batch_id: str) -> BatchProgress | str:
    """The progress record of a batch, or why there is none."""
    try:
        return read_progress(bucket, run, batch_id) or "it left no result"
    except ContractError as error:
        return str(error)
    except ClientError as error:
        return f"its result cannot be read: {error}"


def _judge(line: BatchLine, run: RunRef, progress: BatchProgress | str, parts: dict[str, str]) -> BatchResult:
    firms = set(line.firm_ids)
    if isinstance(progress, str):
        nothing = FirmCounts(total=len(firms), completed=0, skipped=0, failed=len(firms))
        return BatchResult(line.batch_id, nothing, Counts(), 0.0, progress)
    completed, skipped = firms & progress.completed.keys(), firms & progress.skipped.keys()
    return BatchResult(
        line.batch_id,
        FirmCounts(
            total=len(firms),
            completed=len(completed),
            skipped=len(skipped),
            failed=len(firms - completed - skipped),
        ),
        progress.counts,
        progress.seconds,
        why_incomplete(line, run, progress, parts),
        progress,
    )
