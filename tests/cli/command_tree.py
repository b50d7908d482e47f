"""The commands of `ftm` with their options, as Typer has them."""

from functools import cache
from typing import Any

import typer

from cli.main import app


@cache
def command_tree() -> dict[str, Any]:
    """Every command and group of commands, by its name, such as `vllm scale`."""
    top: Any = typer.main.get_command(app)
    context = top.make_context("ftm", [], resilient_parsing=True)
    found: dict[str, Any] = {}
    for name in top.commands:
        _, command, _ = top.resolve_command(context, [name])
        found[name] = command
        found |= {f"{name} {inner}": each for inner, each in getattr(command, "commands", {}).items()}
    return found
