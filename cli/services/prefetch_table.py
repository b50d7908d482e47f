"""A prefetch made from tables of transcripts: CSV, JSON lines or Parquet files with a column of texts.

Files are read and chunks are written a few thousand rows at a time, so that a table may be larger than the memory.
"""

# pyright: basic
# pyarrow and sentencex ship no types; what leaves this module is typed.

import gzip
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from cli.errors import UsageError
from cli.services import prefetch
from contract import ContractError
from contract.prefetch import SENTENCE_COLUMNS, check_firm_id, match_columns
from contract.quarter import read_quarter

_FIRMS_PER_CHUNK = 200
_ROWS_AT_ONCE = 1_000
"""Rows that are read at once. A row may be a whole transcript of 100 KB."""
_ROWS_IN_MEMORY = 100_000
"""Sentences that are buffered before they are written."""
_CSV_BLOCK = 8 << 20
"""Bytes of a CSV file that are read at once: a single row must fit."""
_WORD = re.compile(r"[^\W\d_]+")
_SENTENCE_ROWS = ("sentence_id", "position")
"""With one of these columns, a row is a sentence; without both, its text is split."""


@dataclass(frozen=True)
class Made:
    prefetch: prefetch.Prefetch
    """What was written, checked with the reader of the Batch job."""
    other_quarters: int
    """Rows left out, since their column `quarter` names another one."""


def make(quarter: str, files: Sequence[Path], columns: Mapping[str, str], language: str, folder: Path) -> Made:
    """Write a prefetch of `quarter` into an empty or new folder, which is removed if that fails.

    Rows need the columns firm_id and raw_text. The contract's other columns are copied if the files have them, and
    filled in otherwise.

    Args:
        files: tables, or folders of Parquet files such as Spark writes.
        columns: the contract's column -> the files' column.
        language: ISO 639 code of the texts, for the rules that split them.

    Raises:
        UsageError: when a file cannot be read or lacks a column, a firm id is not valid, or nothing is left.
        CliError: when the reader of the Batch job refuses what was made.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is not an empty folder: name another one with --out")
    tables = [_Table(path) for path in _expand(files)]
    found = _mapping(list(dict.fromkeys(name for table in tables for name in table.names)), columns)
    split = not any(name in found for name in _SENTENCE_ROWS)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        other_quarters = 0
        with _Chunks(folder) as chunks:
            for batch in (batch for table in tables for batch in table.read(found)):
                kept = _of_quarter(batch, quarter)
                other_quarters += batch.num_rows - kept.num_rows
                chunks.add(_fill(_split(kept, language) if split else kept, quarter, chunks.sentences))
        if not chunks.firm_to_chunk:
            raise UsageError(f"no row with a text of {quarter} is in {', '.join(map(str, files))}")
        chunks.write_manifest(quarter)
        return Made(prefetch.load(quarter, folder), other_quarters)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


@dataclass(frozen=True)
class _Source:
    """A file, and the columns that the names of its folders give: `quarter=2023Q1`."""

    path: Path
    partitions: Mapping[str, str]


def _expand(files: Sequence[Path]) -> list[_Source]:
    sources: list[_Source] = []
    for path in files:
        if not path.is_dir():
            sources.append(_Source(path, {}))
            continue
        inner = [each.relative_to(path) for each in sorted(path.rglob("*.parquet"))]
        inner = [each for each in inner if not any(part.startswith(("_", ".")) for part in each.parts)]
        if not inner:
            raise UsageError(f"the folder {path} holds no Parquet file")
        for each in inner:
            pairs = (part.partition("=") for part in each.parts[:-1])
            sources.append(_Source(path / each, {name: unquote(value) for name, _, value in pairs if value}))
    return sources


class _Table:
    """One file, whose rows are read in batches of text columns."""

    def __init__(self, source: _Source) -> None:
        self._path = source.path
        self._partitions = source.partitions
        name = source.path.name.lower().removesuffix(".gz")
        if name.endswith(".csv"):
            self._batches = self._csv
        elif name.endswith((".jsonl", ".ndjson", ".json")):
            self._batches = self._json
        elif name.endswith((".parquet", ".pq")):
            self._batches = self._parquet
        else:
            raise UsageError(f"{source.path} is neither .csv, .jsonl nor .parquet")
        first = next(self._read(None), None)
        self.names = [*(() if first is None else first.schema.names), *self._partitions]

    def read(self, columns: Mapping[str, str]) -> Iterator[Any]:
        """Tables of the contract's columns as text.

        Args:
            columns: the contract's column -> the file's column.
        """
        import pyarrow as pa

        theirs = [name for name in columns.values() if name in self.names and name not in self._partitions]
        for batch in self._read(list(dict.fromkeys(theirs))):
            arrays = {}
            for name, column in columns.items():
                if column in self._partitions:
                    arrays[name] = pa.array([self._partitions[column]] * batch.num_rows, pa.string())
                elif column in batch.schema.names:
                    arrays[name] = self._as_text(column, batch[column])
            yield pa.table(arrays)

    def _read(self, columns: list[str] | None) -> Iterator[Any]:
        import pyarrow as pa

        try:
            yield from self._batches(columns)
        except FileNotFoundError as error:
            raise UsageError(f"{self._path} does not exist") from error
        except (pa.ArrowException, OSError, EOFError, UnicodeDecodeError) as error:
            raise UsageError(f"{self._path} cannot be read: {str(error).strip().splitlines()[0]}") from error

    def _csv(self, columns: list[str] | None) -> Iterator[Any]:
        import pyarrow as pa
        import pyarrow.csv as pacsv

        parse, read = pacsv.ParseOptions(newlines_in_values=True), pacsv.ReadOptions(block_size=_CSV_BLOCK)
        with pacsv.open_csv(self._path, read_options=read, parse_options=parse) as reader:
            names = reader.schema.names
        # As text: a firm id 0005 stays one. The worker's reader reads numbers and dates from text.
        convert = pacsv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False, include_columns=columns or None
        )
        with pacsv.open_csv(self._path, read_options=read, parse_options=parse, convert_options=convert) as reader:
            yield from reader

    def _json(self, _columns: list[str] | None) -> Iterator[Any]:
        import pyarrow as pa

        opened = gzip.open if self._path.name.lower().endswith(".gz") else open
        with opened(self._path, "rt", encoding="utf-8-sig") as lines:
            numbered = enumerate(lines, 1)
            while group := list(islice(numbered, _ROWS_AT_ONCE)):
                records = [self._record(number, line) for number, line in group if line.strip()]
                names = dict.fromkeys(name for record in records for name in record)
                texts = {name: [_text(record.get(name)) for record in records] for name in names}
                yield pa.RecordBatch.from_pydict({name: pa.array(texts[name], pa.string()) for name in names})

    def _record(self, number: int, line: str) -> dict[str, Any]:
        try:
            record = json.loads(line)
        except ValueError as error:
            raise UsageError(f"{self._path} cannot be read: line {number} is not JSON: {error}") from error
        if not isinstance(record, dict):
            raise UsageError(f"{self._path} cannot be read: line {number} is not a JSON object")
        return record

    def _parquet(self, columns: list[str] | None) -> Iterator[Any]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        with pq.ParquetFile(self._path) as file:
            yield pa.RecordBatch.from_pylist([], file.schema_arrow)  # its names, also when there is no row
            yield from file.iter_batches(_ROWS_AT_ONCE, columns=columns)

    def _as_text(self, name: str, column: Any) -> Any:
        import pyarrow as pa

        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if pa.types.is_nested(column.type):
            raise UsageError(f"{self._path}: the column {name} is of type {column.type}, not text")
        if pa.types.is_floating(column.type) or pa.types.is_decimal(column.type):
            return pa.array([_text(value) for value in column.to_pylist()], pa.string())
        return column.cast(pa.string())


def _mapping(names: Sequence[str], columns: Mapping[str, str]) -> dict[str, str]:
    """The contract's columns that the files have -> the files' columns."""
    for ours, theirs in columns.items():
        if ours not in SENTENCE_COLUMNS:
            raise UsageError(f"{ours!r} is not a column of a prefetch; those are {', '.join(SENTENCE_COLUMNS)}")
        if theirs not in names:
            raise UsageError(f"the files have no column {theirs!r}; they have {', '.join(names)}")
    found = {**match_columns(names), **columns}
    for needed in ("firm_id", "raw_text"):
        if needed not in found:
            raise UsageError(
                f"the files have no column {needed!r}: map one of {', '.join(names)} with --map {needed}=COLUMN"
            )
    return found


def _text(value: Any) -> str | None:
    """A value as text: a whole number without a decimal point; NaN is missing."""
    if value is None or value != value:
        return None
    if isinstance(value, float | Decimal) and value == int(value):
        return str(int(value))
    return value if isinstance(value, str) else str(value)


def _of_quarter(table: Any, quarter: str) -> Any:
    if "quarter" not in table.column_names:
        return table
    import pyarrow as pa

    written = table["quarter"].unique().to_pylist()
    wanted = pa.array([text for text in written if text and read_quarter(text) == quarter], pa.string())
    return table.filter(_compute().is_in(table["quarter"], wanted))


def _split(table: Any, language: str) -> Any:
    import pyarrow as pa
    from sentencex import segment  # pyright: ignore[reportAttributeAccessIssue] - compiled

    rows: list[int] = []
    texts: list[str] = []
    for row, text in enumerate(table["raw_text"].to_pylist()):
        for paragraph in (text or "").splitlines():
            for sentence in segment(language, paragraph):
                if sentence.strip():
                    rows.append(row)
                    texts.append(sentence.strip())
    return (
        table.drop_columns("raw_text")
        .take(pa.array(rows, pa.int64()))
        .append_column("raw_text", pa.array(texts, pa.string()))
    )


def _fill(table: Any, quarter: str, sentences: dict[str, int]) -> Any:
    """The table with all of the contract's columns.

    Args:
        sentences: how many sentences of each firm came before; updated by this function.
    """
    import pyarrow as pa

    firms = [_firm_id(firm) for firm in table["firm_id"].to_pylist()]
    numbers: list[int] = []
    for firm in firms:
        numbers.append(sentences.get(firm, 0))
        sentences[firm] = numbers[-1] + 1
    filled: dict[str, Any] = {
        "firm_id": firms,
        "firm_name": firms,
        "transcript_id": [f"{firm}-{quarter}" for firm in firms],
        "sentence_id": [f"{firm}_{quarter}_{number:04d}" for firm, number in zip(firms, numbers, strict=True)],
        "cleaned_text": [" ".join(_WORD.findall((text or "").lower())) for text in table["raw_text"].to_pylist()],
        "position": numbers,
        "quarter": [quarter] * len(firms),
    }
    present = {name: table[name] for name in table.column_names if name != "firm_id"}
    if "position" in present:
        present["position"] = _positions(present["position"])
    arrays = {name: present.get(name, filled.get(name, [None] * len(firms))) for name in SENTENCE_COLUMNS}
    return pa.table(arrays, _schema())


def _positions(column: Any) -> Any:
    """Text as whole numbers: also 7.0, as programs write a column with missing values."""
    import pyarrow as pa

    try:
        present = _compute().if_else(_compute().equal(column, ""), None, column)
        return present.cast(pa.float64()).cast(pa.int32())
    except pa.ArrowInvalid as error:
        raise UsageError(f"the column position is not of whole numbers: {error}") from error


def _schema() -> Any:
    """All text: the reader of the Batch job converts it."""
    import pyarrow as pa

    return pa.schema([(name, pa.int32() if name == "position" else pa.string()) for name in SENTENCE_COLUMNS])


def _firm_id(value: str | None) -> str:
    try:
        return check_firm_id((value or "").strip())
    except ContractError as error:
        raise UsageError(str(error)) from error


class _Chunks:
    """Writes the chunks as rows arrive. A firm belongs to the chunk that was open when its first row arrived."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.firm_to_chunk: dict[str, str] = {}
        self.sentences: dict[str, int] = {}
        """Sentences of each firm so far."""
        self._waiting: dict[str, list[Any]] = {}
        self._rows_waiting = 0
        self._writers: dict[str, Any] = {}
        self._open = ExitStack()

    def __enter__(self) -> "_Chunks":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        with self._open:
            if kind is None:
                self._write()

    def add(self, table: Any) -> None:
        """Buffer rows, and write the buffer when it is full."""
        import pyarrow as pa

        chunks = pa.array([self._chunk_of(firm) for firm in table["firm_id"].to_pylist()], pa.string())
        for chunk in chunks.unique().to_pylist():
            self._waiting.setdefault(chunk, []).append(table.filter(_compute().equal(chunks, chunk)))
        self._rows_waiting += table.num_rows
        if self._rows_waiting >= _ROWS_IN_MEMORY:
            self._write()

    def write_manifest(self, quarter: str) -> None:
        sizes = Counter(self.firm_to_chunk.values())
        manifest = {
            "quarter": quarter,
            "created_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "n_firms": len(self.firm_to_chunk),
            "n_chunks": len(sizes),
            "chunk_sizes": dict(sizes),
            "firm_to_chunk": self.firm_to_chunk,
        }
        (self._folder / "manifest.json").write_text(json.dumps(manifest, indent=1))

    def _chunk_of(self, firm: str) -> str:
        number = len(self.firm_to_chunk) // _FIRMS_PER_CHUNK
        return self.firm_to_chunk.setdefault(firm, f"chunk_{number:04d}.parquet")

    def _write(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        for chunk, tables in self._waiting.items():
            if chunk not in self._writers:
                writer = pq.ParquetWriter(self._folder / chunk, _schema(), compression="zstd")
                self._writers[chunk] = self._open.enter_context(writer)
            self._writers[chunk].write_table(pa.concat_tables(tables))
        self._waiting.clear()
        self._rows_waiting = 0


def _compute() -> Any:
    """pyarrow.compute, whose functions are created at run time, where the type checker does not see them."""
    import pyarrow.compute

    return pyarrow.compute
