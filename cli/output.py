"""All output of `ftm`: data to stdout, hints and progress to stderr, one JSON document when asked for.

On a terminal, tables are rendered by rich and fit its width; elsewhere they are tab-separated lines, complete and
greppable.
"""

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import typer

from cli.errors import UsageError
from contract.exit_codes import ExitCode

if TYPE_CHECKING:
    from rich.console import Console

_WRAPPED_WIDTH = 24
"""Minimum width of a column of text, in characters."""

_SPACING = 3
"""Characters between two columns."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Control characters except tabs and ends of lines."""

_json = {"expected": False}
"""Whether stdout still lacks the one JSON document of this command."""


@cache
def stdout() -> "Console":
    from rich.console import Console

    return Console(highlight=False)


@cache
def stderr() -> "Console":
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def expect_json(expected: bool) -> None:
    """Note whether --json was given: a failure then prints a document too."""
    _json["expected"] = expected


def print_json(document: Any) -> None:
    """Print the command's result for a script."""
    _json["expected"] = False
    # JSON itself escapes those below 32 only.
    typer.echo(_CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(document, ensure_ascii=False)))


def print_error_document(message: str, code: ExitCode) -> None:
    """Print a failure for a script, if --json was given and the command has not printed its document yet."""
    if _json["expected"]:
        print_json({"error": {"message": message, "exit_code": int(code)}})


def print_line(text: str) -> None:
    """Print a line of the command's result for a person."""
    typer.echo(_without_control(text))


def hint(text: str) -> None:
    """Print progress or a suggested next step, which is not part of the result."""
    typer.echo(_styled(_without_control(text), dim=True), err=True)


def warn(text: str) -> None:
    typer.echo(_styled(_without_control(text), fg="yellow"), err=True)


def fail(text: str) -> None:
    """Print the error message of a failed command."""
    typer.echo(f"{_styled('ftm:', fg='red', bold=True)} {_without_control(text)}", err=True)


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    wrap: Sequence[str] = (),
    drop: Sequence[str] = (),
    err: bool = False,
) -> None:
    """Print a table: numbers to the right, None as a dash.

    A table that is still too wide for the terminal is printed as it is: the terminal breaks its lines, and nothing is
    cut.

    Args:
        wrap: columns of text, which may be wrapped on a terminal; ids, states and numbers never are.
        drop: columns to leave out, in this order, when the terminal is too narrow.
        err: print to stderr, for a table that is not the result itself.
    """
    stream = sys.stderr if err else sys.stdout
    cells = [[_cell(value, grouped=stream.isatty()) for value in row] for row in rows]
    if not stream.isatty():
        for line in [list(columns), *cells]:
            typer.echo("\t".join(line), err=err)
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = stderr() if err else stdout()
    kept, width = _fitting(columns, cells, wrap, drop, console.width)
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for number in kept:
        numeric = bool(rows) and all(isinstance(row[number], int | float | None) for row in rows)
        wraps = columns[number] in wrap
        table.add_column(columns[number], justify="right" if numeric else "left", overflow="fold", no_wrap=not wraps)
    for line in cells:
        table.add_row(*(Text(line[number]) for number in kept))
    if width > console.width:
        console = Console(stderr=err, highlight=False, width=width)
    console.print(table)


def print_pairs(pairs: Sequence[tuple[str, str]]) -> None:
    """Print names and values, one pair a line: a value is never broken, so that it can be copied."""
    width = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        line = f"{name.ljust(width)}  {value}" if sys.stdout.isatty() else f"{name}\t{value}"
        typer.echo(_without_control(line))


def count(number: int, noun: str) -> str:
    """`1 batch`, `1,200 firms`."""
    plural = "" if number == 1 else "es" if noun.endswith(("ch", "s")) else "s"
    return f"{number:,} {noun}{plural}"


def confirm(question: str, *, yes: bool) -> None:
    """Ask the operator, unless --yes was given.

    Raises:
        UsageError: when there is no terminal to ask on.
        typer.Exit: with 130, when the answer is no.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"{question} There is no terminal to ask on: add --yes")
    if not typer.confirm(question, err=True):
        hint("Cancelled. Nothing was changed.")
        print_error_document("cancelled by the operator", ExitCode.INTERRUPTED)
        raise typer.Exit(ExitCode.INTERRUPTED)


def _fitting(
    columns: Sequence[str], cells: Sequence[Sequence[str]], wrap: Sequence[str], drop: Sequence[str], width: int
) -> tuple[list[int], int]:
    """The numbers of the columns that fit into `width`, without those of `drop` that do not, and the table's width."""
    widths = {name: max(len(name), *(len(line[number]) for line in cells), 0) for number, name in enumerate(columns)}
    for name in wrap:
        widths[name] = min(widths[name], _WRAPPED_WIDTH)
    kept = list(columns)
    for name in drop:
        if _width(widths, kept) <= width:
            break
        kept.remove(name)
    return [number for number, name in enumerate(columns) if name in kept], max(width, _width(widths, kept))


def _width(widths: Mapping[str, int], kept: Sequence[str]) -> int:
    """The characters that these columns need, side by side."""
    return sum(widths[column] for column in kept) + _SPACING * len(kept)


def _cell(value: object, *, grouped: bool) -> str:
    if value is None:
        return "–"
    if isinstance(value, int):
        return f"{value:,}" if grouped else str(value)
    return _without_control(" ".join(str(value).split()))


def _without_control(text: str) -> str:
    """Text from elsewhere (a firm's name, a job's log) that cannot control the terminal: `\\x1b` for an escape."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def _styled(text: str, **style: Any) -> str:
    return text if os.environ.get("NO_COLOR") else typer.style(text, **style)
