"""Follows an execution to its end for the commands that start or watch one, and exits with the code of that end."""

from dataclasses import replace

import typer

from cli import output
from cli.errors import explain
from cli.rendering import runs as rendering
from cli.services import executions, quarters, runs, vllm
from cli.services.executions import Execution
from cli.services.quarters import QuartersSnapshot
from cli.services.retries import LostConnectionError, Retries
from cli.services.runs import Report, RunSnapshot
from cli.services.stalls import last_line
from cli.stack import Stack
from contract.exit_codes import ExitCode
from contract.run import Failure


def follow(stack: Stack, execution: Execution, *, detach: bool, as_json: bool, quarter: str | None = None) -> None:
    """Watch an execution and exit with the code of its end; with `detach`, only print how to watch it.

    Args:
        quarter: the only quarter of a list, which is followed as if it had been started alone.
    """
    output.hint(f"execution {execution.arn}")
    if detach:
        _detach(stack, execution, quarter, as_json)
        return
    try:
        if quarter is None and "quarters" in execution.input:
            _follow_quarters(stack, execution, as_json)
        else:
            _follow_quarter(stack, execution, quarter, as_json)
    except KeyboardInterrupt:
        output.warn(f"{_what(execution, quarter)} continues in AWS: {execution.arn}")
        _print_follow_up(stack, execution, quarter)
        raise typer.Exit(ExitCode.INTERRUPTED) from None


def print_end(stack: Stack, report: Report, as_json: bool) -> None:
    """How a run ended and what to do next; exits with the code of that end."""
    if as_json:
        output.print_json(report)
        rendering.print_failures(report["failures"], report["message"], err=True)
    else:
        rendering.print_report(report)
    if failure := next((failure for failure in report["failures"] if "log_stream" in failure), None):
        _print_last_line(stack, failure)
        batch = f"--run {report['run']} --batch {failure['batch_id']}"
        output.hint(f"see its log: {stack.command} logs {report['quarter']} {batch}")
    elif report["fallbacks"]:
        search = '--search "keep their keywords"'
        output.hint(
            f"see the reasons batch by batch: {stack.command} logs {report['quarter']} --run {report['run']} {search}"
        )
    failed = report["status"] != "SUCCEEDED"
    if failed:
        _print_next_step(stack, report)
    else:
        output.hint(f"see the topics: {stack.command} topics {report['quarter']}")
    _exit(stack, failed)


def _detach(stack: Stack, execution: Execution, quarter: str | None, as_json: bool) -> None:
    if not as_json:
        output.print_line(execution.arn)
    elif quarter is None and "quarters" in execution.input:
        output.print_json(quarters.report(stack, QuartersSnapshot(execution, [], {})))
    else:
        output.print_json(runs.report(_first_snapshot(execution), None))
    _print_follow_up(stack, execution, quarter)


def _first_snapshot(execution: Execution) -> RunSnapshot:
    """Of a quarter's own execution, or of the list that it is the only one of."""
    (item,) = execution.input.get("quarters", [execution.input])
    return RunSnapshot(replace(execution, input=item))


def _follow_quarter(stack: Stack, execution: Execution, quarter: str | None, as_json: bool) -> None:
    retries = Retries(stack, output.warn)
    snapshot = _first_snapshot(execution)
    watch = quarters.watch_only if "quarters" in execution.input else runs.watch
    try:
        with rendering.Progress(rendering.render_run, rendering.describe_run) as progress:
            for snapshot in watch(stack, execution, retries):
                progress.show(snapshot)
        summary = retries.call(lambda: executions.summary_of(stack, snapshot.execution))
    except LostConnectionError as error:
        if as_json:
            output.print_json(runs.report(snapshot, None, status="UNKNOWN"))
        raise _lost_connection(stack, execution, quarter, error) from error
    print_end(stack, runs.report(snapshot, summary), as_json)


def _follow_quarters(stack: Stack, execution: Execution, as_json: bool) -> None:
    retries = Retries(stack, output.warn)
    snapshot = QuartersSnapshot(execution, [], {})
    try:
        with rendering.Progress(rendering.render_quarters, rendering.describe_quarters) as progress:
            for snapshot in quarters.watch(stack, execution, retries):
                progress.show(snapshot)
        report = retries.call(lambda: quarters.report(stack, snapshot))
    except LostConnectionError as error:
        if as_json:
            output.print_json(quarters.report_unknown(snapshot))
        raise _lost_connection(stack, execution, None, error) from error
    if as_json:
        output.print_json(report)
    else:
        rendering.print_quarters(report)
    for child in report["quarters"]:
        if child["quarter"] in report["failed"]:
            output.warn(f"{child['quarter']} failed: {child['message']}")
            _print_next_step(stack, child)
    failed = report["status"] != "SUCCEEDED"
    if failed and not report["failed"]:
        output.warn(executions.reason(snapshot.execution))
    _exit(stack, failed)


def _lost_connection(
    stack: Stack, execution: Execution, quarter: str | None, error: LostConnectionError
) -> LostConnectionError:
    what = _what(execution, quarter)
    watch = " ".join(filter(None, (stack.command, "watch", quarter or execution.input.get("quarter"))))
    return LostConnectionError(
        f"lost the connection to {what} ({error}). The run continues; watch it again with `{watch}`"
    )


def _print_follow_up(stack: Stack, execution: Execution, quarter: str | None) -> None:
    quarter = quarter or execution.input.get("quarter")
    output.hint(f"watch it: {' '.join(filter(None, (stack.command, 'watch', quarter)))}")
    output.hint(f"stop it:  {' '.join(filter(None, (stack.command, 'stop', quarter)))}")
    output.hint(f"          or {stack.aws_command(f'stepfunctions stop-execution --execution-arn {execution.arn}')}")


def _print_next_step(stack: Stack, report: Report) -> None:
    """What to do after a run that has failed."""
    quarter, run, batches = report["quarter"], report["run"], report["batches"]
    if not run:
        return
    if batches["succeeded"] < batches["total"]:
        output.hint(f"process the batches that are not complete: {stack.command} resume {quarter} {run}")
    elif report["topics"]["total"]:  # too few topics were named
        output.hint(f"see what was named:        {stack.command} topics {quarter} --run {run}")
        output.hint(f"ask for the missing names: {stack.command} resume {quarter} {run}")


def _print_last_line(stack: Stack, failure: Failure) -> None:
    """Print the last line of the worker's log, which says more than Batch's reason."""
    try:
        line = last_line(stack, failure.get("log_stream", ""))
    except Exception:  # the run has ended: a log that cannot be read must not change the exit code
        return
    if line:
        output.hint(f"{failure['batch_id']} last logged: {line}")


def _exit(stack: Stack, failed: bool) -> None:
    if vllm.is_part_of(stack):
        _remind_of_gpus(stack)
    raise typer.Exit(ExitCode.FAILED if failed else ExitCode.DONE)


def _remind_of_gpus(stack: Stack) -> None:
    try:
        lists = executions.running_quarters(stack)
        left = vllm.status(stack).desired
    except Exception as error:  # the run has ended: a reminder that fails must not change the exit code
        output.warn(f"the state of vLLM is unknown: {explain(error)[0]}")
        return
    if left and (bracket := next(filter(executions.switches_vllm_off, lists), None)):
        output.hint(f"AWS switches vLLM off at the end of {bracket.name}")
    elif left:
        output.hint(f"vLLM still runs on {output.count(left, 'GPU')}; switch it off: {stack.command} vllm scale 0")


def _what(execution: Execution, quarter: str | None) -> str:
    return quarter or str(execution.input.get("quarter", "the list of quarters"))
