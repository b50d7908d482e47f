"""The one sink of output: data to stdout, hints and progress to stderr, one JSON document when asked for.

On a terminal tables are rich's; elsewhere they are tab-separated lines, whole and greppable.
"""

import json
import sys
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import typer

from cli.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from rich.console import Console


@cache
def stdout() -> "Console":
    from rich.console import Console

    return Console(highlight=False)


@cache
def stderr() -> "Console":
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def print_json(document: Any) -> None:
    """The command's answer for a script."""
    typer.echo(json.dumps(document, ensure_ascii=False))


def print_line(text: str) -> None:
    """A line of the command's answer for a person."""
    typer.echo(text)


def hint(text: str) -> None:
    """What the operator may want to know or do next; never part of the answer."""
    typer.echo(typer.style(text, dim=True), err=True)


def warn(text: str) -> None:
    typer.echo(typer.style(text, fg="yellow"), err=True)


def fail(text: str) -> None:
    """A failure's one sentence."""
    typer.echo(f"{typer.style('ftm:', fg='red', bold=True)} {text}", err=True)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, err: bool = False) -> None:
    """A table of the answer: numbers to the right, None as a dash.

    Args:
        err: print it beside the answer, for a table that only leads up to it.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    stream = sys.stderr if err else sys.stdout
    if not stream.isatty():
        for line in [list(columns), *cells]:
            typer.echo("\t".join(line), err=err)
        return
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for number, name in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[number], int | float | None) for row in rows)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for line in cells:
        table.add_row(*map(Text, line))
    (stderr() if err else stdout()).print(table)


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, int):
        return f"{value:,}" if sys.stdout.isatty() else str(value)
    return " ".join(str(value).split())


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
        raise typer.Exit(ExitCode.INTERRUPTED)
