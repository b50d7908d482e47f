"""Arguments and options that several commands share."""

from typing import Annotated
from urllib.parse import urlsplit

import typer

from cli.completion import complete_quarter, complete_run
from cli.errors import UsageError
from contract import ContractError, env
from contract.layout import check_run
from contract.quarter import check_quarter
from contract.run import MAX_BATCH_SIZE


def parse_quarter(text: str) -> str:
    """The quarter as it is written in the bucket; `2023q1` is understood."""
    return check_quarter(text.strip().upper())


def parse_quarter_or_run(text: str) -> str:
    """A quarter or a run's id.

    Raises:
        UsageError: when it is neither.
    """
    for parse in (check_run, parse_quarter):
        try:
            return parse(text)
        except ContractError:
            continue
    raise UsageError(f"{text!r} is neither a quarter such as 2023Q1 nor a run such as 20230405_101500")


def _parse_optional_quarter(text: str | None) -> str | None:
    return None if text is None else parse_quarter(text)


def check_url(param: typer.CallbackParam, url: str | None) -> str | None:
    """Return an API's base URL if it is valid: checked before anything is read, started or paid for."""
    if url is None:
        return None
    if "@" in url:
        raise UsageError(f"{param.opts[0]} has a user or a password in it: leave it out, and set {env.LLM_API_KEY}")
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # the port is not a number, or the brackets do not hold an address
        known = False
    if known and url.isascii() and url.isprintable() and " " not in url:
        return url
    raise UsageError(f"{param.opts[0]} is {url!r}, which is not a valid URL: write http://host:port/v1")


def parse_levels(text: str) -> list[int]:
    """The concurrency levels of `1,2,4`.

    Raises:
        UsageError: when they are not increasing numbers.
    """
    numbers = [int(part) if part.strip().isdecimal() else 0 for part in text.split(",")]
    if min(numbers) > 0 and numbers == sorted(set(numbers)):
        return numbers
    raise UsageError(f"--levels is {text!r}, which is not a valid list: write increasing numbers, such as 1,2,4,8")


QuarterArgument = Annotated[
    str,
    typer.Argument(
        metavar="QUARTER",
        callback=parse_quarter,
        autocompletion=complete_quarter,
        help="The quarter, such as 2023Q1.",
    ),
]
OptionalQuarterArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[QUARTER]",
        callback=_parse_optional_quarter,
        autocompletion=complete_quarter,
        help="The quarter, such as 2023Q1.",
    ),
]
RunOption = Annotated[
    str | None,
    typer.Option("--run", metavar="RUN", autocompletion=complete_run, help="A run, such as 20230405_101500."),
]
BatchSizeOption = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, max=MAX_BATCH_SIZE, help="Firms per batch; by default a share for each job."),
]
VllmOption = Annotated[
    int | None,
    typer.Option("--vllm", metavar="N", min=1, help="AWS starts N GPUs first, and switches them off at the end."),
]
KeepVllmOption = Annotated[bool, typer.Option("--keep-vllm", help="With --vllm: leave the GPUs on at the end.")]
NoSmokeTestOption = Annotated[
    bool,
    typer.Option("--no-smoke-test", help="Do not have vLLM name three topics first when it has come up since a run."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
DetachOption = Annotated[bool, typer.Option("--detach", help="Start it and return at once.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Check and plan, but start nothing.")]
