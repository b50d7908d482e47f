"""A prefetch made from tables of transcripts: CSV, JSON lines or Parquet files with a column of texts."""

# pyright: basic
# pyarrow and sentencex ship no types; what leaves this module is typed.

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cli.errors import UsageError
from contract import ContractError
from contract.prefetch import SENTENCE_COLUMNS, check_firm_id

_FIRMS_PER_CHUNK = 200
_WORD = re.compile(r"[^\W\d_]+")
_SENTENCE_ROWS = ("sentence_id", "position")
"""With one of these columns, a row is a sentence; without both, its text is split."""


@dataclass(frozen=True)
class Made:
    firms: int
    sentences: int
    split: bool
    """Whether the texts were split into sentences."""
    other_quarters: int
    """Rows left out, since their column `quarter` names another one."""


def make(quarter: str, files: Sequence[Path], columns: Mapping[str, str], language: str, folder: Path) -> Made:
    """Write a prefetch of `quarter` into an empty or new folder.

    Rows need the columns firm_id and raw_text. Other columns of the contract are taken over where there are such
    columns, and filled in otherwise.

    Args:
        columns: the contract's column -> the files' column.
        language: ISO 639 code of the texts, for the rules that split them.

    Raises:
        UsageError: when a file cannot be read or lacks a column, a firm id is not valid, or nothing is left.
    """
    import pyarrow as pa

    _check_folder(folder)
    table = _select(pa.concat_tables([_read(path) for path in files], promote_options="permissive"), columns)
    table, other_quarters = _of_quarter(table, quarter)
    split = not any(name in table.column_names for name in _SENTENCE_ROWS)
    if split:
        table = _split(table, language)
    if not len(table):
        raise UsageError(f"no row with a text of {quarter} is in {', '.join(map(str, files))}")
    table = _fill(table, quarter)
    firms = _write(table, quarter, folder)
    return Made(firms, len(table), split, other_quarters)


def _check_folder(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is not an empty folder: name another one with --out")


def _read(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.csv as pacsv
    import pyarrow.json as pajson
    import pyarrow.parquet as pq

    name = path.name.lower().removesuffix(".gz")
    try:
        if name.endswith(".csv"):
            parse = pacsv.ParseOptions(newlines_in_values=True)
            with pacsv.open_csv(path, parse_options=parse) as reader:
                names = reader.schema.names
            # As text: a firm id 0005 stays one. The worker's reader reads numbers and dates from text.
            convert = pacsv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False)
            return pacsv.read_csv(path, parse_options=parse, convert_options=convert)
        if name.endswith((".jsonl", ".ndjson", ".json")):
            return pajson.read_json(path)
        if name.endswith((".parquet", ".pq")):
            return pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{path} cannot be read: {str(error).strip().splitlines()[0]}") from error
    raise UsageError(f"{path} is neither .csv, .jsonl nor .parquet")


def _select(table: Any, columns: Mapping[str, str]) -> Any:
    """The contract's columns, under the contract's names."""
    for ours, theirs in columns.items():
        if ours not in SENTENCE_COLUMNS:
            raise UsageError(f"{ours!r} is not a column of a prefetch; those are {', '.join(SENTENCE_COLUMNS)}")
        if theirs not in table.column_names:
            raise UsageError(f"the files have no column {theirs!r}; they have {', '.join(table.column_names)}")
    found = {ours: columns.get(ours, ours) for ours in SENTENCE_COLUMNS}
    found = {ours: theirs for ours, theirs in found.items() if theirs in table.column_names}
    for needed in ("firm_id", "raw_text"):
        if needed not in found:
            raise UsageError(
                f"the files have no column {needed!r}: map one of {', '.join(table.column_names)} "
                f"with --map {needed}=COLUMN"
            )
    return table.select(list(found.values())).rename_columns(list(found))


def _of_quarter(table: Any, quarter: str) -> tuple[Any, int]:
    if "quarter" not in table.column_names:
        return table, 0
    kept = table.filter([value == quarter for value in table["quarter"].to_pylist()])
    return kept, len(table) - len(kept)


def _split(table: Any, language: str) -> Any:
    import pyarrow as pa
    from sentencex import segment  # pyright: ignore[reportAttributeAccessIssue] - compiled

    rows: list[int] = []
    texts: list[str] = []
    for row, text in enumerate(table["raw_text"].to_pylist()):
        for paragraph in str(text or "").splitlines():
            for sentence in segment(language, paragraph):
                if sentence.strip():
                    rows.append(row)
                    texts.append(sentence.strip())
    return (
        table.drop_columns("raw_text")
        .take(pa.array(rows, pa.int64()))
        .append_column("raw_text", pa.array(texts, pa.string()))
    )


def _fill(table: Any, quarter: str) -> Any:
    """The table with all of the contract's columns."""
    import pyarrow as pa

    firms = [_firm_id(firm) for firm in table["firm_id"].to_pylist()]
    positions: dict[str, int] = {}
    numbers: list[int] = []
    for firm in firms:
        numbers.append(positions.get(firm, 0))
        positions[firm] = numbers[-1] + 1
    filled: dict[str, Any] = {
        "firm_id": firms,
        "firm_name": firms,
        "transcript_id": [f"{firm}-{quarter}" for firm in firms],
        "sentence_id": [f"{firm}_{quarter}_{number:04d}" for firm, number in zip(firms, numbers, strict=True)],
        "cleaned_text": [" ".join(_WORD.findall(str(text or "").lower())) for text in table["raw_text"].to_pylist()],
        "position": numbers,
        "quarter": [quarter] * len(firms),
    }
    present = {name: table[name] for name in table.column_names if name != "firm_id"}
    arrays = {
        name: present.get(name, filled.get(name, pa.nulls(len(firms), pa.type_for_alias(kind))))
        for name, kind in SENTENCE_COLUMNS.items()
    }
    return pa.table(arrays)


def _firm_id(value: Any) -> str:
    try:
        return check_firm_id(str(value).strip() if value is not None else "")
    except ContractError as error:
        raise UsageError(str(error)) from error


def _write(table: Any, quarter: str, folder: Path) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows: dict[str, list[int]] = {}
    for row, firm in enumerate(table["firm_id"].to_pylist()):
        rows.setdefault(firm, []).append(row)
    firms = sorted(rows)
    folder.mkdir(parents=True, exist_ok=True)
    firm_to_chunk: dict[str, str] = {}
    chunk_sizes: dict[str, int] = {}
    for start in range(0, len(firms), _FIRMS_PER_CHUNK):
        members = firms[start : start + _FIRMS_PER_CHUNK]
        chunk = f"chunk_{len(chunk_sizes):04d}.parquet"
        kept = pa.array([row for firm in members for row in rows[firm]], pa.int64())
        pq.write_table(table.take(kept), folder / chunk, compression="zstd")
        firm_to_chunk |= dict.fromkeys(members, chunk)
        chunk_sizes[chunk] = len(members)
    manifest = {
        "quarter": quarter,
        "created_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "n_firms": len(firms),
        "n_chunks": len(chunk_sizes),
        "chunk_sizes": chunk_sizes,
        "firm_to_chunk": firm_to_chunk,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1))
    return len(firms)
