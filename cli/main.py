"""The console script `ftm`: global options, the commands, and the one place that reports failures."""

import os
import re
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from cli import output
from cli.commands import cost, local, logs, naming, prefetch, quarter, report, stack, status, themes, topics, vllm
from cli.errors import explain
from cli.stack import Target
from contract import env
from contract.exit_codes import ExitCode

_GLOBAL_OPTIONS = ("--stack", "--region", "--profile", "--project")
"""Global options with a value: accepted before and after the subcommand."""

_VALIDATOR_WORDING = (
    (r"Input should be a valid (?:integer|number)\b.*", "it is not a whole number"),
    (r"Input should be greater than or equal to (\S+)", r"it must be at least \1"),
    (r"Input should be less than or equal to (\S+)", r"it must be at most \1"),
)


class _Group(TyperGroup):
    """The top command: whatever a command raises ends here, as one sentence and an exit code."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        output.expect_json("--json" in args)
        return super().parse_args(ctx, _move_global_options_first(args))

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (typer.Exit, BrokenPipeError):
            raise
        except typer.TyperException as error:
            error.message = _plain(error.message)
            output.print_error_document(error.format_message(), ExitCode.USAGE)
            raise
        except (typer.Abort, KeyboardInterrupt) as error:
            output.hint("Interrupted.")
            raise typer.Exit(ExitCode.INTERRUPTED) from error
        except Exception as error:
            if os.environ.get("FTM_DEBUG"):
                raise
            sentence, code = explain(error)
            output.print_error_document(sentence, code)
            output.fail(sentence)
            raise typer.Exit(code) from error


# Plain help starts twice as fast as rich's, and does not wrap sentences into boxes.
app = typer.Typer(cls=_Group, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"ftm {version('ftm')}")
        raise typer.Exit


@app.callback()
def choose_stack(
    ctx: typer.Context,
    stack_name: Annotated[
        str, typer.Option("--stack", envvar="FTM_STACK", help="The Pulumi stack to work on.")
    ] = "prod",
    region: Annotated[str | None, typer.Option(help="AWS region, if not the stack's own.")] = None,
    profile: Annotated[str | None, typer.Option(help="AWS profile, if not AWS_PROFILE's.")] = None,
    project: Annotated[
        str | None,
        typer.Option(metavar="DIR", envvar=env.FTM_PROJECT, help="Checkout of ftm, if ftm is installed elsewhere."),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Say where the stack's outputs come from.")] = False,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Financial topic modelling over a quarter of earnings calls.

    \b
    On this machine, without an AWS account:
      ftm local up
      ftm --stack local prefetch sample 2023Q1
      ftm --stack local vllm scale 1
      ftm --stack local run-quarter 2023Q1
      ftm --stack local topics 2023Q1

    Exit codes: 0 done, 1 the run failed, 2 usage or invalid input, 3 not found,
    4 credentials or permission, 5 conflict (already running), 6 lost sight of the
    run, which continues, 130 interrupted.
    """
    if project:
        os.environ[env.FTM_PROJECT] = project  # the processes that ftm starts must find the same project
    ctx.obj = Target(stack_name, region, profile, verbose)


app.command()(quarter.run_quarter)
app.command()(quarter.resume)
app.command()(quarter.run_quarters)
app.command()(quarter.watch)
app.command()(quarter.stop)
app.command()(status.status)
app.command()(status.runs)
app.command()(logs.logs)
app.command()(cost.cost)
app.command()(topics.topics)
app.command()(themes.themes)
app.command()(naming.name)
app.command()(naming.compare)
app.command()(report.report)
app.command()(stack.doctor)
app.command()(stack.outputs)
app.command()(stack.console)
app.add_typer(prefetch.app, name="prefetch")
app.add_typer(vllm.app, name="vllm")
app.add_typer(logs.functions, name="functions")
app.add_typer(local.app, name="local")


def main() -> None:
    """Run `ftm` on this process's arguments."""
    try:
        app(prog_name="ftm")
    except KeyboardInterrupt:  # before or after the command itself
        sys.exit(ExitCode.INTERRUPTED)
    except OSError as error:  # help, or a failure's document, cannot be printed: a full disk behind stdout
        sentence, code = explain(error)
        output.fail(sentence)
        sys.exit(code)


def _plain(message: str) -> str:
    """An error message of Typer without the wording of the library that validates its values."""
    for pattern, words in _VALIDATOR_WORDING:
        message = re.sub(pattern, words, message)
    return message


def _move_global_options_first(args: list[str]) -> list[str]:
    """`ftm topics 2023Q1 --stack local` as `ftm --stack local topics 2023Q1`; nothing after `--` is moved."""
    end = args.index("--") if "--" in args else len(args)
    first: list[str] = []
    rest: list[str] = []
    position = 0
    while position < end:
        word = args[position]
        if word in _GLOBAL_OPTIONS and position + 1 < end:
            first += args[position : position + 2]
            position += 2
            continue
        (
            first if word == "--verbose" or word.startswith(tuple(f"{name}=" for name in _GLOBAL_OPTIONS)) else rest
        ).append(word)
        position += 1
    return first + rest + args[end:]
