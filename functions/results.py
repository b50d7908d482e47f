"""What the workers of a run left in the bucket, held against the run's batch manifest.

Both the summary of a run and its resumption ask the same question, is this batch complete?, and get the same answer.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from botocore.config import Config
from botocore.exceptions import ClientError

from contract import ContractError
from contract.batch import BatchLine, BatchProgress, Counts, parse_batch_line, parse_progress, why_incomplete
from contract.layout import manifest_key, parts_prefix, progress_key
from contract.run import FirmCounts

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_THREADS = 16

S3_CONFIG = Config(max_pool_connections=_THREADS)
"""For the client that `read_results` gets: a connection for each of its threads."""


@dataclass(frozen=True)
class BatchResult:
    """One batch of the manifest, and what its worker says of it."""

    batch_id: str
    firms: FirmCounts
    counts: Counts
    seconds: float
    problem: str
    """Why the batch is not complete, in a sentence; empty when it is."""


def read_results(s3: "S3Client", bucket: str, quarter: str, run: str) -> list[BatchResult]:
    """The results of all batches of a run, in the manifest's order.

    Raises:
        ContractError: when the run has no batch manifest, or a broken one.
    """
    lines = list(_read_manifest(s3, bucket, quarter, run))
    parts = list_keys(s3, bucket, parts_prefix(quarter, run))

    def result(line: BatchLine) -> BatchResult:
        return _judge(line, run, _read_progress(s3, bucket, progress_key(quarter, run, line.batch_id)), parts)

    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(result, lines))


def _read_manifest(s3: "S3Client", bucket: str, quarter: str, run: str) -> Iterator[BatchLine]:
    key = manifest_key(quarter, run)
    try:
        body = s3.get_object(Bucket=bucket, Key=key)["Body"]
    except s3.exceptions.NoSuchKey as error:
        raise ContractError(f"{quarter} has no run {run}: s3://{bucket}/{key} does not exist") from error
    return map(parse_batch_line, body.iter_lines(chunk_size=1 << 20))


def list_keys(s3: "S3Client", bucket: str, prefix: str) -> set[str]:
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return {item.get("Key", "") for page in pages for item in page.get("Contents", [])}


def _read_progress(s3: "S3Client", bucket: str, key: str) -> BatchProgress | str:
    """The progress record at `key`, or why there is none."""
    try:
        return parse_progress(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
    except s3.exceptions.NoSuchKey:
        return "it left no result"
    except ContractError as error:
        return str(error)
    except ClientError as error:
        return f"its result cannot be read: {error}"


def _judge(line: BatchLine, run: str, progress: BatchProgress | str, parts: set[str]) -> BatchResult:
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
    )
