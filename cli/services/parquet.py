"""Parquet files, read with pyarrow, which is imported only when the first one is read."""

# pyright: basic
# pyarrow ships no types; what leaves this module is typed.

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cli.errors import UsageError


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
