"""A quarter's prefetch: checked completely before it is uploaded, and read back from the bucket."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from cli.errors import NotFoundError, UsageError
from cli.services import parquet, processes
from cli.stack import Stack
from contract import ContractError, layout
from contract.bucket import JSON, PARQUET
from contract.prefetch import PrefetchManifest, parse_prefetch_manifest


@dataclass(frozen=True)
class Prefetch:
    """A valid prefetch on this machine."""

    folder: Path
    manifest: PrefetchManifest
    sentences: int
    notes: list[str]
    """Values that the jobs will read differently than they are written."""
    size: int
    """Bytes, the manifest's included."""


def load(quarter: str, folder: Path) -> Prefetch:
    """Check the prefetch of `quarter` in `folder`, which holds it or is a parent of `prefetch/`.

    Every chunk is read as the jobs will read it, in a process of the worker's.

    Raises:
        CliError: when a part of it is missing, unreadable or contradicts the manifest, with file and reason.
    """
    folder = _find(quarter, folder)
    manifest_path = folder / "manifest.json"
    manifest = _parse(manifest_path.read_bytes(), quarter, str(manifest_path))
    checked = processes.ask("worker.check_prefetch", arguments=[quarter, str(folder)])
    # Only the manifest's chunks are uploaded; other files in the folder are ignored.
    paths = [manifest_path, *(folder / chunk for chunk in manifest.chunk_sizes)]
    size = sum(path.stat().st_size for path in paths)
    return Prefetch(folder, manifest, checked["sentences"], checked["notes"], size)


def upload(stack: Stack, prefetch: Prefetch, on_chunk: Callable[[str], None] = lambda _: None) -> None:
    """Upload a checked prefetch: the chunks first and the manifest last.

    An older manifest is deleted before the first chunk overwrites one of its own, so that no reader ever finds a
    manifest together with chunks of another prefetch. Old chunks that the new manifest does not name are deleted last.
    """
    quarter = prefetch.manifest.quarter
    manifest_key = layout.prefetch_manifest_key(quarter)
    stack.bucket.delete([manifest_key])
    for chunk in prefetch.manifest.chunk_sizes:
        stack.bucket.put(layout.chunk_key(quarter, chunk), (prefetch.folder / chunk).read_bytes(), PARQUET)
        on_chunk(chunk)
    body = (prefetch.folder / "manifest.json").read_bytes()
    encoding: dict[str, Any] = {"ContentEncoding": "gzip"} if body.startswith(b"\x1f\x8b") else {}
    stack.bucket.put(manifest_key, body, JSON, **encoding)
    named = {manifest_key, *(layout.chunk_key(quarter, chunk) for chunk in prefetch.manifest.chunk_sizes)}
    stack.bucket.delete(stack.bucket.keys(layout.prefetch_prefix(quarter)).keys() - named)


def of_stack(stack: Stack, quarter: str) -> PrefetchManifest:
    """The quarter's manifest in the bucket, after a check that all of its chunks exist.

    Raises:
        NotFoundError: when the manifest or a chunk does not exist.
        ContractError: when the manifest is broken.
    """
    bucket, key = stack.output("bucket"), layout.prefetch_manifest_key(quarter)
    found = stack.bucket.get(key)
    if found is None:
        raise NotFoundError(
            f"{quarter} has no prefetch in {bucket}: upload it with `{stack.command} prefetch put {quarter} DIR`"
        )
    manifest = _parse(found.body, quarter, stack.bucket.url(key))
    present = stack.bucket.keys(layout.prefetch_prefix(quarter))
    missing = [chunk for chunk in manifest.chunk_sizes if layout.chunk_key(quarter, chunk) not in present]
    if missing:
        raise NotFoundError(
            f"the prefetch of {quarter} in {bucket} lacks {len(missing)} of its chunks, the first is {missing[0]}: "
            f"upload it again with `{stack.command} prefetch put {quarter} DIR`"
        )
    return manifest


def quarters_of(stack: Stack) -> list[str]:
    """The quarters that have a folder under prefetch/, the newest first."""
    prefix = layout.prefetch_prefix("")[: -len("/")]
    pages = stack.s3.get_paginator("list_objects_v2").paginate(
        Bucket=stack.output("bucket"), Prefix=prefix, Delimiter="/"
    )
    folders = (item.get("Prefix", "") for page in pages for item in page.get("CommonPrefixes", []))
    return sorted((folder.removeprefix(prefix).rstrip("/") for folder in folders), reverse=True)


class InventoryItem(TypedDict):
    """One quarter's prefetch; `ftm prefetch list --json` prints a list of them."""

    quarter: str
    firms: int | None
    """None when the manifest is missing or broken."""
    chunks: int
    bytes: int
    created_at: str
    problem: str
    """Why it cannot be run; empty when it can."""


class ChunkItem(TypedDict):
    name: str
    firms: int
    sentences: int
    bytes: int


class Description(TypedDict):
    """What `ftm prefetch show --json` prints."""

    quarter: str
    bucket: str
    firms: int
    sentences: int
    bytes: int
    created_at: str
    chunks: list[ChunkItem]


def inventory(stack: Stack) -> list[InventoryItem]:
    """The prefetches in the bucket, the newest quarter first."""

    def item(quarter: str) -> InventoryItem:
        return _item(stack, quarter)

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(item, quarters_of(stack)))


def describe(stack: Stack, quarter: str) -> Description:
    """One prefetch with its chunks; sentences are counted from the footers of the Parquet files.

    Raises:
        NotFoundError: when the quarter has no complete prefetch.
    """
    manifest, bucket = of_stack(stack, quarter), stack.output("bucket")

    def chunk_item(name: str) -> ChunkItem:
        key = layout.chunk_key(quarter, name)
        found = stack.bucket.get(key)
        if found is None:
            raise NotFoundError(f"{stack.bucket.url(key)} is missing, although the prefetch manifest names it")
        sentences = parquet.count_rows(found.body, stack.bucket.url(key))
        return {"name": name, "firms": manifest.chunk_sizes[name], "sentences": sentences, "bytes": len(found.body)}

    with ThreadPoolExecutor(8) as pool:
        chunks = list(pool.map(chunk_item, manifest.chunk_sizes))
    return {
        "quarter": quarter,
        "bucket": bucket,
        "firms": len(manifest.firm_to_chunk),
        "sentences": sum(chunk["sentences"] for chunk in chunks),
        "bytes": sum(chunk["bytes"] for chunk in chunks),
        "created_at": manifest.created_at,
        "chunks": chunks,
    }


def _item(stack: Stack, quarter: str) -> InventoryItem:
    pages = stack.s3.get_paginator("list_objects_v2").paginate(
        Bucket=stack.output("bucket"), Prefix=layout.prefetch_prefix(quarter)
    )
    sizes = [item.get("Size", 0) for page in pages for item in page.get("Contents", [])]
    firms: int | None = None
    chunks, created_at, problem = 0, "", ""
    try:
        manifest = of_stack(stack, quarter)
        firms, chunks, created_at = len(manifest.firm_to_chunk), len(manifest.chunk_sizes), manifest.created_at
    except (NotFoundError, ContractError) as error:
        problem = str(error)
    return {
        "quarter": quarter,
        "firms": firms,
        "chunks": chunks,
        "bytes": sum(sizes),
        "created_at": created_at,
        "problem": problem,
    }


def _find(quarter: str, folder: Path) -> Path:
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder")
    for candidate in (folder, folder / layout.prefetch_prefix(quarter)):
        if (candidate / "manifest.json").is_file():
            return candidate
    raise UsageError(
        f"{folder} holds no prefetch of {quarter}: neither manifest.json nor {layout.prefetch_prefix(quarter)}"
    )


def _parse(body: bytes, quarter: str, where: str) -> PrefetchManifest:
    try:
        return parse_prefetch_manifest(body, quarter)
    except ContractError as error:
        raise ContractError(f"{where}: {error}") from error
