"""`ftm run-quarter` and its kin: start a run, watch it, stop it."""

from typing import Annotated

import typer

from cli import output, rendering
from cli.commands.vllm import wait_until_settled
from cli.errors import ExitCode
from cli.options import ForceOption, JsonOption, QuarterArgument, YesOption
from cli.services import executions, preflight, runs, vllm
from cli.services.executions import Execution
from cli.services.runs import Look
from cli.stack import Stack, connect
from contract.run import MAX_BATCH_SIZE, QuarterInput

INTERRUPTED = 130
"""What a shell reports for a command that Ctrl-C ended."""


def run_quarter(
    ctx: typer.Context,
    quarter: QuarterArgument,
    batch_size: Annotated[
        int | None, typer.Option(metavar="N", min=1, max=MAX_BATCH_SIZE, help="Firms a batch.", show_default="1000")
    ] = None,
    vllm_size: Annotated[
        int | None, typer.Option("--vllm", metavar="N", min=1, help="First scale vLLM to N, and wait for it.")
    ] = None,
    yes: YesOption = False,
    detach: Annotated[bool, typer.Option("--detach", help="Start it and return.")] = False,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run a quarter: find the topics of each firm's call and have the LLM name them.

    Checks and plans first, asks, then starts the execution and watches it. The run goes on in AWS whatever happens
    here. Exits with 0 only when the run succeeded.

    \b
    Examples:
      ftm run-quarter 2023Q1
      ftm run-quarter 2023Q1 --vllm 1 --yes
      ftm run-quarter 2023Q1 --batch-size 50 --yes --json | jq .topics
    """
    stack = connect(ctx.obj)
    plan = preflight.plan(stack, quarter, batch_size=batch_size, vllm_size=vllm_size, force=force)
    rendering.print_plan(plan)
    if not output.confirm(f"Run {quarter}?", yes=yes):
        raise typer.Abort
    if vllm_size is not None:
        vllm.scale(stack, vllm_size)
        wait_until_settled(stack)
    request: QuarterInput = {"quarter": quarter, "bucket": plan.bucket}
    if batch_size:
        request["batch_size"] = batch_size
    execution = executions.start(stack, request, force=force)
    follow(stack, execution, detach=detach, as_json=as_json)


def watch(ctx: typer.Context, quarter: QuarterArgument, as_json: JsonOption = False) -> None:
    """Watch the run of a quarter that goes on now, whoever started it.

    \b
    Example:
      ftm watch 2023Q1
    """
    stack = connect(ctx.obj)
    follow(stack, executions.find_running(stack, quarter), detach=False, as_json=as_json)


def stop(ctx: typer.Context, quarter: QuarterArgument, yes: YesOption = False) -> None:
    """Stop the run of a quarter that goes on now; what it has finished stays in the bucket.

    \b
    Example:
      ftm stop 2023Q1 --yes
    """
    stack = connect(ctx.obj)
    execution = executions.find_running(stack, quarter)
    if not output.confirm(f"Stop {execution.name} and its jobs?", yes=yes):
        raise typer.Abort
    executions.stop(stack, execution)
    output.print_line(f"stopped {execution.arn}")
    output.hint(f"`{stack.command} resume {quarter}` goes on with the batches that are not complete")


def follow(stack: Stack, execution: Execution, *, detach: bool, as_json: bool) -> None:
    """Watch an execution to its end and exit as it ended; with `detach` only say how to watch it."""
    output.hint(f"started {execution.arn}")
    if detach:
        look = Look(execution)
        if as_json:
            output.print_json(runs.report(look, None))
        else:
            output.print_line(execution.arn)
        _tell_that_it_goes_on(stack, execution)
        return
    look = Look(execution)
    try:
        with rendering.Progress() as progress:
            for look in runs.watch(stack, execution):
                progress.show(look)
    except KeyboardInterrupt:
        if as_json:
            output.print_json(runs.report(look, None))
        output.warn(f"the run of {execution.input['quarter']} goes on without you, as {execution.arn}")
        _tell_that_it_goes_on(stack, execution)
        raise typer.Exit(INTERRUPTED) from None
    _tell_the_end(stack, look, as_json)


def _tell_that_it_goes_on(stack: Stack, execution: Execution) -> None:
    quarter = execution.input["quarter"]
    stop_execution = stack.aws_command(f"stepfunctions stop-execution --execution-arn {execution.arn}")
    output.hint(f"watch it: {stack.command} watch {quarter}")
    output.hint(f"stop it:  {stack.command} stop {quarter}")
    output.hint(f"          or {stop_execution}")


def _tell_the_end(stack: Stack, look: Look, as_json: bool) -> None:
    execution = look.execution
    succeeded = execution.status == "SUCCEEDED"
    summary = executions.summary_of(stack, execution)
    report, failures = runs.report(look, summary), runs.failures(look, summary)
    message = "" if succeeded else (summary["message"] if summary else executions.reason(execution))
    if as_json:
        output.print_json(report)
        rendering.print_failures(failures, message, err=True)
    else:
        rendering.print_report(report, failures, message)
    _tell_next(stack, look, succeeded)
    raise typer.Exit(ExitCode.DONE if succeeded else ExitCode.FAILED)


def _tell_next(stack: Stack, look: Look, succeeded: bool) -> None:
    quarter = look.execution.input["quarter"]
    if succeeded:
        output.hint(f"see the topics: {stack.command} topics {quarter}")
    elif look.manifest:
        output.hint(f"process what is not complete: {stack.command} resume {quarter} {look.manifest['run']}")
    if vllm.is_part_of(stack) and (left := vllm.status(stack).desired):
        output.hint(f"vLLM still runs on {left} GPU{'s' * (left > 1)}; switch it off: {stack.command} vllm scale 0")
