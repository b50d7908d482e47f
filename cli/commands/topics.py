"""`ftm topics`: what a run has found."""

from collections.abc import Sequence
from typing import Annotated

import typer

from cli import output
from cli.completion import complete_firm
from cli.options import JsonOption, QuarterArgument, RunOption
from cli.services import topics as service
from cli.services.topics import Topic
from cli.stack import connect


def topics(
    ctx: typer.Context,
    quarter: QuarterArgument,
    firm: Annotated[
        str | None, typer.Option(metavar="FIRM", autocompletion=complete_firm, help="Only this firm's, by its id.")
    ] = None,
    run: RunOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the topics of a quarter's last successful run.

    \b
    Examples:
      ftm topics 2023Q1 --firm AAPL
      ftm topics 2023Q1 --json | jq -r '.[].name'
    """
    found = service.read(connect(ctx.obj), quarter, run=run, firm=firm)
    if as_json:
        output.print_json(found)
        return
    _print(found)
    named = sum(topic["naming_method"] == "llm" for topic in found)
    firms = len({topic["firm_id"] for topic in found})
    topic_count, firm_count = output.count(len(found), "topic"), output.count(firms, "firm")
    output.hint(f"{topic_count} of {firm_count}, {named:,} named by the LLM")


def _print(found: Sequence[Topic]) -> None:
    rows = [
        (
            topic["firm_id"],
            topic["topic_id"],
            topic["name"],
            topic["n_sentences"],
            ", ".join(topic["keywords"][:6]),
            topic["naming_method"],
        )
        for topic in found
    ]
    output.print_table(("firm", "topic", "name", "sentences", "keywords", "named by"), rows)
