"""Arguments and options that several commands share."""

from typing import Annotated

import typer

from cli.completion import complete_run
from contract.quarter import check_quarter
from contract.run import MAX_BATCH_SIZE


def _check_given(quarter: str | None) -> str | None:
    return quarter if quarter is None else check_quarter(quarter)


QuarterArgument = Annotated[
    str, typer.Argument(metavar="QUARTER", callback=check_quarter, help="The quarter, such as 2023Q1.")
]
OptionalQuarterArgument = Annotated[
    str | None, typer.Argument(metavar="[QUARTER]", callback=_check_given, help="The quarter, such as 2023Q1.")
]
RunOption = Annotated[
    str | None,
    typer.Option("--run", metavar="RUN", autocompletion=complete_run, help="A run, such as 20230405_101500."),
]
BatchSizeOption = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, max=MAX_BATCH_SIZE, help="Firms a batch; a share for each job if not given."),
]
VllmOption = Annotated[
    int | None, typer.Option("--vllm", metavar="N", min=1, help="First scale vLLM to N, and wait for it.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DetachOption = Annotated[bool, typer.Option("--detach", help="Start it and return.")]
