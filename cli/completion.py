"""What the shell completes: run ids, asked of the bucket."""

from typing import Any

import typer

from cli.stack import Target, connect


def complete_run(ctx: typer.Context, incomplete: str) -> list[str]:
    """The ids of the quarter's runs, the newest first; none when the stack cannot be asked."""
    from cli.services import runs

    top: Any = ctx.find_root().params
    quarter = str(ctx.params.get("quarter", ""))
    try:
        stack = connect(Target(str(top.get("stack") or "prod"), top.get("region"), top.get("profile")))
        return [run for run in runs.runs_of(stack, quarter) if run.startswith(incomplete)]
    except Exception:
        return []  # a shell that completes has no place for an error
