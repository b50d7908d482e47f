"""`ftm run-quarter`, `run-quarters`, `resume`, `watch` and `stop`."""

from typing import Annotated, TypedDict

import typer

from cli import output
from cli.commands.following import follow, print_end
from cli.completion import complete_run
from cli.errors import CliError, UsageError
from cli.options import (
    BatchSizeOption,
    DetachOption,
    DryRunOption,
    JsonOption,
    KeepVllmOption,
    NoSmokeTestOption,
    OptionalQuarterArgument,
    QuarterArgument,
    VllmOption,
    YesOption,
)
from cli.rendering import runs as rendering
from cli.services import executions, preflight, resumption, runs, starting
from cli.services.executions import Execution
from cli.services.preflight import Plan, QuarterPlan
from cli.stack import Stack, connect
from contract.quarter import quarters_of
from contract.run import QuarterInput, QuartersInput, VllmInput


class _VllmPart(TypedDict, total=False):
    vllm: VllmInput


class StoppedRun(TypedDict):
    """What `ftm stop --json` prints."""

    quarter: str | None
    """Null for a list of quarters."""
    execution_arn: str
    stopped: bool


def run_quarter(
    ctx: typer.Context,
    quarter: QuarterArgument,
    batch_size: BatchSizeOption = None,
    vllm_size: VllmOption = None,
    keep_vllm: KeepVllmOption = False,
    no_smoke_test: NoSmokeTestOption = False,
    yes: YesOption = False,
    detach: DetachOption = False,
    force: Annotated[bool, typer.Option("--force", help="Start it even if the quarter is already running.")] = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run a quarter: find and name the topics of each firm.

    Checks and plans first, asks, then starts the execution and watches it. The run continues in AWS whatever
    happens here. Exits with 0 only when the run succeeded.

    \b
    Examples:
      ftm run-quarter 2023Q1
      ftm run-quarter 2023Q1 --vllm 1 --yes
      ftm run-quarter 2023Q1 --batch-size 50 --yes --json | jq .topics
      ftm run-quarter 2023Q1 --dry-run
    """
    stack = connect(ctx.obj)
    _check_keep(vllm_size, keep_vllm)
    plan = preflight.plan(
        stack,
        [quarter],
        batch_size=batch_size,
        vllm_size=vllm_size,
        keep_vllm=keep_vllm,
        smoke_test=not no_smoke_test,
        force=force,
    )
    if _stop_at_plan(plan, dry_run, as_json):
        return
    output.confirm(f"Run {quarter}?", yes=yes)
    (request,) = _requests(plan, batch_size)
    follow(stack, _start(stack, plan, request, force=force), quarter=quarter, detach=detach, as_json=as_json)


def resume(
    ctx: typer.Context,
    quarter: QuarterArgument,
    run: Annotated[
        str | None,
        typer.Argument(metavar="[RUN]", autocompletion=complete_run, help="The run; the newest one if not given."),
    ] = None,
    model_change: Annotated[
        bool, typer.Option("--model-change", help="Continue with another model than the run began with.")
    ] = False,
    vllm_size: VllmOption = None,
    keep_vllm: KeepVllmOption = False,
    no_smoke_test: NoSmokeTestOption = False,
    yes: YesOption = False,
    detach: DetachOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Process the missing batches and names of a run.

    Complete batches are not submitted again, unless the run failed because too few topics
    were named: then only topics without a name are sent to the LLM. Old and new results form one run.

    \b
    Examples:
      ftm resume 2023Q1
      ftm resume 2023Q1 20230405_101500 --yes
      ftm resume 2023Q1 --model-change --vllm 1 --yes
    """
    stack = connect(ctx.obj)
    _check_keep(vllm_size, keep_vllm)
    incomplete = resumption.find_incomplete(stack, quarter, run)
    starting.refuse_second(stack, quarter)
    if not dry_run:
        resumption.wait_for_jobs(stack, incomplete.run, output.hint)
        incomplete = resumption.find_incomplete(stack, quarter, incomplete.run)
    if incomplete.succeeded:
        output.hint(f"run {incomplete.run} of {quarter} is complete: nothing to resume")
        if as_json:
            output.print_json(incomplete.record and runs.report_of_record(incomplete.record))
        return
    if not incomplete.incomplete and incomplete.is_counted and incomplete.record:
        raise CliError(
            f"run {incomplete.run} of {quarter} has no batch to resume, but failed: "
            f"{incomplete.record['summary']['message']}; `{stack.command} run-quarter {quarter}` makes a new run"
        )
    resumption.check_model(stack, quarter, incomplete, may_change=model_change)
    rendering.print_incomplete(incomplete)
    plan = preflight.plan_resumption(
        stack, quarter, incomplete, vllm_size=vllm_size, keep_vllm=keep_vllm, smoke_test=not no_smoke_test
    )
    if _stop_at_plan(plan, dry_run, as_json):
        return
    output.confirm(f"Resume run {incomplete.run} of {quarter}?", yes=yes)
    request = _with_concurrency({"quarter": quarter, "bucket": plan.bucket, "resume": incomplete.run}, plan.quarters[0])
    if model_change:
        request["model_change"] = True
    follow(stack, _start(stack, plan, request), quarter=quarter, detach=detach, as_json=as_json)


def run_quarters(
    ctx: typer.Context,
    span: Annotated[str, typer.Argument(metavar="FIRST..LAST", help="The quarters, such as 2022Q1..2023Q4.")],
    at_once: Annotated[int, typer.Option(metavar="N", min=1, max=40, help="Concurrent quarters.")] = 1,
    batch_size: BatchSizeOption = None,
    vllm_size: VllmOption = None,
    keep_vllm: KeepVllmOption = False,
    no_smoke_test: NoSmokeTestOption = False,
    yes: YesOption = False,
    detach: DetachOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run several quarters, one after the other.

    An execution in AWS runs them: a closed laptop changes nothing, and a quarter that fails does not stop the others.

    \b
    Examples:
      ftm run-quarters 2022Q1..2023Q4 --vllm 1
      ftm run-quarters 2022Q1..2022Q4 --vllm 2 --at-once 2 --yes --detach
    """
    names = quarters_of(span.strip().upper())
    stack = connect(ctx.obj)
    _check_keep(vllm_size, keep_vllm)
    plan = preflight.plan(
        stack,
        names,
        batch_size=batch_size,
        vllm_size=vllm_size,
        keep_vllm=keep_vllm,
        smoke_test=not no_smoke_test,
        quarters_at_once=at_once,
    )
    if _stop_at_plan(plan, dry_run, as_json):
        return
    output.confirm(f"Run {output.count(len(names), 'quarter')}, {at_once} at a time?", yes=yes)
    request: QuartersInput = {"quarters": _requests(plan, batch_size), "at_once": at_once, **_vllm(plan)}
    follow(stack, starting.start_quarters(stack, request), detach=detach, as_json=as_json)


def watch(ctx: typer.Context, quarter: OptionalQuarterArgument = None, as_json: JsonOption = False) -> None:
    """Watch a run, whoever started it, or see how it ended.

    Exits as the run did: 0 when it succeeded, 1 when it failed.

    \b
    Examples:
      ftm watch 2023Q1
      ftm watch            (the list of quarters that is running, or the last one)
    """
    stack = connect(ctx.obj)
    if execution := executions.newest(stack, quarter):
        follow(stack, execution, quarter=quarter, detach=False, as_json=as_json)
    if quarter is None:
        raise executions.nothing_runs(stack, quarter)
    record = runs.newest_record(stack, quarter)
    if record is None:
        raise executions.nothing_runs(stack, quarter) if runs.runs_of(stack, quarter) else runs.no_run(stack, quarter)
    print_end(stack, runs.report_of_record(record), as_json)


def stop(
    ctx: typer.Context, quarter: OptionalQuarterArgument = None, yes: YesOption = False, as_json: JsonOption = False
) -> None:
    """Stop a run and its jobs.

    Finished batches stay in the bucket.

    \b
    Examples:
      ftm stop 2023Q1 --yes
      ftm stop             (the list of quarters that is running)
    """
    stack = connect(ctx.obj)
    execution = executions.find_running(stack, quarter)
    around = execution if quarter is None else executions.running_for(stack, quarter)
    output.confirm(f"Stop {execution.name} and its jobs?", yes=yes)
    executions.stop(stack, execution)
    if as_json:
        document: StoppedRun = {"quarter": quarter, "execution_arn": execution.arn, "stopped": True}
        output.print_json(document)
    else:
        output.print_line(f"stopped {execution.arn}")
    if around and executions.switches_vllm_off(around):
        output.hint(f"AWS switches vLLM off; see it: {stack.command} vllm status")
    output.hint(f"process the batches that are not complete: {stack.command} resume {quarter or 'QUARTER'}")


def _stop_at_plan(plan: Plan, dry_run: bool, as_json: bool) -> bool:
    """Print the plan; return whether the command ends here."""
    rendering.print_plan(plan)
    if dry_run and as_json:
        output.print_json(preflight.document(plan))
    if dry_run:
        output.hint("dry run: nothing was started")
    return dry_run


def _check_keep(vllm_size: int | None, keep_vllm: bool) -> None:
    if keep_vllm and vllm_size is None:
        raise UsageError("--keep-vllm leaves on what --vllm N started: give --vllm too, or leave out --keep-vllm")


def _start(stack: Stack, plan: Plan, request: QuarterInput, *, force: bool = False) -> Execution:
    """Start one quarter, as the only one of a list if AWS switches vLLM on or tests it first."""
    around = _vllm(plan)
    if not around:
        return starting.start(stack, request, force=force)
    return starting.start_quarters(stack, {"quarters": [request], "at_once": 1, **around}, force=force)


def _vllm(plan: Plan) -> _VllmPart:
    """The part of the input that has AWS start, test or stop vLLM; empty if it does none of these."""
    if plan.vllm_size is None:
        return {"vllm": {"keep": True}} if plan.smoke_test else {}
    vllm: VllmInput = {"size": plan.vllm_size, "keep": plan.keep_vllm}
    return {"vllm": vllm if plan.smoke_test else {**vllm, "smoke_test": False}}


def _requests(plan: Plan, batch_size: int | None) -> list[QuarterInput]:
    return [
        _with_concurrency(
            {"quarter": planned.quarter, "bucket": plan.bucket, "batch_size": batch_size or planned.batch_size}, planned
        )
        for planned in plan.quarters
    ]


def _with_concurrency(request: QuarterInput, planned: QuarterPlan) -> QuarterInput:
    return {**request, "llm_concurrency": planned.in_flight} if planned.in_flight else request
