"""Arguments and options that several commands share."""

from typing import Annotated

import typer

from contract.quarter import check_quarter

QuarterArgument = Annotated[
    str, typer.Argument(metavar="QUARTER", callback=check_quarter, help="The quarter, such as 2023Q1.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Start it although the quarter is being run already.")]
RunOption = Annotated[str | None, typer.Option("--run", metavar="RUN", help="A run, such as 20230405_101500.")]
