"""`ftm status` and `ftm runs`: the state of quarters and runs."""

import time
from typing import Annotated

import typer

from cli import output
from cli.completion import complete_quarter
from cli.errors import UsageError
from cli.options import JsonOption, OptionalQuarterArgument, parse_quarter_or_run
from cli.rendering import status as rendering
from cli.services import history
from cli.stack import connect


def status(
    ctx: typer.Context,
    what: Annotated[
        str | None,
        typer.Argument(metavar="[QUARTER|RUN]", autocompletion=complete_quarter, help="A quarter or a run id."),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Print it again until the run has ended.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show all quarters with their last run, or one run.

    Of one run: its batches with attempts, firms, topics and times, and why it waits or failed.

    \b
    Examples:
      ftm status
      ftm status 2023Q1
      ftm status 20230405_101500 --watch
    """
    if watch and (as_json or what is None):
        raise UsageError("--watch needs a QUARTER or RUN, and cannot be combined with --json")
    stack = connect(ctx.obj)
    if what is None:
        found = history.quarters(stack)
        if as_json:
            output.print_json(found)
        else:
            rendering.print_quarters(found)
            if not found:
                output.hint(f"no quarter has a prefetch: upload one with `{stack.command} prefetch put QUARTER DIR`")
        return
    name = parse_quarter_or_run(what)
    while True:
        result = history.find_status(stack, name)
        if as_json:
            output.print_json(result)
        else:
            rendering.print_run(result)
        if not watch or result["report"]["status"] != "RUNNING":
            return
        time.sleep(stack.poll_interval)


def runs(
    ctx: typer.Context,
    quarter: OptionalQuarterArgument = None,
    failed: Annotated[bool, typer.Option("--failed", help="Only those that did not succeed.")] = False,
    limit: Annotated[int, typer.Option(metavar="N", min=1, max=1000, help="At most N runs per quarter.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """List runs: who, when, how long, counts, model, cost.

    \b
    Examples:
      ftm runs
      ftm runs 2023Q1 --failed
      ftm runs --json | jq '.[] | select(.dollars > 2)'
    """
    stack = connect(ctx.obj)
    found = history.all_runs(stack, quarter, failed=failed, limit=limit)
    if as_json:
        output.print_json(found)
    else:
        rendering.print_runs(found)
        if not found:
            output.hint(f"no run was found: `{stack.command} status` shows all quarters")
