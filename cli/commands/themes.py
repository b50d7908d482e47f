"""`ftm themes`: the subjects that topics of many firms share."""

from typing import Annotated, Any, TypedDict

import typer

from cli import output
from cli.completion import complete_quarter
from cli.options import DetachOption, DryRunOption, JsonOption, YesOption
from cli.rendering import themes as rendering
from cli.services import themes as service
from cli.services import vllm
from cli.stack import Stack, connect
from contract.layout import check_run
from contract.quarter import quarters_of
from contract.themes import ThemesRef


class PlannedThemes(TypedDict):
    """What `ftm themes --dry-run --json` prints."""

    range: str
    quarters: list[dict[str, Any]]


class SubmittedThemes(TypedDict):
    """What `ftm themes --detach --json` prints."""

    range: str
    run: str
    job_id: str


def parse_range(text: str) -> str:
    """The range as it is written in the bucket; `2021q2..2021q4` is understood."""
    quarters = quarters_of(text.strip().upper())
    return quarters[0] if len(quarters) == 1 else f"{quarters[0]}..{quarters[-1]}"


def themes(
    ctx: typer.Context,
    range_: Annotated[
        str,
        typer.Argument(
            metavar="QUARTERS",
            callback=parse_range,
            autocompletion=complete_quarter,
            help="A quarter or a range: 2021Q2..2021Q4.",
        ),
    ],
    run: Annotated[
        str | None, typer.Option(metavar="RUN", help="Show the results of this themes run, or of the `last` one.")
    ] = None,
    detach: DetachOption = False,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Cluster the topics of all firms into named themes.

    One Batch job reads the topics of each quarter's last run that succeeded.

    \b
    Examples:
      ftm themes 2023Q1
      ftm themes 2021Q2..2021Q4 --yes --json
      ftm themes 2023Q1 --run last
    """
    stack = connect(ctx.obj)
    if run:
        ref = service.latest(stack, range_).ref if run == "last" else ThemesRef(range_, check_run(run))
    else:
        found = _find(stack, range_, detach=detach, dry_run=dry_run, yes=yes, as_json=as_json)
        if found is None:
            return
        ref = found
    results = service.read(stack, ref)
    if as_json:
        output.print_json(results)
        return
    rendering.print_themes(results)


def _find(stack: Stack, range_: str, *, detach: bool, dry_run: bool, yes: bool, as_json: bool) -> ThemesRef | None:
    """Run the job; None when it was only planned, or continues without this command."""
    planned = service.plan(stack, range_)
    if vllm.is_part_of(stack):
        vllm.check_healthy(stack)
    rendering.print_plan(planned)
    if dry_run:
        if as_json:
            plan: PlannedThemes = {"range": range_, "quarters": [vars(each) for each in planned]}
            output.print_json(plan)
        else:
            output.hint("dry run: nothing was started")
        return None
    output.confirm("Find the themes?", yes=yes)
    ref, job_id = service.submit(stack, range_, planned)
    output.hint(f"themes run {ref.run} of {range_} was submitted as job {job_id}")
    if detach:
        if as_json:
            submitted: SubmittedThemes = {"range": range_, "run": ref.run, "job_id": job_id}
            output.print_json(submitted)
        return None
    last = None
    shown = ""
    for last in service.watch(stack, ref, job_id):
        if shown != (shown := rendering.progress_line(last)):
            output.hint(shown)
    if last:
        service.check_succeeded(ref, last)
        if last.record:
            rendering.print_unnamed(last.record)
    return ref
