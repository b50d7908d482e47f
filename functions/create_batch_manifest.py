"""Divides a quarter's firms into batches: one line for each batch in the bucket, and the batches' ids for the Map.

A run that is resumed keeps its batch manifest; only the batches that are not complete, or lack names, are returned.
"""

import gzip
import math
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from io import BytesIO

from contract import ContractError, env
from contract.batch import BatchLine, parse_batch_line, why_repair
from contract.bucket import Bucket, ChangedError, read_repair
from contract.layout import RunRef, batch_id, chunk_key, prefetch_manifest_key, prefetch_prefix, run_id
from contract.prefetch import PrefetchManifest, parse_prefetch_manifest
from contract.run import (
    DEFAULT_BATCH_SIZE,
    MAX_BATCHES,
    MAX_FIRMS,
    BatchManifest,
    ManifestRequest,
    Repair,
    fit_batch_size,
    model_conflict,
)
from functions.results import BatchResult, read_results
from functions.storage import open_bucket

# Room for MAX_FIRMS firms with the longest ids; a larger manifest is not read, and a gzip not unpacked beyond it.
_MAX_MANIFEST_BYTES = 32 * 2**20

_JSON_LINES = "application/jsonl"


def handler(event: ManifestRequest, _context: object) -> BatchManifest:
    """Write the run's batch manifest, or find the batches to process of the run to resume.

    Raises:
        ContractError: when the prefetch cannot be processed, or the run to resume does not exist or has another model.
            The sentence becomes the cause of the failed run; nothing has been written.
        S3UnavailableError: when S3 fails; the state machine tries again.
    """
    bucket, run = open_bucket(event["input"]["bucket"]), event["input"].get("resume")
    manifest = resume(event, bucket, RunRef(event["input"]["quarter"], run)) if run else begin(event, bucket)
    # The stack's own number, absent without vLLM, is for executions that were started by hand.
    if concurrency := event["input"].get("llm_concurrency") or os.environ.get(env.LLM_MAX_CONCURRENT):
        manifest["llm_concurrency"] = int(concurrency)
    return manifest


def begin(event: ManifestRequest, bucket: Bucket) -> BatchManifest:
    """Divide the firms of the quarter's prefetch, and write the batch manifest of a new run."""
    quarter = event["input"]["quarter"]
    prefetch = read_prefetch(bucket, quarter)
    firms = len(prefetch.firm_to_chunk)
    wanted = event["input"].get("batch_size", DEFAULT_BATCH_SIZE)
    size = fit_batch_size(firms, wanted)
    batches = list(cut(prefetch, size))
    created = write(bucket, quarter, batches, datetime.fromisoformat(event["started_at"]), event["execution"])

    manifest = BatchManifest(
        run=created.run,
        manifest_key=created.manifest_key,
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


def check_model(bucket: Bucket, run: RunRef, may_change: bool, execution: str) -> None:
    """Check that the run continues with the model that it began with, or record the new one in its batch manifest.

    Raises:
        ContractError: when the stack has another model now, and `may_change` is not set.
    """
    found = bucket.get(run.manifest_key)
    lines = [parse_batch_line(line) for line in found.body.splitlines()] if found else []
    began_with = next((line.model for line in lines), "")
    conflict = model_conflict(run, began_with, _model())
    if not found or not conflict:
        return
    if not may_change:
        raise ContractError(conflict)
    body = _lines([replace(line, model=_model()) for line in lines])
    bucket.put_if(run.manifest_key, body, _JSON_LINES, etag=found.etag, writer=execution)


def resume(event: ManifestRequest, bucket: Bucket, run: RunRef) -> BatchManifest:
    """The batches of `run` that are not complete or, where the run has too few names, lack some; none when only its
    summary has to be made again."""
    check_model(bucket, run, event["input"].get("model_change", False), event["execution"])
    results = read_results(bucket, run).batches
    repair = read_repair(bucket, run)
    left = [result for result in results if result.problem or (repair and _lacks_names(result, repair))]
    return BatchManifest(
        run=run.run,
        manifest_key=run.manifest_key,
        firms=sum(result.firms["total"] for result in left),
        batch_size=max(result.firms["total"] for result in results),
        batch_ids=[result.batch_id for result in left],
    )


def read_prefetch(bucket: Bucket, quarter: str) -> PrefetchManifest:
    """The quarter's prefetch manifest, after checking that all chunks that it names are in the bucket."""
    key = prefetch_manifest_key(quarter)
    try:
        found = bucket.get(key, most=_MAX_MANIFEST_BYTES)
    except ContractError as error:
        raise ContractError(f"{error}: {_too_many()}") from error
    if found is None:
        raise ContractError(f"{quarter} has no prefetch: {bucket.url(key)} does not exist")
    body = found.body
    if body.startswith(b"\x1f\x8b"):
        body = _unzip(body)
    if len(body) > _MAX_MANIFEST_BYTES:
        raise ContractError(f"{bucket.url(key)} is larger than {_MAX_MANIFEST_BYTES >> 20} MiB: {_too_many()}")

    prefetch = parse_prefetch_manifest(body, quarter)
    if len(prefetch.firm_to_chunk) > MAX_FIRMS:
        raise ContractError(f"the prefetch of {quarter} names {len(prefetch.firm_to_chunk)} firms: {_too_many()}")
    present = bucket.keys(prefetch_prefix(quarter))
    for chunk in dict.fromkeys(prefetch.firm_to_chunk.values()):
        if chunk_key(quarter, chunk) not in present:
            raise ContractError(
                f"the prefetch manifest of {quarter} names the chunk {chunk!r:.80}, which is not beside it in "
                f"{bucket.url(prefetch_prefix(quarter))}: upload the prefetch again"
            )
    return prefetch


def cut(prefetch: PrefetchManifest, size: int) -> Iterator[BatchLine]:
    """The batches, with the firms of one chunk together, so that a worker reads few chunks."""
    firms = sorted(prefetch.firm_to_chunk, key=prefetch.firm_to_chunk.__getitem__)
    for number, start in enumerate(range(0, len(firms), size)):
        yield BatchLine(batch_id(prefetch.quarter, number), prefetch.quarter, firms[start : start + size], _model())


def write(bucket: Bucket, quarter: str, batches: list[BatchLine], started_at: datetime, execution: str) -> RunRef:
    """Write the batch manifest of a new run, and return the run.

    The run is named after the second in which the execution started, or after the next one that no other execution
    has taken. A retry of this function finds the manifest that it wrote before.
    """
    body = _lines(batches)
    while True:
        run = RunRef(quarter, run_id(started_at))
        try:
            bucket.put_if(run.manifest_key, body, _JSON_LINES, etag=None, writer=execution)
            return run
        except ChangedError:
            started_at += timedelta(seconds=1)


def _model() -> str:
    """The model with which the stack's jobs name topics."""
    return os.environ.get(env.LLM_MODEL_NAME, "")


def _lines(batches: list[BatchLine]) -> bytes:
    return "".join(f"{batch.to_json()}\n" for batch in batches).encode()


def _lacks_names(result: BatchResult, repair: Repair) -> bool:
    return bool(result.progress and why_repair(result.progress, repair["repeated_names"]))


def _unzip(body: bytes) -> bytes:
    try:
        return gzip.GzipFile(fileobj=BytesIO(body)).read(_MAX_MANIFEST_BYTES + 1)
    except (OSError, EOFError) as error:
        raise ContractError(f"the prefetch manifest is not a complete gzip file: {error}") from error


def _too_many() -> str:
    return f"one run takes at most {MAX_FIRMS} firms"
