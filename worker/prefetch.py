"""Reads firms from a quarter's prefetch: only the chunks that contain them are read, and only their rows are kept.

One chunk is in memory at a time, in Arrow's compact form, because a quarter does not fit into a worker's memory.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from contract.bucket import Bucket
from contract.layout import chunk_key, prefetch_manifest_key
from contract.prefetch import PrefetchManifest, parse_prefetch_manifest
from worker import WorkerError, sentences
from worker.firm import Firm, Sentence
from worker.sentences import Sentences
from worker.storage import read

# Arrow creates this function at run time, where the type checker does not see it.
_equal: Any = pc.equal  # pyright: ignore[reportAttributeAccessIssue]


@dataclass(frozen=True)
class Unreadable:
    """A firm whose sentences could not be read, and why."""

    firm_id: str
    reason: str


async def read_firms(bucket: Bucket, quarter: str, firm_ids: Iterable[str]) -> AsyncIterator[Firm | Unreadable]:
    """The firms with their sentences, chunk by chunk; a firm without rows has no sentences.

    Raises:
        WorkerError, ContractError: when there is no prefetch manifest, or it is broken.
        S3UnavailableError: when S3 fails.
    """
    manifest = await asyncio.to_thread(read_manifest, bucket, quarter)
    by_chunk: dict[str, list[str]] = {}
    for firm_id in firm_ids:
        if firm_id in manifest.firm_to_chunk:
            by_chunk.setdefault(manifest.firm_to_chunk[firm_id], []).append(firm_id)
        else:
            yield Unreadable(firm_id, f"the prefetch manifest of {quarter} does not name it")
    for chunk, members in by_chunk.items():
        try:
            found = await asyncio.to_thread(_read, bucket, quarter, chunk, members)
        except WorkerError as error:
            for firm_id in members:
                yield Unreadable(firm_id, str(error))
            continue
        for firm_id in members:
            yield _firm(firm_id, found, chunk)


def read_manifest(bucket: Bucket, quarter: str) -> PrefetchManifest:
    """The quarter's prefetch manifest.

    Raises:
        WorkerError, ContractError: when there is none, or it is broken.
        S3UnavailableError: when S3 fails.
    """
    return parse_prefetch_manifest(read(bucket, prefetch_manifest_key(quarter), "the prefetch manifest"), quarter)


def _read(bucket: Bucket, quarter: str, chunk: str, firm_ids: list[str]) -> Sentences:
    return sentences.read(_download(bucket, quarter, chunk), chunk, firm_ids)


def _download(bucket: Bucket, quarter: str, chunk: str) -> pa.Buffer:
    """A chunk in Arrow's own memory: a Python object that one of Arrow's threads releases last, after Python has ended,
    would abort the process."""
    sink = pa.BufferOutputStream()
    sink.write(read(bucket, chunk_key(quarter, chunk), f"chunk {chunk} of the prefetch"))
    return sink.getvalue()


def _firm(firm_id: str, found: Sentences, chunk: str) -> Firm | Unreadable:
    """A firm from its chunk's rows."""
    for problem in found.unreadable:
        if firm_id in problem.firms:
            return Unreadable(firm_id, f"chunk {chunk} of the prefetch: {problem}")
    rows = found.table.filter(_equal(found.table["firm_id"], firm_id)).to_pylist()
    return Firm(
        firm_id=firm_id,
        firm_name=_first(rows, "firm_name") or firm_id,
        permno=_first(rows, "permno"),
        gvkey=_first(rows, "gvkey"),
        earnings_call_date=_first(rows, "earnings_call_date"),
        sentences=[_sentence(firm_id, row, number) for number, row in enumerate(rows)],
    )


def _first(rows: list[dict[str, Any]], column: str) -> Any:
    """The first value that is not missing."""
    return next((row[column] for row in rows if not _is_missing(row[column])), None)


def _is_missing(value: Any) -> bool:
    return value is None or str(value).strip().lower() in sentences.MISSING


def _sentence(firm_id: str, row: dict[str, Any], number: int) -> Sentence:
    """`number` counts the firm's rows. It makes an id that is missing, since positions may repeat. Without raw_text,
    the words of cleaned_text are shown to the LLM."""
    transcript, position = row["transcript_id"] or "", row["position"]
    raw_text, cleaned_text = row["raw_text"] or "", row["cleaned_text"] or ""
    return Sentence(
        sentence_id=row["sentence_id"] or f"{firm_id}_{transcript}_{number:04d}",
        raw_text=cleaned_text if _is_missing(raw_text) else raw_text,
        cleaned_text=cleaned_text,
        speaker_type=row["speaker_type"] or "",
        transcript_id=transcript,
        position=number if position is None else position,
    )
