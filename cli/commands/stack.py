"""`ftm doctor`, `ftm outputs` and `ftm console`: the stack itself."""

from typing import Annotated, TypedDict

import typer

from cli import output
from cli.completion import complete_output, complete_quarter
from cli.errors import NotFoundError
from cli.options import JsonOption, parse_quarter_or_run
from cli.services import doctor as service
from cli.services import executions, history, runs
from cli.stack import Stack, connect
from contract.exit_codes import ExitCode


class ConsoleAddress(TypedDict):
    """What `ftm console --json` prints."""

    url: str


_SIGNS = {"ok": "ok", "warning": "WARNING", "failure": "FAILURE"}


def doctor(ctx: typer.Context, as_json: JsonOption = False) -> None:
    """Check the deployed stack, and print how to fix problems.

    Credentials, region, outputs, permissions, quota, image, prefetch, queue, vLLM, targets, idle GPUs, alarms. Exits
    with 1 if a check fails; warnings do not count.

    \b
    Examples:
      ftm doctor
      ftm doctor --json | jq '.[] | select(.level != "ok")'
    """
    findings = service.examine(connect(ctx.obj))
    if as_json:
        output.print_json([vars(finding) for finding in findings])
    else:
        rows = [(finding.check, _SIGNS[finding.level], finding.text) for finding in findings]
        output.print_table(("check", "result", "finding"), rows, wrap=("finding",))
    levels = [finding.level for finding in findings]
    failures, warnings = levels.count("failure"), levels.count("warning")
    output.hint(f"{output.count(failures, 'failure')}, {output.count(warnings, 'warning')}")
    if failures:
        raise typer.Exit(ExitCode.FAILED)


def outputs(
    ctx: typer.Context,
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", autocompletion=complete_output, help="Only this output.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Print the stack's outputs.

    \b
    Examples:
      ftm outputs
      aws s3 ls "s3://$(ftm outputs bucket)"
    """
    stack = connect(ctx.obj)
    if name is not None and name not in stack.outputs:
        raise NotFoundError(f"the stack {stack.name} has no output {name!r}; it has {', '.join(sorted(stack.outputs))}")
    if as_json:
        output.print_json(stack.outputs[name] if name else dict(stack.outputs))
    elif name:
        output.print_line(str(stack.outputs[name]))
    else:
        output.print_pairs([(key, str(value)) for key, value in sorted(stack.outputs.items())])


def console(
    ctx: typer.Context,
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="[QUARTER|RUN]", autocompletion=complete_quarter, help="A run; the state machine if not given."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Print the AWS console's URL of the stack or of a run.

    \b
    Examples:
      open "$(ftm console)"
      ftm console 2023Q1
    """
    stack = connect(ctx.obj)
    if stack.endpoint:
        raise NotFoundError("the stack local has no AWS console: its APIs answer at " + stack.endpoint)
    base = f"https://{stack.region}.console.aws.amazon.com/states/home?region={stack.region}"
    arn = _execution_of(stack, what) if what else stack.output("state_machine_arn")
    url = f"{base}#/{'v2/executions/details' if what else 'statemachines/view'}/{arn}"
    if as_json:
        document: ConsoleAddress = {"url": url}
        output.print_json(document)
    else:
        output.print_line(url)


def _execution_of(stack: Stack, what: str) -> str:
    ref = history.find_run(stack, parse_quarter_or_run(what))
    if record := runs.record_of(stack, ref):
        return record["execution"]
    if running := executions.running(stack, ref.quarter):
        return running.arn
    raise NotFoundError(
        f"the execution of run {ref.run} is not recorded: see the state machine with `{stack.command} console`"
    )
