"""`ftm cost`: what a quarter would cost, and what its last run did cost."""

from typing import Annotated

import typer

from cli import output
from cli.errors import NotFoundError
from cli.options import JsonOption, QuarterArgument
from cli.rendering import cost as rendering
from cli.services import cost as service
from cli.services import executions, prefetch, runs, vllm
from cli.stack import connect


def cost(
    ctx: typer.Context,
    quarter: QuarterArgument,
    firms: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Estimate N firms; by default those of the prefetch.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Estimate a quarter's cost, and show that of its last run.

    The estimate uses the rates of the newest successful run, and live Spot prices if EC2 provides them.

    \b
    Examples:
      ftm cost 2023Q1
      ftm cost 2023Q1 --firms 5000 --json | jq .estimate.dollars
    """
    stack = connect(ctx.obj)
    record = runs.newest_record(stack, quarter)
    try:
        count = firms or len(prefetch.of_stack(stack, quarter).firm_to_chunk)
    except NotFoundError as error:
        raise NotFoundError(f"{error}, or pass --firms N") from error
    found = vllm.status(stack) if vllm.is_part_of(stack) else None
    estimate = service.estimate(
        stack,
        count,
        gpus=max(found.desired, 1) if found else 0,
        at_once=executions.check_state_machine(stack),
        cold=bool(found and not found.healthy),
    )
    spent = service.spent(stack, record) if record else None
    if as_json:
        output.print_json({"quarter": quarter, "estimate": estimate, "last_run": spent})
        return
    rendering.print_estimate(estimate)
    if spent:
        rendering.print_spent(spent)
