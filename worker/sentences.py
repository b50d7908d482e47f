"""The one reader of a prefetch chunk: what pandas, polars, duckdb, fastparquet and Spark write becomes the contract's
columns.

The Batch job reads its firms with it, and `ftm prefetch put` checks a prefetch with it, so that what is uploaded can
be read. permno, gvkey and earnings_call_date are optional: the column may be missing, and a cell that cannot be read
becomes null and is counted. A cell of another column that cannot be read makes its firm unreadable. The case of column
names does not matter.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from contract import ContractError
from contract.prefetch import SENTENCE_COLUMNS, match_columns
from contract.quarter import read_quarter
from worker import WorkerError

SCHEMA = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in SENTENCE_COLUMNS.items()])
OPTIONAL = ("permno", "gvkey", "earnings_call_date")
_MAY_LACK = (*OPTIONAL, "quarter")
"""The folder and the manifest name the quarter as well."""
_NUMBERS = ("firm_id", "transcript_id", "sentence_id", "position", "quarter")
"""Columns that may contain whole numbers. Another text column may have a number type only if it has no values: pandas
writes an empty column as NaN."""
_ROWS_AT_ONCE = 16_384

MISSING = frozenset({"", "nan", "nat", "none", "null"})
"""What programs write into a text column for a missing value, in lower case."""
_GVKEY = re.compile(r"(\d{1,6})(?:\.0+)?")
_INTEGER = re.compile(r"([+-]?\d+)(?:\.0*)?")
_TIME_OF_DAY = re.compile(
    r"[T :]\s*\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?\s*(?:[AaPp]\.?[Mm]\.?)?\s*(?:[A-Z]{1,4}|[+-]\d{2}:?\d{2})?$"
)
_WEEKDAY = re.compile(r"^(?:mon|tue|wed|thu|fri|sat|sun)[a-z]*[,. ]\s*", re.IGNORECASE)
_YEAR_FIRST = re.compile(r"(\d{4})([-/.])(\d{1,2})\2(\d{1,2})|(\d{4})(\d{2})(\d{2})")
_YEAR_LAST = re.compile(r"(\d{1,2})([-/.])(\d{1,2})\2(\d{4})")
_NAMED_DATES = ("%d %b %Y", "%d %B %Y", "%b %d %Y", "%B %d %Y", "%Y %b %d", "%Y %B %d", "%b %d %H:%M:%S %Y")
_DATE_FILLERS = re.compile(r"(?<=\d)(?:st|nd|rd|th)\b|\bof\b|(?<=\bsep)t\b", re.IGNORECASE)
_DATE_BREAKS = re.compile(r"[\s,.\-/]+|(?<=\d)(?=[A-Za-z])|(?<=[A-Za-z])(?=\d)")

# Arrow creates these functions at run time, where the type checker does not see them.
_compute: Any = pc


class _BadCellError(ValueError):
    """A cell cannot be read; the text says what it should be."""


@dataclass
class Problem:
    """Cells of one column that cannot be read."""

    column: str
    rules: tuple[str, str]
    """What one of them, and several of them, should be: "a whole number", "whole numbers"."""
    count: int
    value: Any
    """The first of them."""
    row: int
    """Its row in the chunk, counted from 1."""
    firm: str
    sentence: str
    firms: set[str] = field(default_factory=set[str])

    def __str__(self) -> str:
        one, many = self.rules
        wrong = f"1 value is not {one}" if self.count == 1 else f"{self.count:,} values are not {many}"
        where = f"sentence {self.sentence}" if self.sentence else f"row {self.row}"
        return f"{self.column}: {wrong}, first {_shown(self.value)} ({self.firm or 'no firm'}, {where})"

    def merge(self, other: "Problem") -> None:
        """Add the later cells of the same column."""
        self.count += other.count
        self.firms |= other.firms


@dataclass
class Sentences:
    table: pa.Table
    """The rows in the contract's columns and types; a column that the chunk lacks is null."""
    nulled: list[Problem]
    """Optional cells that have become null."""
    unreadable: list[Problem]
    """Cells that make their firms unreadable. They are null in `table`."""
    padded: int
    """Rows whose gvkey was a number, or had fewer than six digits."""
    renamed: list[str]
    """The chunk's names of the columns that differ in case from the contract's."""


def read(source: Any, chunk: str, firm_ids: Sequence[str] | None = None) -> Sentences:
    """Read a chunk.

    Args:
        source: a path, or an Arrow buffer that holds the file.
        chunk: the file's name, for messages.
        firm_ids: keep only the rows of these firms; None keeps all.

    Raises:
        WorkerError: when it is not Parquet, lacks a column, or a column can be read in no row.
    """
    wanted = None if firm_ids is None else pa.array(firm_ids, pa.string())
    found = Sentences(SCHEMA.empty_table(), [], [], 0, [])
    tables: list[pa.Table] = []
    start = 0
    try:
        parquet = pq.ParquetFile(pa.BufferReader(source) if isinstance(source, pa.Buffer) else source)
        columns = _columns(parquet, chunk)
        found.renamed = [theirs for ours, theirs in columns.items() if ours != theirs]
        for rows in parquet.iter_batches(_ROWS_AT_ONCE, columns=list(columns.values())):
            # Without views before rows are chosen: Arrow cannot filter these.
            batch = pa.RecordBatch.from_arrays([_plain(rows[theirs]) for theirs in columns.values()], list(columns))
            numbers = pa.array(range(start + 1, start + batch.num_rows + 1))
            start += batch.num_rows
            if wanted is None:
                tables.append(_convert(batch, numbers, found))
                continue
            kept = _compute.is_in(_read_column("firm_id", batch["firm_id"])[0], wanted)
            tables.append(_convert(batch.filter(kept), numbers.filter(kept), found))
    except (pa.ArrowException, OSError) as error:
        reason = str(error).strip().split("\n", 1)[0].rstrip(".")
        raise WorkerError(f"chunk {chunk} of the prefetch cannot be read as Parquet: {reason}") from error
    found.table = pa.concat_tables(tables) if tables else found.table
    return found


def _columns(parquet: pq.ParquetFile, chunk: str) -> dict[str, str]:
    """The contract's columns that the chunk has -> the chunk's names of them."""
    try:
        columns = match_columns(parquet.schema_arrow.names)
    except ContractError as error:
        raise WorkerError(f"chunk {chunk} of the prefetch: {error}") from error
    if lacking := [name for name in SCHEMA.names if name not in columns and name not in _MAY_LACK]:
        raise WorkerError(f"chunk {chunk} of the prefetch lacks the column {', '.join(lacking)}")
    for ours, theirs in columns.items():
        if ours not in OPTIONAL:
            _check_kind(ours, parquet.schema_arrow.field(theirs).type, chunk)
    return columns


def _check_kind(name: str, kind: pa.DataType, chunk: str) -> None:
    kind = _plain_type(kind)
    number = pa.types.is_integer(kind) or pa.types.is_decimal(kind)
    missing = pa.types.is_null(kind) and name != "firm_id"
    if _is_text(kind) or pa.types.is_floating(kind) or missing or (number and name in _NUMBERS):
        return
    wanted = "whole numbers" if name == "position" else "text"
    raise WorkerError(f"chunk {chunk} of the prefetch: the column {name} is of type {kind}, not {wanted}")


def _convert(batch: pa.RecordBatch, numbers: pa.Array, found: Sentences) -> pa.Table:
    """The batch in the contract's types; problems are added to `found`. `numbers` are its rows' in the chunk."""
    bad: dict[str, list[int]] = {}
    arrays: dict[str, pa.Array] = {}
    for name, kind in zip(SCHEMA.names, SCHEMA.types, strict=True):
        if name not in batch.schema.names:
            arrays[name] = pa.nulls(batch.num_rows, kind)
            continue
        arrays[name], bad[name] = _read_column(name, batch[name])
    if "gvkey" in batch.schema.names:
        found.padded += _padded(batch["gvkey"], arrays["gvkey"])
    for name, rows in bad.items():
        if rows:
            problems = found.nulled if name in OPTIONAL else found.unreadable
            _add(problems, _problem(name, batch[name], rows, arrays, numbers))
    return pa.Table.from_arrays([arrays[name] for name in SCHEMA.names], schema=SCHEMA)


def _read_column(name: str, column: pa.Array) -> tuple[pa.Array, list[int]]:
    """The column in the contract's type, and the rows whose cells cannot be read."""
    if _is_text(column.type) and name in _TEXT:
        return _read_text(column)
    return _read_values(column, SCHEMA.field(name).type, _PARSERS[name])


def _read_text(column: pa.Array) -> tuple[pa.Array, list[int]]:
    """Text as it is; Arrow checks only here that it is UTF-8."""
    raw = column.cast(pa.large_binary())
    try:
        return raw.cast(pa.string()), []
    except pa.ArrowInvalid:
        values, bad = [], []
        for row, value in enumerate(raw.to_pylist()):
            try:
                values.append(None if value is None else value.decode())
            except UnicodeDecodeError:
                values.append(None)
                bad.append(row)
        return pa.array(values, pa.string()), bad


def _read_values(column: pa.Array, kind: pa.DataType, parse: Callable[[Any], Any]) -> tuple[pa.Array, list[int]]:
    """Each different value is parsed once."""
    if pa.types.is_timestamp(column.type):
        column = _days(column)
    if _is_text(column.type):
        column = column.cast(pa.large_binary())  # one cell that is not UTF-8 must not make the others unreadable
    try:
        encoded: Any = column.dictionary_encode()
    except pa.ArrowNotImplementedError:  # nested types
        return pa.nulls(len(column), kind), [row for row, valid in enumerate(column.is_valid().to_pylist()) if valid]
    indices = encoded.indices
    parsed: list[Any] = []
    unreadable: list[int] = []
    for index, value in enumerate(encoded.dictionary):
        try:
            parsed.append(parse(value.as_py()))
        except (_BadCellError, ValueError, OverflowError):  # also what Python cannot represent, such as the year 20000
            parsed.append(None)
            unreadable.append(index)
    rows: list[int] = []
    if unreadable:
        is_bad = _compute.is_in(indices, pa.array(unreadable, indices.type))
        rows = [row for row, bad in enumerate(is_bad.to_pylist()) if bad]
    return pa.array(parsed, kind).take(indices), rows


def _days(column: pa.Array) -> pa.Array:
    """Timestamps as the dates that their own time zone shows."""
    if column.type.tz:
        column = _compute.local_timestamp(column)
    return _compute.cast(column, pa.date32(), safe=False)


def _plain(column: pa.Array) -> pa.Array:
    """The column without dictionary, extension type or views."""
    if isinstance(column, pa.UuidArray):
        return pa.array([value if value is None else str(value) for value in column.to_pylist()], pa.string())
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if pa.types.is_dictionary(column.type):
        column = _plain(column.dictionary_decode())
    if pa.types.is_date64(column.type):
        return column.cast(pa.timestamp("ms"))
    plain = _plain_type(column.type)
    return column if plain == column.type else column.cast(plain)


def _plain_type(kind: pa.DataType) -> pa.DataType:
    if isinstance(kind, pa.UuidType):
        return pa.string()
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_string_view(kind):
        return pa.large_string()
    if pa.types.is_binary_view(kind) or pa.types.is_fixed_size_binary(kind):
        return pa.large_binary()
    return kind


def _is_text(kind: pa.DataType) -> bool:
    return any(
        check(kind)
        for check in (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    )


def _parse_id(value: Any) -> str | None:
    number = _whole(value)
    return None if number is None else str(number)


def _parse_permno(value: Any) -> int | None:
    number = _whole(value)
    if number is not None and not 0 < number < 2**63:
        raise _BadCellError
    return number


def _parse_position(value: Any) -> int | None:
    number = _whole(value)
    if number is not None and not 0 <= number < 2**31:
        raise _BadCellError
    return number


def _parse_gvkey(value: Any) -> str | None:
    number = value if isinstance(value, (str, bytes)) else _whole(value)
    text = _text(number)
    if text is None:
        return None
    found = _GVKEY.fullmatch(text)
    if not found:
        raise _BadCellError
    return found[1].zfill(6)


def _parse_date(value: Any) -> date | None:
    day = value if isinstance(value, date) else _date(value)
    if day is not None and not 1900 <= day.year < 2200:
        raise _BadCellError
    return day


def _date(value: Any) -> date | None:
    """A date in one of the usual notations. 03/04/2021 is rejected: either number can be the month."""
    text = _text(value if isinstance(value, (str, bytes)) else _whole(value))
    if text is None:
        return None
    text = _WEEKDAY.sub("", _TIME_OF_DAY.sub("", text))
    if found := _YEAR_FIRST.fullmatch(text):
        year, month, day = (int(part) for part in found.groups() if part and part.isdigit())
        return date(year, month, day)
    if found := _YEAR_LAST.fullmatch(text):
        first, second, year = int(found[1]), int(found[3]), int(found[4])
        if found[2] == "." or first > 12 or first == second:
            return date(year, second, first)
        if second > 12:
            return date(year, first, second)
        raise _BadCellError
    words = " ".join(_DATE_BREAKS.sub(" ", _DATE_FILLERS.sub("", text)).split())
    for notation in _NAMED_DATES:
        try:
            return datetime.strptime(words, notation).date()
        except ValueError:
            continue
    raise _BadCellError


def _parse_quarter(value: Any) -> str | None:
    text = _text(value if isinstance(value, (str, bytes)) else _whole(value))
    if text is None:
        return None
    quarter = read_quarter(text)
    if quarter is None:
        raise _BadCellError
    return quarter


def _parse_missing(value: Any) -> None:
    """A text column with a number type must have no values."""
    if _whole(value) is not None:
        raise _BadCellError


def _whole(value: Any) -> int | None:
    """A whole number, also one that is written as text or as a float; NaN is missing."""
    if isinstance(value, bool):
        raise _BadCellError
    if isinstance(value, int):
        return value
    if isinstance(value, (float, Decimal)):
        if value != value:
            return None
        if value != int(value):
            raise _BadCellError
        return int(value)
    text = _text(value)
    if text is None:
        return None
    found = _INTEGER.fullmatch(text)
    if not found:
        raise _BadCellError
    return int(found[1])


def _text(value: Any) -> str | None:
    """The text without blanks around it; None for what programs write for a missing value."""
    if value is None:
        return None
    if isinstance(value, bytes):
        value = value.decode()
    if not isinstance(value, (str, int)) or isinstance(value, bool):
        raise _BadCellError
    text = str(value).strip()
    return None if text.lower() in MISSING else text


_PARSERS: dict[str, Callable[[Any], Any]] = {
    "permno": _parse_permno,
    "gvkey": _parse_gvkey,
    "earnings_call_date": _parse_date,
    "position": _parse_position,
    "quarter": _parse_quarter,
}
_TEXT = [name for name in SCHEMA.names if name not in _PARSERS]
_PARSERS |= {name: _parse_id if name in _NUMBERS else _parse_missing for name in _TEXT}

_Rule = tuple[str, str]
_WHOLE_NUMBERS: _Rule = ("a whole number", "whole numbers")
_UTF8_TEXT: _Rule = ("UTF-8 text", "UTF-8 text")
_RULES: dict[str, _Rule] = {
    "permno": _WHOLE_NUMBERS,
    "position": _WHOLE_NUMBERS,
    "gvkey": ("a number of up to six digits", "numbers of up to six digits"),
    "earnings_call_date": ("an unambiguous date", "unambiguous dates"),
    "quarter": ("a quarter such as 2016Q2", "quarters such as 2016Q2"),
}
_RANGES: dict[str, _Rule] = {
    "permno": ("a whole number from 1 to 2^63 - 1", "whole numbers from 1 to 2^63 - 1"),
    "position": ("a whole number from 0 to 2^31 - 1", "whole numbers from 0 to 2^31 - 1"),
}
"""For whole numbers that are too small or too large."""


def _rule(name: str, kind: pa.DataType, value: Any) -> _Rule:
    """What the cells of this column should be; `value` is a cell that is not."""
    if name in _TEXT:
        return _WHOLE_NUMBERS if name in _NUMBERS and not _is_text(kind) else _UTF8_TEXT
    try:
        return _RANGES[name] if name in _RANGES and _whole(value) is not None else _RULES[name]
    except (_BadCellError, ValueError, OverflowError):
        return _RULES[name]


def _padded(column: pa.Array, gvkeys: pa.Array) -> int:
    """How many gvkeys are read differently than they were written."""
    if not _is_text(column.type):
        return len(gvkeys) - gvkeys.null_count
    texts, _ = _read_text(column)
    return _compute.sum(_compute.not_equal(texts, gvkeys)).as_py() or 0


def _problem(name: str, column: pa.Array, rows: list[int], arrays: dict[str, pa.Array], numbers: pa.Array) -> Problem:
    first = rows[0]
    firms = arrays["firm_id"].take(pa.array(rows)).unique().to_pylist()
    value = _value(column, first)
    return Problem(
        column=name,
        rules=_rule(name, column.type, value),
        count=len(rows),
        value=value,
        row=numbers[first].as_py(),
        firm=arrays["firm_id"][first].as_py() or "",
        sentence=arrays["sentence_id"][first].as_py() or "",
        firms={firm for firm in firms if firm is not None},
    )


def _value(column: pa.Array, row: int) -> Any:
    try:
        return column[row].as_py()
    except UnicodeDecodeError as error:
        return error.object
    except (ValueError, OverflowError):  # a date beyond Python's
        return str(column.type)


def _add(problems: list[Problem], new: Problem) -> None:
    for problem in problems:
        if problem.column == new.column:
            problem.merge(new)
            return
    problems.append(new)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
