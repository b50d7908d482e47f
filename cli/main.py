"""The console script `ftm`: global options, the commands, and the one place that reports failures."""

import os
import re
import sys
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from cli import __version__, output
from cli.errors import explain
from cli.stack import Target
from contract import env
from contract.exit_codes import ExitCode

_GLOBAL_OPTIONS = ("--stack", "--region", "--profile", "--project")
"""Global options with a value: accepted before and after the subcommand."""

_COMMANDS = {
    "run-quarter": ("quarter:run_quarter", "Run a quarter: find and name the topics of each firm."),
    "resume": ("quarter:resume", "Process the missing batches and names of a run."),
    "run-quarters": ("quarter:run_quarters", "Run several quarters, one after the other."),
    "watch": ("quarter:watch", "Watch a run, whoever started it, or see how it ended."),
    "stop": ("quarter:stop", "Stop a run and its jobs."),
    "status": ("status:status", "Show all quarters with their last run, or one run."),
    "runs": ("status:runs", "List runs: who, when, how long, counts, model, cost."),
    "logs": ("logs:logs", "Print the workers' log of a run, attempt by attempt."),
    "cost": ("cost:cost", "Estimate a quarter's cost, and show that of its last run."),
    "topics": ("topics:topics", "Show a quarter's topics, or write them to a file."),
    "themes": ("themes:themes", "Cluster the topics of all firms into named themes."),
    "name": ("naming:name", "Name a sample of firms with another LLM, into a file."),
    "compare": ("naming:compare", "Compare two sets of topic names for a quarter."),
    "report": ("report:report", "Write a run's report, one HTML page with charts."),
    "doctor": ("stack:doctor", "Check the deployed stack, and print how to fix problems."),
    "outputs": ("stack:outputs", "Print the stack's outputs."),
    "console": ("stack:console", "Print the AWS console's URL of the stack or of a run."),
    "prefetch": ("prefetch:app", "Upload a quarter's sentences, and see what is there."),
    "vllm": ("vllm:app", "See, scale and measure the stack's vLLM."),
    "functions": ("logs:functions", "The Lambda functions of the state machine."),
    "local": ("local:app", "Start and stop the stack `local`, an AWS on this machine."),
}
"""Each command's place below `cli.commands`, and the first line of its help.

Only the command that runs is imported: importing all of them takes longer than the rest of `ftm --help`.
"""

_VALIDATOR_WORDING = (
    (r"Input should be a valid (?:integer|number)\b.*", "it is not a whole number"),
    (r"Input should be greater than or equal to (\S+)", r"it must be at least \1"),
    (r"Input should be less than or equal to (\S+)", r"it must be at most \1"),
)


class _Group(TyperGroup):
    """The top command: reports whatever a command raises as one sentence and an exit code."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        output.expect_json("--json" in args)
        return super().parse_args(ctx, _move_global_options_first(args))

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        return name, _load(name) if name else command, rest

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
        typer.echo(f"ftm {__version__}")
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
    verbose: Annotated[bool, typer.Option("--verbose", help="Print where the stack's outputs come from.")] = False,
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
    4 credentials or permission, 5 conflict (already running), 6 lost the
    connection to the run, which continues, 130 interrupted.
    """
    if project:
        os.environ[env.FTM_PROJECT] = project  # the processes that ftm starts must find the same project
    ctx.obj = Target(stack_name, region, profile, verbose)


def _imported_when_it_runs() -> None:
    """Registered for every command, so that Typer can list, complete and suggest it."""


for _name, (_, _summary) in _COMMANDS.items():
    app.command(_name, help=_summary)(_imported_when_it_runs)


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


def _load(name: str) -> Any:
    """Import a command, or a group of commands."""
    module, attribute = _COMMANDS[name][0].split(":")
    found = getattr(import_module(f"cli.commands.{module}"), attribute)
    if isinstance(found, typer.Typer):
        return typer.main.get_group(found)
    single = typer.Typer(rich_markup_mode=None, add_completion=False)
    single.command(name)(found)
    return typer.main.get_command(single)


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
