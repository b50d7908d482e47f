"""Writes a table row by row as Parquet, CSV or JSON lines. The file appears under its name only when it is complete."""

import csv
import json
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

_ROWS_AT_ONCE = 10_000


class FileWriter:
    """Takes rows of a schema; the kind of file is that of the path's suffix: .parquet, .csv or .jsonl.

    In CSV, lists are JSON, and null is empty. In CSV and JSON lines, dates and times are in ISO 8601.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.rows = 0
        self._path = path
        self._half = path.with_name(f".{path.name}.{os.getpid()}.half")
        self._schema = schema
        self._waiting: list[Mapping[str, Any]] = []
        self._open = ExitStack()

    def __enter__(self) -> "FileWriter":
        self._put = self._start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            with self._open:
                if kind is None:
                    self._flush()
            if kind is None:
                self._half.replace(self._path)
        finally:
            self._half.unlink(missing_ok=True)

    def write(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows, each with all columns of the schema."""
        self._waiting += rows
        if len(self._waiting) >= _ROWS_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        self._put(self._waiting)
        self.rows += len(self._waiting)
        self._waiting = []

    def _start(self) -> Callable[[list[Mapping[str, Any]]], object]:
        if self._path.suffix == ".parquet":
            parquet = self._open.enter_context(pq.ParquetWriter(self._half, self._schema, compression="zstd"))
            return lambda rows: parquet.write_table(pa.Table.from_pylist(rows, self._schema))
        text: Any = self._open.enter_context(self._half.open("w", encoding="utf-8", newline=""))
        names = self._schema.names
        if self._path.suffix == ".csv":
            table = csv.DictWriter(text, names)
            table.writeheader()
            return lambda rows: table.writerows({name: _cell(row[name]) for name in names} for row in rows)
        return lambda rows: text.writelines(f"{_json({name: row[name] for name in names})}\n" for row in rows)


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        return _json(value)
    return value.isoformat() if isinstance(value, date | datetime) else value


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=lambda other: other.isoformat())
