"""`ftm vllm`: the GPUs, switched on and off by hand."""

from datetime import datetime
from typing import Annotated

import typer

from cli import output
from cli.errors import CliError
from cli.options import JsonOption, YesOption
from cli.services import executions, load
from cli.services import vllm as service
from cli.services.vllm import Vllm
from cli.stack import Stack, connect

app = typer.Typer(no_args_is_help=True, help="The stack's vLLM: how much of it runs, and scaling it by hand.")


@app.command()
def status(ctx: typer.Context, as_json: JsonOption = False) -> None:
    """Show how many GPU instances are asked for, run, and answer.

    \b
    Example:
      ftm vllm status --json | jq .healthy
    """
    stack = connect(ctx.obj)
    _print(service.status(stack), as_json)


@app.command()
def scale(
    ctx: typer.Context,
    size: Annotated[int, typer.Argument(metavar="N", min=0, help="GPU instances; 0 switches vLLM off.")],
    wait: Annotated[bool, typer.Option("--wait", help="Return when that many answer.")] = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Ask for N GPU instances, each with one vLLM.

    An instance costs about $0.40 an hour on Spot until it is scaled to zero.

    \b
    Examples:
      ftm vllm scale 1 --wait
      ftm vllm scale 0
    """
    stack = connect(ctx.obj)
    if size == 0 and (running := executions.any_running(stack)):
        question = f"{running} is being run, and its jobs give up ten minutes after vLLM is gone. Scale it to 0?"
        if not output.confirm(question, yes=yes):
            raise typer.Abort
    service.scale(stack, size)
    vllm = wait_until_settled(stack) if wait else service.status(stack)
    _print(vllm, as_json)
    if not wait and not vllm.settled:
        output.hint(f"AWS is at it; `{stack.command} vllm scale {size} --wait` waits for it")


@app.command()
def bench(
    ctx: typer.Context,
    concurrent: Annotated[
        int | None, typer.Option(metavar="N", min=1, max=40, help="Jobs at once; as many as a run has if not given.")
    ] = None,
    levels: Annotated[
        str, typer.Option(metavar="N,N...", help="Requests in flight of each job, one level after the other.")
    ] = load.LEVELS,
    seconds: Annotated[int, typer.Option(metavar="S", min=1, max=600, help="Seconds a level.")] = 20,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure the stack's vLLM under the load of N Batch jobs: throughput, latency, and where more is no gain.

    The load comes from the stack's own job definition and queue, through the worker's own client.

    \b
    Example:
      ftm vllm bench --concurrent 5
    """
    numbers = load.parse_levels(levels)
    stack = connect(ctx.obj)
    service.check_healthy(stack)
    if running := executions.any_running(stack):
        question = (
            f"{running} is being run: both loads would be measured, and the run slows down. Measure all the same?"
        )
        if not output.confirm(question, yes=yes):
            raise typer.Abort
    measurement = load.submit(stack, concurrent or executions.check_state_machine(stack), numbers, seconds)
    jobs = output.count(len(measurement.jobs), "job")
    begin = f"{datetime.fromtimestamp(measurement.start):%H:%M:%S}"
    output.hint(f"{jobs} will measure together, from {begin} on, for {load.length(numbers, seconds)} seconds")
    try:
        result = load.collect(stack, measurement, on_change=output.hint)
    except BaseException:
        load.terminate(stack, measurement)
        raise
    if as_json:
        output.print_json(result)
        return
    columns = ("in flight", "requests/s", "p50 s", "p95 s", "tokens/s", "cached", "retries", "errors")
    rows = [
        (
            level["in_flight"],
            f"{level['requests_per_second']:.1f}",
            _seconds(level["p50"]),
            _seconds(level["p95"]),
            f"{level['tokens_per_second']:,.0f}",
            f"{level['cached_share']:.0%}",
            level["retries"],
            level["errors"],
        )
        for level in result["levels"]
    ]
    output.print_table(columns, rows)
    output.print_line(f"the knee: {result['knee']} in flight reach nine tenths of the best throughput")


def wait_until_settled(stack: Stack) -> Vllm:
    """Wait until vLLM is what was asked for, and say on the way what changes."""
    try:
        return _wait(stack)
    except KeyboardInterrupt:
        output.warn("what was asked for stays asked for, and AWS goes on with it")
        output.hint(f"see it: {stack.command} vllm status; switch it off: {stack.command} vllm scale 0")
        raise


def _wait(stack: Stack) -> Vllm:
    told = ""
    vllm: Vllm | None = None
    for vllm in service.settle(stack):
        instances = output.count(vllm.instances, "instance")
        words = [f"vLLM: {vllm.healthy} of {vllm.desired} healthy, {vllm.running} running, {instances}"]
        if not vllm.settled and (reason := service.last_word(stack)):
            words.append(reason)
        if told != (told := "; ".join(words)):
            output.hint(told)
    if vllm is None:
        raise CliError("vLLM was not looked at")
    return vllm


def _seconds(value: float | None) -> str | None:
    return None if value is None else f"{value:.3f}"


def _print(vllm: Vllm, as_json: bool) -> None:
    if as_json:
        output.print_json(vars(vllm))
        return
    columns = ("desired", "instances", "running", "healthy", "maximum", "base URL")
    values = (vllm.desired, vllm.instances, vllm.running, vllm.healthy, vllm.maximum, vllm.base_url)
    output.print_table(columns, [values])
    if vllm.desired_tasks != vllm.desired:
        output.warn(f"the service asks for {vllm.desired_tasks} tasks, the group for {vllm.desired} instances")
