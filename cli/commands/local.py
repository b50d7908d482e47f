"""`ftm local`: the stack `local`, an AWS of this machine's own."""

from typing import TYPE_CHECKING, Annotated

import typer

from cli import output
from cli.errors import NotFoundError
from cli.options import JsonOption

if TYPE_CHECKING:
    from local.state import LocalState

app = typer.Typer(no_args_is_help=True, help="The stack `local`: the same program on an AWS of this machine's own.")


@app.command()
def up(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on the loopback; 0 takes a free one.")] = 0,
    llm_url: Annotated[
        str | None, typer.Option(metavar="URL", help="A real OpenAI-compatible server, in place of the stand-in.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Start the embedded AWS and deploy the program to it.

    \b
    Examples:
      ftm local up
      ftm local up --llm-url http://127.0.0.1:8000/v1
    """
    from local import daemon

    result = daemon.up(port=port, llm_url=llm_url)
    if result.already:
        output.hint("it runs already")
    _print(result.state, as_json)
    if not as_json:
        output.hint("next: ftm --stack local prefetch sample 2023Q1")


@app.command()
def status(as_json: JsonOption = False) -> None:
    """Show the embedded AWS and what is deployed on it."""
    from local import daemon

    found = daemon.status()
    if found.stale:
        raise NotFoundError("the embedded AWS has died and left its state behind: `ftm local up` starts it anew")
    if found.state is None:
        raise NotFoundError("the embedded AWS is not up: `ftm local up` starts it")
    _print(found.state, as_json)


@app.command()
def down(as_json: JsonOption = False) -> None:
    """Stop the embedded AWS; what it holds is in memory, and is gone with it."""
    from local import daemon

    result = daemon.down()
    if as_json:
        output.print_json({"pid": result.pid, "stale": result.stale})
    elif result.pid is not None:
        output.print_line(f"stopped the embedded AWS (process {result.pid}), and with it all that it held")
    elif result.stale:
        output.print_line("it had died already; what it left behind is cleared")
    else:
        output.print_line("it was not up")


def _print(state: "LocalState", as_json: bool) -> None:
    if as_json:
        document = {"pid": state.pid, "endpoint": state.endpoint, "region": state.region, "outputs": state.outputs}
        output.print_json({**document, "llm": vars(state.llm), "started_at": state.started_at})
        return
    llm = f"{state.llm.model} (a stand-in: names topics from their keywords)" if state.llm.stand_in else state.llm.url
    rows = [
        ("endpoint", state.endpoint),
        ("process", str(state.pid)),
        ("up since", state.started_at),
        ("LLM", llm),
        ("bucket", state.outputs.get("bucket")),
    ]
    output.print_table(("stack local", ""), rows)
