"""A quarter's prefetch: checked whole before a byte of it is uploaded, and read back from the bucket."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.errors import NotFoundError, UsageError
from cli.services import parquet
from cli.services.runs import keys_under
from cli.stack import Stack
from contract import ContractError, layout
from contract.prefetch import PrefetchManifest, parse_prefetch_manifest


@dataclass(frozen=True)
class Prefetch:
    """A prefetch on this machine that was found to be whole."""

    folder: Path
    manifest: PrefetchManifest
    sentences: int
    size: int
    """Bytes, the manifest's included."""


def load(quarter: str, folder: Path) -> Prefetch:
    """Check the prefetch of `quarter` in `folder`, which holds it or is a parent of `prefetch/`.

    Raises:
        UsageError: when a part of it is missing, unreadable or contradicts the manifest, with file and reason.
    """
    folder = _find(quarter, folder)
    manifest_path = folder / "manifest.json"
    manifest = _parse(manifest_path.read_bytes(), quarter, str(manifest_path))
    # Only the manifest's chunks count: whatever else lies in the folder stays there.
    chunks = [_check_chunk(folder / chunk, manifest) for chunk in manifest.chunk_sizes]
    if repeated := parquet.repeated_ids(chunks):
        raise UsageError(f"{folder}: {len(repeated)} sentence ids appear twice, the first is {repeated[0]}")
    paths = [manifest_path, *(folder / chunk for chunk in manifest.chunk_sizes)]
    return Prefetch(
        folder, manifest, sum(chunk.sentences for chunk in chunks), sum(path.stat().st_size for path in paths)
    )


def upload(stack: Stack, prefetch: Prefetch, on_chunk: Callable[[str], None] = lambda _: None) -> None:
    """Put a checked prefetch into the bucket: the chunks first and the manifest last.

    An older manifest is taken away before the first chunk replaces one of its own, so that at no moment a reader finds
    a manifest whose chunks are not all there and all its own.
    """
    bucket, quarter = stack.output("bucket"), prefetch.manifest.quarter
    manifest_key = layout.prefetch_manifest_key(quarter)
    stack.s3.delete_object(Bucket=bucket, Key=manifest_key)
    for chunk in prefetch.manifest.chunk_sizes:
        stack.s3.upload_file(str(prefetch.folder / chunk), bucket, layout.chunk_key(quarter, chunk))
        on_chunk(chunk)
    body = (prefetch.folder / "manifest.json").read_bytes()
    encoding: dict[str, Any] = {"ContentEncoding": "gzip"} if body.startswith(b"\x1f\x8b") else {}
    stack.s3.put_object(Bucket=bucket, Key=manifest_key, Body=body, ContentType="application/json", **encoding)


def of_stack(stack: Stack, quarter: str) -> PrefetchManifest:
    """The quarter's manifest in the bucket, each of its chunks known to be there.

    Raises:
        NotFoundError: when the bucket, the manifest or a chunk is not there.
        ContractError: when the manifest is broken.
    """
    bucket, key = stack.output("bucket"), layout.prefetch_manifest_key(quarter)
    try:
        body = stack.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    except stack.s3.exceptions.NoSuchKey as error:
        raise NotFoundError(
            f"{quarter} has no prefetch in {bucket}: bring it with `{stack.command} prefetch put {quarter} DIR`"
        ) from error
    manifest = _parse(body, quarter, f"s3://{bucket}/{key}")
    present = set(keys_under(stack, layout.prefetch_prefix(quarter)))
    missing = [chunk for chunk in manifest.chunk_sizes if layout.chunk_key(quarter, chunk) not in present]
    if missing:
        raise NotFoundError(
            f"the prefetch of {quarter} in {bucket} lacks {len(missing)} of its chunks, the first is {missing[0]}: "
            f"bring it again with `{stack.command} prefetch put {quarter} DIR`"
        )
    return manifest


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


def _check_chunk(path: Path, manifest: PrefetchManifest) -> parquet.Chunk:
    if not path.is_file():
        raise UsageError(f"{path} is missing, though the manifest names it")
    chunk = parquet.read_chunk(path)
    if others := sorted(chunk.quarters - {manifest.quarter}):
        raise UsageError(f"{path} holds sentences of {others[0]}, not only of {manifest.quarter}")
    promised = {firm for firm, name in manifest.firm_to_chunk.items() if name == path.name}
    if absent := sorted(promised - chunk.firms):
        raise UsageError(f"{path} lacks {len(absent)} firms that the manifest puts there, the first is {absent[0]}")
    if extra := sorted(chunk.firms - promised):
        raise UsageError(f"{path} holds {len(extra)} firms that the manifest puts elsewhere, the first is {extra[0]}")
    if manifest.chunk_sizes[path.name] != len(chunk.firms):
        raise UsageError(
            f"{path} holds {len(chunk.firms)} firms, but chunk_sizes says {manifest.chunk_sizes[path.name]}"
        )
    return chunk
