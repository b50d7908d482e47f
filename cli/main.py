"""The console script `ftm`: global options, the commands, and failures told in one place."""

import os
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from cli import output
from cli.commands import local, naming, prefetch, quarter, topics, vllm
from cli.errors import explain
from cli.stack import Target
from contract import env


class _Group(TyperGroup):
    """The top command: what any command raises ends here, as a sentence and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort, typer.TyperException, BrokenPipeError):
            raise  # Typer's own ways to end
        except Exception as error:
            if os.environ.get("FTM_DEBUG"):
                raise
            sentence, code = explain(error)
            output.fail(sentence)
            raise typer.Exit(code) from error


# Plain help starts twice as fast as rich's, and wraps no sentence into a box.
app = typer.Typer(cls=_Group, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.callback()
def choose_stack(
    ctx: typer.Context,
    stack: Annotated[str, typer.Option(envvar="FTM_STACK", help="The Pulumi stack to work on.")] = "prod",
    region: Annotated[str | None, typer.Option(help="AWS region, if not the stack's own.")] = None,
    profile: Annotated[str | None, typer.Option(help="AWS profile, if not AWS_PROFILE's.")] = None,
    project: Annotated[
        str | None,
        typer.Option(metavar="DIR", envvar=env.FTM_PROJECT, help="Checkout of ftm, if ftm is installed elsewhere."),
    ] = None,
) -> None:
    """Financial topic modelling over a quarter of earnings calls.

    \b
    On this machine, without an AWS account:
      ftm local up
      ftm --stack local prefetch sample 2023Q1
      ftm --stack local vllm scale 1
      ftm --stack local run-quarter 2023Q1
      ftm --stack local topics 2023Q1

    Exit codes: 0 done, 1 the run failed, 2 usage or invalid input, 3 not found, 4 credentials or permission,
    5 conflict (already running).
    """
    if project:
        os.environ[env.FTM_PROJECT] = project  # the processes that ftm starts must find the same project
    ctx.obj = Target(stack, region, profile)


app.command()(quarter.run_quarter)
app.command()(quarter.resume)
app.command()(quarter.run_quarters)
app.command()(quarter.watch)
app.command()(quarter.stop)
app.command()(topics.topics)
app.command()(naming.name)
app.command()(naming.compare)
app.add_typer(prefetch.app, name="prefetch")
app.add_typer(vllm.app, name="vllm")
app.add_typer(local.app, name="local")


def main() -> None:
    """Run `ftm` on this process's arguments."""
    app(prog_name="ftm")
