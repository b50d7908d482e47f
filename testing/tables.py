"""Tables as plain text."""

from collections.abc import Mapping, Sequence
from typing import Any


def print_table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the rows' values of these columns: numbers to the right, text to the left."""
    widths = [max(len(column), *(len(str(row[column])) for row in rows)) for column in columns]
    numeric = [all(isinstance(row[column], int) for row in rows) for column in columns]
    for row in ({column: column for column in columns}, *rows):
        cells = [str(row[column]) for column in columns]
        print(*(c.rjust(w) if n else c.ljust(w) for c, w, n in zip(cells, widths, numeric, strict=True)), sep="  ")
