"""`ftm vllm`: switch the GPUs on and off by hand, and measure them."""

from typing import Annotated

import typer

from cli import output
from cli.commands.logs import FollowOption, SearchOption, SinceOption, print_group
from cli.errors import ExitCode, UsageError, explain
from cli.options import JsonOption, OptionalQuarterArgument, YesOption, parse_levels
from cli.rendering import vllm as rendering
from cli.services import evaluation, executions, gpus, quota
from cli.services import vllm as service
from cli.services.vllm import Vllm
from cli.stack import Stack, connect

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="See, scale and measure the stack's vLLM.")


@app.command()
def status(ctx: typer.Context, as_json: JsonOption = False) -> None:
    """Show the GPU instances: how many, what they cost, how busy they are.

    \b
    Example:
      ftm vllm status --json | jq .minutes_idle
    """
    stack = connect(ctx.obj)
    vllm = service.status(stack)
    use = gpus.use(stack, vllm)
    if as_json:
        output.print_json({**vars(vllm), **use})
        return
    rendering.print_vllm(vllm)
    rendering.print_use(use, vllm.healthy)


@app.command()
def scale(
    ctx: typer.Context,
    size: Annotated[int, typer.Argument(metavar="N", min=0, help="GPU instances; 0 switches vLLM off.")],
    wait: Annotated[bool, typer.Option("--wait", help="Wait until that many are healthy.")] = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Scale to N GPU instances, each with one vLLM.

    An instance costs about $0.40 an hour on Spot until it is scaled to zero.

    \b
    Examples:
      ftm vllm scale 1 --wait
      ftm vllm scale 0
    """
    stack = connect(ctx.obj)
    if size == 0 and (running := executions.any_running(stack)):
        question = f"{running} is running, and its jobs give up some time after vLLM is gone. Scale it to 0?"
        output.confirm(question, yes=yes)
    _check_quota(stack, size)
    if 0 < size < service.status(stack).desired:
        output.hint("waiting for a task to end, so that its instance is removed and no other")
    service.scale(stack, size)
    vllm = wait_until_settled(stack) if wait else service.status(stack)
    _print(vllm, as_json)
    if not wait and not vllm.settled:
        output.hint(f"AWS is working on it; `{stack.command} vllm scale {size} --wait` waits for it")


@app.command()
def smoke(ctx: typer.Context, quarter: OptionalQuarterArgument = None, as_json: JsonOption = False) -> None:
    """Have the stack's vLLM name three topics, as a test.

    A Batch job sends the requests, with the base URL and the image of a run, and checks the answers as a run does. The
    topics are a quarter's, or built in. Exits with 1 when fewer than two of three topics get a name.

    \b
    Examples:
      ftm vllm smoke
      ftm vllm smoke 2023Q1 --json | jq '.topics[].seconds'
    """
    stack = connect(ctx.obj)
    service.check_healthy(stack)
    result = evaluation.smoke_test(stack, quarter)
    if as_json:
        output.print_json(result)
    else:
        rendering.print_smoke(result)
    if not result["passed"]:
        raise typer.Exit(ExitCode.FAILED)


@app.command()
def bench(
    ctx: typer.Context,
    concurrent: Annotated[
        int | None, typer.Option(metavar="N", min=1, max=40, help="Concurrent jobs; by default as many as a run has.")
    ] = None,
    levels: Annotated[
        str, typer.Option(metavar="N,N...", help="Concurrent requests of each job, one level after the other.")
    ] = "1,2,4,8,16,32,64",
    seconds: Annotated[int, typer.Option(metavar="S", min=1, max=600, help="Duration of each level.")] = 20,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure the throughput and latency of the stack's vLLM under load.

    The load comes from Batch jobs of the stack's own job definition, through the worker's own client. The knee is the
    lowest number of concurrent requests that reaches 90% of the peak throughput.

    \b
    Example:
      ftm vllm bench --concurrent 5
    """
    numbers = parse_levels(levels)
    stack = connect(ctx.obj)
    service.check_healthy(stack)
    if running := executions.any_running(stack):
        question = f"{running} is running: both loads would be measured, and the run slows down. Measure anyway?"
        output.confirm(question, yes=yes)
    result = evaluation.load_test(stack, concurrent or executions.check_state_machine(stack), numbers, seconds)
    if as_json:
        output.print_json(result)
    else:
        rendering.print_load(result)


@app.command()
def logs(
    ctx: typer.Context,
    follow: FollowOption = False,
    since: SinceOption = "10m",
    search: SearchOption = "",
    as_json: JsonOption = False,
) -> None:
    """Print the log of the vLLM service.

    \b
    Example:
      ftm vllm logs --since 1h --search ERROR
    """
    stack = connect(ctx.obj)
    service.check_part_of(stack)
    print_group(stack, stack.output("vllm_log_group"), follow, since, search, as_json)


def _check_quota(stack: Stack, size: int) -> None:
    """Warn of a quota that is too small for `size` instances; refuse if not even one fits.

    Raises:
        UsageError: naming the quota and the command that requests more.
    """
    try:
        short = [one for one in quota.quotas(stack, size) if not one.suffices]
    except Exception as error:  # a role that may scale may lack the permission to read quotas
        output.warn(f"the GPU quota could not be checked: {explain(error)[0]}")
        return
    for one in short:
        if one.vcpus * one.instances < one.needed:
            raise UsageError(one.sentence)
        output.warn(one.sentence)


def wait_until_settled(stack: Stack) -> Vllm:
    """Wait until vLLM has the requested size, and print changes meanwhile."""
    try:
        return _wait(stack)
    except KeyboardInterrupt:
        output.warn("Stopped waiting. The scaling request is still in effect.")
        output.hint(f"see it: {stack.command} vllm status; switch it off: {stack.command} vllm scale 0")
        raise


def _wait(stack: Stack) -> Vllm:
    last = ""
    for vllm in service.settle(stack):
        instances = output.count(vllm.instances, "instance")
        words = [f"vLLM: {vllm.healthy} of {vllm.desired} healthy, {vllm.running} running, {instances}"]
        if not vllm.settled and (reason := service.last_word(stack)):
            words.append(reason)
        if last != (last := "; ".join(words)):
            output.hint(last)
    return service.status(stack)


def _print(vllm: Vllm, as_json: bool) -> None:
    if as_json:
        output.print_json(vars(vllm))
    else:
        rendering.print_vllm(vllm)
