"""`ftm logs`, `ftm vllm logs` and `ftm functions logs`: what the workers, vLLM and the functions logged."""

from collections.abc import Iterable
from typing import Annotated

import typer

from cli import output
from cli.completion import complete_batch, complete_function
from cli.errors import UsageError
from cli.options import JsonOption, QuarterArgument, RunOption
from cli.services import executions
from cli.services import logs as service
from cli.services.logs import Filter, Line, LoggedAttempt, LoggedLine
from cli.stack import Stack, connect
from contract import resource_names as names

FollowOption = Annotated[bool, typer.Option("--follow", "-f", help="Keep printing new lines.")]
SinceOption = Annotated[str | None, typer.Option(metavar="10m", help="Only lines this recent: 30s, 10m, 2h, 1d.")]
SearchOption = Annotated[str, typer.Option(metavar="TEXT", help="Only lines that contain this text.")]

functions = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="The Lambda functions of the state machine.")


def logs(
    ctx: typer.Context,
    quarter: QuarterArgument,
    run: RunOption = None,
    batch: Annotated[
        str | None, typer.Option(metavar="BATCH", autocompletion=complete_batch, help="Only this batch.")
    ] = None,
    follow: FollowOption = False,
    since: SinceOption = None,
    search: SearchOption = "",
    as_json: JsonOption = False,
) -> None:
    """Print the workers' log of a run, attempt by attempt.

    Without --run, of the newest run. Each attempt begins with Batch's reason for its end, which is
    the only information when its host was lost.

    \b
    Examples:
      ftm logs 2023Q1
      ftm logs 2023Q1 --batch 2023Q1_batch_0003 --since 10m
      ftm logs 2023Q1 --follow --search "waiting for the LLM"
    """
    wanted = Filter(service.parse_since(since), search)
    stack = connect(ctx.obj)
    group = stack.output("batch_log_group")
    if follow:
        _check_one_of(follow, as_json)
        _print_lines(_followed(stack, group, quarter, run, batch, wanted), with_source=True)
        return
    document: list[LoggedAttempt] = []
    for attempt in service.attempts_of(stack, quarter, run, batch):
        source = f"{attempt.batch_id} attempt {attempt.number}"
        lines = service.lines_of(stack, group, attempt.log_stream, source, wanted) if attempt.log_stream else iter(())
        if as_json:
            document.append(
                {
                    "batch_id": attempt.batch_id,
                    "number": attempt.number,
                    "log_stream": attempt.log_stream,
                    "status": attempt.status,
                    "lines": [_logged(line) for line in lines],
                }
            )
            continue
        output.print_line(f"== {source}: {attempt.status or 'no reason given'}")
        if not _print_lines(lines, with_source=False):
            output.hint("   (no lines)")
    if as_json:
        output.print_json(document)


@functions.command("logs")
def function_logs(
    ctx: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", autocompletion=complete_function, help=f"One of {', '.join(service.FUNCTIONS)}."
        ),
    ],
    follow: FollowOption = False,
    since: SinceOption = "1h",
    search: SearchOption = "",
    as_json: JsonOption = False,
) -> None:
    """Print the log of one of the functions.

    \b
    Example:
      ftm functions logs summarize-results --since 1d
    """
    if name not in service.FUNCTIONS:
        raise UsageError(f"there is no function {name!r}: choose one of {', '.join(service.FUNCTIONS)}")
    stack = connect(ctx.obj)
    print_group(stack, f"/aws/lambda/{names.prefix(stack.name)}-{name}", follow, since, search, as_json)


def print_group(stack: Stack, group: str, follow: bool, since: str | None, search: str, as_json: bool) -> None:
    """The lines of a log group."""
    _check_one_of(follow, as_json)
    wanted = Filter(service.parse_since(since), search)
    lines = service.follow_group(stack, group, wanted) if follow else service.group_lines(stack, group, wanted)
    if as_json:
        output.print_json([_logged(line) for line in lines])
        return
    if not _print_lines(lines, with_source=False):
        output.hint(f"{group} has no such lines{f' in the last {since}' if since else ''}")


def _followed(
    stack: Stack, group: str, quarter: str, run: str | None, batch: str | None, wanted: Filter
) -> Iterable[Line]:
    def find() -> dict[str, str]:
        attempts = service.attempts_of(stack, quarter, run, batch)
        return {one.log_stream: f"{one.batch_id} attempt {one.number}" for one in attempts if one.log_stream}

    return service.follow_streams(
        stack, group, find, wanted, is_over=lambda: executions.running(stack, quarter) is None
    )


def _check_one_of(follow: bool, as_json: bool) -> None:
    if follow and as_json:
        raise UsageError("--follow has no end, and --json prints one document: leave one of them out")


def _logged(line: Line) -> LoggedLine:
    return {"at": line.at.isoformat(), "text": line.text}


def _print_lines(lines: Iterable[Line], *, with_source: bool) -> int:
    """Print lines with their time; returns how many there were."""
    count = 0
    for line in lines:
        source = f"{line.source}  " if with_source else ""
        output.print_line(f"{line.at:%H:%M:%S}  {source}{line.text}")
        count += 1
    return count
