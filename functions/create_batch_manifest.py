"""Cuts a quarter's firms into batches: one line a batch in the bucket, and the batches' ids for the Map.

A run that is resumed keeps its batch manifest; only the batches that are not complete are handed on.
"""

# boto3-stubs overloads boto3.client with every service, and only the installed ones are known.
# pyright: reportUnknownMemberType=false

import gzip
import math
from collections.abc import Iterator
from datetime import datetime, timedelta
from io import BytesIO

import boto3
from botocore.exceptions import ClientError

from contract import ContractError
from contract.batch import BatchLine
from contract.layout import batch_id, chunk_key, manifest_key, prefetch_manifest_key, prefetch_prefix, run_id
from contract.prefetch import PrefetchManifest, parse_prefetch_manifest
from contract.run import DEFAULT_BATCH_SIZE, MAX_BATCHES, MAX_FIRMS, BatchManifest, ManifestRequest
from functions.results import S3_CONFIG, list_keys, read_results

s3 = boto3.client("s3", config=S3_CONFIG)

# Room for MAX_FIRMS firms with the longest ids; a larger manifest, or one that a small gzip unfolds to, is not read.
_MAX_MANIFEST_BYTES = 32 * 2**20


def handler(event: ManifestRequest, _context: object) -> BatchManifest:
    """Write the run's batch manifest, or find what is left of the run to resume.

    Raises:
        ContractError: when the prefetch cannot be processed, or the run to resume does not exist. The sentence becomes
            the cause of the failed run; nothing has been written.
    """
    quarter, bucket = event["input"]["quarter"], event["input"]["bucket"]
    if run := event["input"].get("resume"):
        return resume(bucket, quarter, run)

    prefetch = read_prefetch(bucket, quarter)
    firms = len(prefetch.firm_to_chunk)
    wanted = event["input"].get("batch_size", DEFAULT_BATCH_SIZE)
    size = fit_batch_size(firms, wanted)
    batches = list(cut(prefetch, size))
    run = write(bucket, quarter, batches, datetime.fromisoformat(event["started_at"]), event["execution"])

    manifest = BatchManifest(
        run=run,
        manifest_key=manifest_key(quarter, run),
        firms=firms,
        batch_size=size,
        batch_ids=[batch.batch_id for batch in batches],
    )
    if size != wanted:
        manifest["note"] = (
            f"{firms} firms in batches of {wanted} would be {math.ceil(firms / wanted)} batches, more than the "
            f"{MAX_BATCHES} that one run can hold: they are processed in batches of {size}."
        )
    return manifest


def resume(bucket: str, quarter: str, run: str) -> BatchManifest:
    """The batches of `run` that are not complete; none when only its summary is to be made again."""
    results = read_results(s3, bucket, quarter, run)
    left = [result for result in results if result.problem]
    return BatchManifest(
        run=run,
        manifest_key=manifest_key(quarter, run),
        firms=sum(result.firms["total"] for result in left),
        batch_size=max(result.firms["total"] for result in results),
        batch_ids=[result.batch_id for result in left],
    )


def read_prefetch(bucket: str, quarter: str) -> PrefetchManifest:
    """The quarter's prefetch manifest, once all chunks that it names are known to be there."""
    key = prefetch_manifest_key(quarter)
    url = f"s3://{bucket}/{key}"
    try:
        body = s3.get_object(Bucket=bucket, Key=key)["Body"].read(_MAX_MANIFEST_BYTES + 1)
    except s3.exceptions.NoSuchKey as error:
        raise ContractError(f"{quarter} has no prefetch: {url} does not exist") from error
    if body.startswith(b"\x1f\x8b"):
        body = _unzip(body)
    if len(body) > _MAX_MANIFEST_BYTES:
        raise ContractError(f"{url} is larger than {_MAX_MANIFEST_BYTES >> 20} MiB: {_too_many()}")

    prefetch = parse_prefetch_manifest(body, quarter)
    if len(prefetch.firm_to_chunk) > MAX_FIRMS:
        raise ContractError(f"the prefetch of {quarter} names {len(prefetch.firm_to_chunk)} firms: {_too_many()}")
    present = list_keys(s3, bucket, prefetch_prefix(quarter))
    for chunk in dict.fromkeys(prefetch.firm_to_chunk.values()):
        if chunk_key(quarter, chunk) not in present:
            raise ContractError(
                f"the prefetch manifest of {quarter} names the chunk {chunk!r:.80}, which is not beside it in "
                f"s3://{bucket}/{prefetch_prefix(quarter)}: upload the prefetch again"
            )
    return prefetch


def fit_batch_size(firms: int, wanted: int) -> int:
    """The batch size that was asked for, or the smallest that keeps the run within the state machine's bounds."""
    return max(wanted, math.ceil(firms / MAX_BATCHES))


def cut(prefetch: PrefetchManifest, size: int) -> Iterator[BatchLine]:
    """The batches, firms of one chunk together, so that a worker reads few chunks."""
    firms = sorted(prefetch.firm_to_chunk, key=prefetch.firm_to_chunk.__getitem__)
    for number, start in enumerate(range(0, len(firms), size)):
        yield BatchLine(batch_id(prefetch.quarter, number), prefetch.quarter, firms[start : start + size])


def write(bucket: str, quarter: str, batches: list[BatchLine], started_at: datetime, execution: str) -> str:
    """Write the batch manifest under a run id of its own, and return that.

    The run is named after the second in which the execution started. When another execution has that second already,
    the next free one is taken; a retry finds the manifest that it wrote before.
    """
    body = "".join(f"{batch.to_json()}\n" for batch in batches).encode()
    while True:
        run = run_id(started_at)
        key = manifest_key(quarter, run)
        try:
            s3.put_object(
                Bucket=bucket,
                Key=key,
                Body=body,
                ContentType="application/jsonl",
                Metadata={"execution": execution},
                IfNoneMatch="*",
            )
            return run
        except ClientError as error:
            # 409: two writers at the same moment; by the next look one of them has won.
            if error.response.get("Error", {}).get("Code") not in ("PreconditionFailed", "ConditionalRequestConflict"):
                raise
        if _written_by(bucket, key) == execution:
            return run
        started_at += timedelta(seconds=1)


def _unzip(body: bytes) -> bytes:
    try:
        return gzip.GzipFile(fileobj=BytesIO(body)).read(_MAX_MANIFEST_BYTES + 1)
    except (OSError, EOFError) as error:
        raise ContractError(f"the prefetch manifest is not whole gzip: {error}") from error


def _too_many() -> str:
    return f"one run takes at most {MAX_FIRMS} firms"


def _written_by(bucket: str, key: str) -> str:
    return s3.head_object(Bucket=bucket, Key=key)["Metadata"].get("execution", "")
