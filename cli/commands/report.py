"""`ftm report`: a run as one HTML page."""

from pathlib import Path
from typing import Annotated, TypedDict

import typer

from cli import output
from cli.errors import UsageError
from cli.options import JsonOption, QuarterArgument, RunOption
from cli.rendering import report as rendering
from cli.services import report as service
from cli.stack import connect


class WrittenReport(TypedDict):
    """What `ftm report --json` prints."""

    quarter: str
    run: str | None
    file: str


def report(
    ctx: typer.Context,
    quarter: QuarterArgument,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The HTML file to write.")],
    run: RunOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a run's report, one HTML page with charts.

    The page holds everything it needs and opens without a network. Without --run, it is of the newest run.

    \b
    Example:
      ftm report 2023Q1 --out 2023Q1.html
    """
    if out.is_dir() or not out.absolute().parent.is_dir():
        raise UsageError(f"--out {out} cannot be written: name a file in a folder that exists")
    found = service.collect(connect(ctx.obj), quarter, run)
    out.write_text(rendering.to_html(found), encoding="utf-8")
    if as_json:
        document: WrittenReport = {"quarter": quarter, "run": found.report["run"], "file": str(out)}
        output.print_json(document)
    else:
        output.print_line(str(out))
