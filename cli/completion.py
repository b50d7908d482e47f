"""Shell completion of quarters, runs, firms and batches, from the bucket.

A completion must never print an error: if the stack cannot be read, there is nothing to complete.
"""

from collections.abc import Callable, Iterable
from typing import Any

import typer

from cli.stack import Stack, Target, connect
from contract import ContractError
from contract.layout import RunRef
from contract.quarter import check_quarter


def complete_quarter(ctx: typer.Context, incomplete: str) -> list[str]:
    """The quarters that have a prefetch, the newest first."""
    from cli.services import prefetch

    return _complete(ctx, incomplete.upper(), lambda stack, _: prefetch.quarters_of(stack))


def complete_run(ctx: typer.Context, incomplete: str) -> list[str]:
    """The ids of the quarter's runs, the newest first."""
    from cli.services import runs

    return _complete(ctx, incomplete, runs.runs_of)


def complete_firm(ctx: typer.Context, incomplete: str) -> list[str]:
    """The firms of the quarter's prefetch."""
    from cli.services import prefetch

    return _complete(ctx, incomplete, lambda stack, quarter: sorted(prefetch.of_stack(stack, quarter).firm_to_chunk))


def complete_batch(ctx: typer.Context, incomplete: str) -> list[str]:
    """The batches of the run given by --run, or of the quarter's newest run."""
    from cli.services import resumption

    def batches(stack: Stack, quarter: str) -> list[str]:
        ref = RunRef(quarter, ctx.params.get("run") or resumption.newest_run(stack, quarter))
        return [line.batch_id for line in resumption.batch_lines(stack, ref)]

    return _complete(ctx, incomplete, batches)


def complete_output(ctx: typer.Context, incomplete: str) -> list[str]:
    """The names of the stack's outputs."""
    return _complete(ctx, incomplete, lambda stack, _: sorted(stack.outputs))


def complete_function(incomplete: str) -> list[str]:
    """The Lambda functions that have logs."""
    from cli.services import logs

    return [name for name in logs.FUNCTIONS if name.startswith(incomplete)]


def _complete(ctx: typer.Context, incomplete: str, find: Callable[[Stack, str], Iterable[str]]) -> list[str]:
    top: Any = ctx.find_root().params
    # While the value of an option is completed, the arguments before it are not parsed yet.
    words = (str(word).upper() for word in (ctx.params.get("quarter"), *ctx.args) if word)
    quarter = next((word for word in words if _is_quarter(word)), "")
    try:
        stack = connect(Target(str(top.get("stack_name") or "prod"), top.get("region"), top.get("profile")))
        return [word for word in find(stack, quarter) if word.startswith(incomplete)]
    except Exception:
        return []


def _is_quarter(word: str) -> bool:
    try:
        return bool(check_quarter(word))
    except ContractError:
        return False
