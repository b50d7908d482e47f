"""A prefetch in the bucket: sentences in Parquet chunks, and a manifest that maps firms to chunks."""

import gzip
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from contract import ContractError

T = TypeVar("T")

MAX_FIRM_ID = 64
_NOT_IN_ID = frozenset("/\\\"'`")

SENTENCE_COLUMNS = {
    "firm_id": "string",
    "firm_name": "string",
    "permno": "int64",
    "gvkey": "string",
    "transcript_id": "string",
    "earnings_call_date": "date32",
    "sentence_id": "string",
    "raw_text": "string",
    "cleaned_text": "string",
    "speaker_type": "string",
    "position": "int32",
    "quarter": "string",
}
"""A chunk's columns, one row for each sentence, with Arrow's names of their types: `pyarrow.type_for_alias` reads them.
"""


@dataclass(frozen=True)
class PrefetchManifest:
    quarter: str
    created_at: str
    chunk_sizes: dict[str, int]
    """Firms in each chunk, by the chunk's file name."""
    firm_to_chunk: dict[str, str]

    @property
    def firm_ids(self) -> list[str]:
        return list(self.firm_to_chunk)


def match_columns(names: Sequence[str]) -> dict[str, str]:
    """The contract's columns that a table has -> the table's names of them. A name in another case, or with blanks
    around, is found if there is no exact one.

    Raises:
        ContractError: when two of the table's columns are the same one of the contract.
    """
    found: dict[str, str] = {}
    for ours in SENTENCE_COLUMNS:
        exact = [name for name in names if name == ours]
        same = exact or [name for name in names if name.strip("\ufeff ").lower() == ours]
        if len(same) > 1:
            raise ContractError(f"the column {ours} is there twice, as {same[0]!r} and {same[1]!r}: remove one")
        if same:
            found[ours] = same[0]
    return found


def check_firm_id(firm: str) -> str:
    """Return `firm` if it is a valid firm id: 1 to 64 printable characters without slash, backslash, quote, and without
    blanks at its ends.

    Raises:
        ContractError: with a sentence that quotes the start of the id.
    """
    if 1 <= len(firm) <= MAX_FIRM_ID and firm.isprintable() and firm == firm.strip() and not _NOT_IN_ID & set(firm):
        return firm
    shown = repr(firm if len(firm) <= MAX_FIRM_ID else firm[:20] + "...")
    raise ContractError(
        f"{shown} ({len(firm)} characters) cannot be a firm id: it needs 1 to {MAX_FIRM_ID} printable characters, "
        "none of them a slash, backslash or quote, and no blanks at its ends"
    )


def parse_prefetch_manifest(body: bytes, quarter: str) -> PrefetchManifest:
    """Read a prefetch's `manifest.json`, plain or gzip.

    Raises:
        ContractError: when it is not JSON, lacks a field, repeats a firm, belongs to another quarter or contradicts
            itself; the sentence says which.
    """
    record = _parse_json(body)
    if record.get("quarter") != quarter:
        raise ContractError(f"the prefetch manifest is of quarter {record.get('quarter')!r}, not {quarter}")
    chunk_sizes = _mapping(record, "chunk_sizes", int)
    firm_to_chunk = _mapping(record, "firm_to_chunk", str)
    if not firm_to_chunk:
        raise ContractError(f"the prefetch manifest of {quarter} names no firm")
    for firm, chunk in firm_to_chunk.items():
        check_firm_id(firm)
        if "/" in chunk:
            raise ContractError(f"the prefetch manifest puts firm {firm!r} into {chunk!r:.80}, which is not beside it")
        if chunk not in chunk_sizes:
            raise ContractError(f"the prefetch manifest puts firm {firm!r} into {chunk!r}, which chunk_sizes lacks")
    for field, counted in (("n_firms", len(firm_to_chunk)), ("n_chunks", len(chunk_sizes))):
        if record.get(field) != counted:
            raise ContractError(f"the prefetch manifest says {field} = {record.get(field)!r}, but names {counted}")
    return PrefetchManifest(quarter, str(record.get("created_at", "")), chunk_sizes, firm_to_chunk)


def _parse_json(body: bytes) -> dict[str, Any]:
    try:
        if body.startswith(b"\x1f\x8b"):
            body = gzip.decompress(body)
        record = json.loads(body, object_pairs_hook=_no_repeats)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ContractError(f"the prefetch manifest is not JSON (plain or gzip): {error}") from error
    if not isinstance(record, dict):
        raise ContractError("the prefetch manifest is not a JSON object")
    return cast(dict[str, Any], record)


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A repeated key would silently lose a firm."""
    record: dict[str, Any] = {}
    for key, value in pairs:
        if key in record:
            raise ContractError(f"the prefetch manifest names {key!r} twice")
        record[key] = value
    return record


def _mapping(record: dict[str, Any], field: str, kind: type[T]) -> dict[str, T]:
    value = record.get(field)
    if not isinstance(value, dict):
        raise ContractError(f"the prefetch manifest lacks {field!r}")
    mapping = cast(dict[str, Any], value)
    for key, item in mapping.items():
        if not isinstance(item, kind):
            raise ContractError(f"the prefetch manifest's {field}[{key!r}] is {item!r}, not of type {kind.__name__}")
    return mapping
