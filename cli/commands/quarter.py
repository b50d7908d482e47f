"""`ftm run-quarter` and its kin: start runs, go on with them, watch them, stop them."""

from typing import Annotated

import typer

from cli import output
from cli.commands.vllm import wait_until_settled
from cli.completion import complete_run
from cli.errors import CliError, ExitCode
from cli.options import (
    BatchSizeOption,
    DetachOption,
    JsonOption,
    OptionalQuarterArgument,
    QuarterArgument,
    VllmOption,
    YesOption,
)
from cli.rendering import runs as rendering
from cli.services import executions, preflight, quarters, resumption, runs, starting, vllm
from cli.services.executions import Execution
from cli.services.preflight import Plan
from cli.services.quarters import QuartersSnapshot
from cli.services.runs import Report, RunSnapshot
from cli.stack import Stack, connect
from contract.run import QuarterInput


def run_quarter(
    ctx: typer.Context,
    quarter: QuarterArgument,
    batch_size: BatchSizeOption = None,
    vllm_size: VllmOption = None,
    yes: YesOption = False,
    detach: DetachOption = False,
    force: Annotated[bool, typer.Option("--force", help="Start it although the quarter is being run already.")] = False,
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
    plan = preflight.plan(stack, [quarter], batch_size=batch_size, vllm_size=vllm_size, force=force)
    _agree(stack, plan, f"Run {quarter}?", yes)
    (request,) = _requests(plan, batch_size)
    _follow(stack, starting.start(stack, request, force=force), detach, as_json)


def resume(
    ctx: typer.Context,
    quarter: QuarterArgument,
    run: Annotated[
        str | None,
        typer.Argument(metavar="[RUN]", autocompletion=complete_run, help="The run; the newest one if not given."),
    ] = None,
    vllm_size: VllmOption = None,
    yes: YesOption = False,
    detach: DetachOption = False,
    as_json: JsonOption = False,
) -> None:
    """Go on with a run: process those of its batches that are not complete.

    What is complete is not even submitted again; old and new results form one run.

    \b
    Examples:
      ftm resume 2023Q1
      ftm resume 2023Q1 20230405_101500 --yes
    """
    stack = connect(ctx.obj)
    left = resumption.find_incomplete(stack, quarter, run)
    starting.refuse_second(stack, quarter)
    if left.succeeded:
        output.hint(f"run {left.run} of {quarter} is complete: nothing to resume")
        if as_json:
            output.print_json(left.record and runs.report_of_record(left.record))
        return
    if not left.incomplete and left.is_counted and left.record:
        raise CliError(
            f"run {left.run} of {quarter} has no batch to resume, and failed nevertheless: "
            f"{left.record['summary']['message']}; `{stack.command} run-quarter {quarter}` makes a new run"
        )
    rendering.print_incomplete(left)
    plan = preflight.plan_resumption(stack, quarter, left, vllm_size=vllm_size)
    _agree(stack, plan, f"Resume run {left.run} of {quarter}?", yes)
    request: QuarterInput = {"quarter": quarter, "bucket": plan.bucket, "resume": left.run}
    _follow(stack, starting.start(stack, request), detach, as_json)


def run_quarters(
    ctx: typer.Context,
    span: Annotated[str, typer.Argument(metavar="FIRST..LAST", help="The quarters, such as 2022Q1..2023Q4.")],
    at_once: Annotated[int, typer.Option(metavar="N", min=1, max=40, help="Quarters at the same time.")] = 1,
    batch_size: BatchSizeOption = None,
    vllm_size: VllmOption = None,
    yes: YesOption = False,
    detach: DetachOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run several quarters, one after the other; a failed one does not stop the others.

    They are run by an execution in AWS: a closed laptop changes nothing.

    \b
    Examples:
      ftm run-quarters 2022Q1..2023Q4 --vllm 1
      ftm run-quarters 2022Q1..2022Q4 --at-once 2 --yes --detach
    """
    names = quarters.parse_range(span)
    stack = connect(ctx.obj)
    plan = preflight.plan(stack, names, batch_size=batch_size, vllm_size=vllm_size)
    _agree(stack, plan, f"Run {output.count(len(names), 'quarter')}, {at_once} at once?", yes)
    requests = _requests(plan, batch_size)
    _follow(stack, starting.start_quarters(stack, requests, at_once), detach, as_json)


def watch(ctx: typer.Context, quarter: OptionalQuarterArgument = None, as_json: JsonOption = False) -> None:
    """Watch what is being run now, whoever started it.

    \b
    Examples:
      ftm watch 2023Q1
      ftm watch            (the list of quarters that is being run)
    """
    stack = connect(ctx.obj)
    _follow(stack, executions.find_running(stack, quarter), detach=False, as_json=as_json)


def stop(ctx: typer.Context, quarter: OptionalQuarterArgument = None, yes: YesOption = False) -> None:
    """Stop what is being run now, with its jobs; what is finished stays in the bucket.

    \b
    Examples:
      ftm stop 2023Q1 --yes
      ftm stop             (the list of quarters that is being run)
    """
    stack = connect(ctx.obj)
    execution = executions.find_running(stack, quarter)
    output.confirm(f"Stop {execution.name} and its jobs?", yes=yes)
    executions.stop(stack, execution)
    output.print_line(f"stopped {execution.arn}")
    output.hint(f"go on with the batches that are not complete: {stack.command} resume {quarter or 'QUARTER'}")


def _agree(stack: Stack, plan: Plan, question: str, yes: bool) -> None:
    """Show the plan, have it agreed, and bring vLLM to the size that it asks for."""
    rendering.print_plan(plan)
    output.confirm(question, yes=yes)
    if plan.vllm_size is not None:
        vllm.scale(stack, plan.vllm_size)
        wait_until_settled(stack)


def _requests(plan: Plan, batch_size: int | None) -> list[QuarterInput]:
    return [
        {"quarter": planned.quarter, "bucket": plan.bucket, "batch_size": batch_size or planned.batch_size}
        for planned in plan.quarters
    ]


def _follow(stack: Stack, execution: Execution, detach: bool, as_json: bool) -> None:
    """Watch an execution to its end and exit as it ended; with `detach` only say how to watch it."""
    output.hint(f"execution {execution.arn}")
    several = "quarters" in execution.input
    if detach:
        if not as_json:
            output.print_line(execution.arn)
        elif several:
            output.print_json(quarters.report(stack, QuartersSnapshot(execution, [], {})))
        else:
            output.print_json(runs.report(RunSnapshot(execution), None))
        _print_follow_up(stack, execution)
        return
    try:
        if several:
            _follow_quarters(stack, execution, as_json)
        else:
            _follow_quarter(stack, execution, as_json)
    except KeyboardInterrupt:
        output.warn(f"{execution.input.get('quarter', 'the list of quarters')} goes on without you: {execution.arn}")
        _print_follow_up(stack, execution)
        raise typer.Exit(ExitCode.INTERRUPTED) from None


def _print_follow_up(stack: Stack, execution: Execution) -> None:
    what = " ".join(filter(None, ("{}", execution.input.get("quarter"))))
    output.hint(f"watch it: {stack.command} {what.format('watch')}")
    output.hint(f"stop it:  {stack.command} {what.format('stop')}")
    output.hint(f"          or {stack.aws_command(f'stepfunctions stop-execution --execution-arn {execution.arn}')}")


def _follow_quarter(stack: Stack, execution: Execution, as_json: bool) -> None:
    snapshot = RunSnapshot(execution)
    with rendering.Progress(rendering.render_run, rendering.describe_run) as progress:
        for snapshot in runs.watch(stack, execution):
            progress.show(snapshot)
    summary = executions.summary_of(stack, snapshot.execution)
    report, failures = runs.report(snapshot, summary), runs.failures(snapshot, summary)
    message = _why(stack, snapshot.execution)
    if as_json:
        output.print_json(report)
        rendering.print_failures(failures, message, err=True)
    else:
        rendering.print_report(report, failures, message)
    if stream := next((failure["log_stream"] for failure in failures if "log_stream" in failure), None):
        group = stack.output("batch_log_group")
        logs = f"logs get-log-events --log-group-name {group} --log-stream-name {stream}"
        output.hint(f"what the first one logged: {stack.aws_command(logs)}")
    if not message:
        output.hint(f"see the topics: {stack.command} topics {report['quarter']}")
    else:
        _print_next_step(stack, report)
    _exit(stack, failed=bool(message))


def _follow_quarters(stack: Stack, execution: Execution, as_json: bool) -> None:
    snapshot = QuartersSnapshot(execution, [], {})
    with rendering.Progress(rendering.render_quarters, rendering.describe_quarters) as progress:
        for snapshot in quarters.watch(stack, execution):
            progress.show(snapshot)
    report = quarters.report(stack, snapshot)
    messages = {quarter: _why(stack, child.execution) for quarter, child in snapshot.snapshots.items()}
    if as_json:
        output.print_json(report)
    else:
        rendering.print_quarters(report, messages)
    for child in report["quarters"]:
        if child["quarter"] in report["failed"]:
            output.warn(f"{child['quarter']} failed: {messages[child['quarter']]}")
            _print_next_step(stack, child)
    if snapshot.execution.status != "SUCCEEDED" and not report["failed"]:
        output.warn(executions.reason(snapshot.execution))
    _exit(stack, failed=snapshot.execution.status != "SUCCEEDED")


def _print_next_step(stack: Stack, report: Report) -> None:
    """The next step after a run that has failed."""
    quarter, run, batches = report["quarter"], report["run"], report["batches"]
    if not run:
        return
    if batches["succeeded"] < batches["total"]:
        output.hint(f"go on with what is not complete: {stack.command} resume {quarter} {run}")
    else:  # too few topics were named: there is nothing to resume
        output.hint(f"see what was named: {stack.command} topics {quarter} --run {run}")
        output.hint(f"make a new run:     {stack.command} run-quarter {quarter}")


def _why(stack: Stack, execution: Execution) -> str:
    """Why an execution of a quarter has not succeeded; empty when it has."""
    if execution.status == "SUCCEEDED":
        return ""
    summary = executions.summary_of(stack, execution)
    return summary["message"] if summary else executions.reason(execution)


def _exit(stack: Stack, failed: bool) -> None:
    if vllm.is_part_of(stack) and (left := vllm.status(stack).desired):
        output.hint(f"vLLM still runs on {output.count(left, 'GPU')}; switch it off: {stack.command} vllm scale 0")
    raise typer.Exit(ExitCode.FAILED if failed else ExitCode.DONE)
