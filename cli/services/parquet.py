"""Parquet files, read with pyarrow, which is imported only when the first one is read."""

# pyright: basic
# pyarrow ships no types; what leaves this module is typed.

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.errors import UsageError
from contract.prefetch import SENTENCE_COLUMNS

_TEXT_COLUMNS = ("firm_id", "sentence_id", "raw_text", "cleaned_text", "quarter")
_NEVER_NULL = ("firm_id", "sentence_id", "quarter")


@dataclass(frozen=True)
class Chunk:
    """What a prefetch chunk holds."""

    sentences: int
    firms: set[str]
    quarters: set[str]
    ids: Any
    """The sentence ids as an Arrow array: millions of Python strings would not fit in memory."""


def read_chunk(path: Path) -> Chunk:
    """Read a prefetch chunk completely, so that a damaged one is found here and not by a job.

    Raises:
        UsageError: when it is not Parquet, lacks a column, or a column has the wrong type or nulls.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
        lacking = [column for column in SENTENCE_COLUMNS if column not in schema.names]
        if lacking:
            raise UsageError(f"{path} lacks the column {', '.join(lacking)}")
        for column in _TEXT_COLUMNS:
            kind = schema.field(column).type
            if not pa.types.is_string(kind) and not pa.types.is_large_string(kind):
                raise UsageError(f"{path}: the column {column} is {kind}, not string")
        table = pq.ParquetFile(path).read()
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{path} is not a readable Parquet file: {_first_line(error)}") from error
    for column in _NEVER_NULL:
        if table[column].null_count:
            raise UsageError(f"{path}: {table[column].null_count} rows have no {column}")
    return Chunk(
        sentences=table.num_rows,
        firms=set(table["firm_id"].unique().to_pylist()),
        quarters=set(table["quarter"].unique().to_pylist()),
        ids=table["sentence_id"],
    )


def repeated_ids(chunks: Sequence[Chunk]) -> list[str]:
    """The sentence ids that appear more than once in all the chunks together."""
    import pyarrow as pa
    import pyarrow.compute as pc

    ids = pa.chunked_array([part.cast(pa.string()) for chunk in chunks for part in chunk.ids.chunks], pa.string())
    counts = ids.value_counts()
    repeated = pc.greater(counts.field("counts"), 1)  # pyright: ignore[reportAttributeAccessIssue] - made at import
    return counts.filter(repeated).field("values").to_pylist()


def read_rows(body: bytes, columns: Sequence[str], firm: str | None, where: str) -> list[dict[str, Any]]:
    """The rows of a part, of all firms or of one.

    Raises:
        UsageError: when it is not Parquet, or lacks a column; `where` names the file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    filters = [("firm_id", "=", firm)] if firm is not None else None
    try:
        # Copied into Arrow's own memory: if an Arrow thread is the last one to hold a Python object when Python ends,
        # the process aborts.
        sink = pa.BufferOutputStream()
        sink.write(body)
        file = sink.getvalue()
        lacking = [column for column in columns if column not in pq.read_schema(pa.BufferReader(file)).names]
        if lacking:
            raise UsageError(f"{where} lacks the column {', '.join(lacking)}")
        return pq.read_table(pa.BufferReader(file), columns=list(columns), filters=filters).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{where} is not a readable Parquet file: {_first_line(error)}") from error


def count_rows(body: bytes, where: str) -> int:
    """The number of rows, from the file's footer.

    Raises:
        UsageError: when it is not Parquet.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_metadata(pa.BufferReader(body)).num_rows
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{where} is not a readable Parquet file: {_first_line(error)}") from error


def write_rows(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write rows to a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(list(rows)), path)


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
