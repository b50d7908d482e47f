"""`ftm local`: the stack `local`, on an embedded AWS on this machine."""

import os
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

import typer

from cli import output
from cli.errors import ConflictError, NotFoundError, UsageError
from cli.options import JsonOption, check_url
from contract import env

if TYPE_CHECKING:
    from local.state import LocalState


class LocalStatus(TypedDict):
    """What `ftm local up --json` and `ftm local status --json` print."""

    pid: int
    endpoint: str
    region: str
    outputs: dict[str, Any]
    llm: dict[str, Any]
    """`model`, `fake` and `url`."""
    started_at: str


class StoppedLocal(TypedDict):
    """What `ftm local down --json` prints."""

    pid: int | None
    """The process that was stopped; null when the embedded AWS was not up."""
    stale: bool
    """Whether it had died before."""


app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Start and stop the stack `local`, an AWS on this machine.",
)


@app.command()
def up(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on the loopback; 0 takes a free one.")] = 0,
    llm_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            callback=check_url,
            help=f"A real OpenAI-compatible server instead of the fake vLLM; its key is read from {env.LLM_API_KEY}.",
        ),
    ] = None,
    llm_model: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help=f"The server's model, if it has several; by default {env.LLM_MODEL_NAME}."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Start the embedded AWS and deploy the program to it.

    \b
    Examples:
      ftm local up
      ftm local up --llm-url http://127.0.0.1:8000/v1
      ftm local up --llm-url http://127.0.0.1:4000/v1 --llm-model qwen3-8b
    """
    from local import daemon

    if llm_model and not llm_url:
        raise UsageError("--llm-model needs --llm-url: the fake vLLM has only one model")
    if llm_url:
        llm_model = llm_model or os.environ.get(env.LLM_MODEL_NAME)
    options = daemon.Options(port, llm_url, llm_model)
    result = daemon.up(options)
    if result.already:
        if different := options.differences(result.state):
            raise ConflictError(
                f"it is already up, without {' and '.join(different)}: `ftm local down` first (everything in its "
                "memory is lost), then `ftm local up` again"
            )
        output.hint("it is already up")
    _print(result.state, as_json)
    if not as_json:
        output.hint("next: ftm --stack local prefetch sample 2023Q1")


@app.command()
def status(as_json: JsonOption = False) -> None:
    """Show the embedded AWS and what is deployed on it.

    \b
    Examples:
      ftm local status
      ftm local status --json | jq -r .endpoint
    """
    from local import daemon

    found = daemon.status()
    if found.stale:
        raise NotFoundError("the embedded AWS has died and everything in it is lost: `ftm local up` starts a new one")
    if found.state is None:
        raise NotFoundError("the embedded AWS is not up: `ftm local up` starts it")
    _print(found.state, as_json)


@app.command()
def down(as_json: JsonOption = False) -> None:
    """Stop the embedded AWS and delete everything in it.

    \b
    Example:
      ftm local down
    """
    from local import daemon

    result = daemon.down()
    if as_json:
        stopped: StoppedLocal = {"pid": result.pid, "stale": result.stale}
        output.print_json(stopped)
    elif result.pid is not None:
        output.print_line(f"stopped the embedded AWS (process {result.pid}); everything in it is gone")
    elif result.stale:
        output.print_line("it had already died; its record is removed")
    else:
        output.print_line("it was not up")


def _print(state: "LocalState", as_json: bool) -> None:
    if as_json:
        document: LocalStatus = {
            "pid": state.pid,
            "endpoint": state.endpoint,
            "region": state.region,
            "outputs": state.outputs,
            "llm": vars(state.llm),
            "started_at": state.started_at,
        }
        output.print_json(document)
        return
    source = "the fake vLLM, which names topics from their keywords" if state.llm.fake else state.llm.url
    rows = [
        ("endpoint", state.endpoint),
        ("process", str(state.pid)),
        ("up since", state.started_at),
        ("LLM", f"{state.llm.model} ({source})"),
        ("bucket", str(state.outputs.get("bucket"))),
    ]
    output.print_pairs(rows)
