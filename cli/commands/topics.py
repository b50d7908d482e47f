"""`ftm topics`: the topics of a run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from cli import output
from cli.commands.themes import parse_range
from cli.completion import complete_firm
from cli.errors import UsageError
from cli.options import JsonOption, QuarterArgument, RunOption
from cli.services import topic_files
from cli.services import topics as service
from cli.services.topics import Topic
from cli.stack import Stack, connect
from contract.layout import RunRef


def topics(
    ctx: typer.Context,
    quarter: QuarterArgument,
    firm: Annotated[
        str | None, typer.Option(metavar="FIRM", autocompletion=complete_firm, help="Only this firm's, by its id.")
    ] = None,
    search: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Only topics with this text in name, summary or keywords.")
    ] = None,
    unnamed: Annotated[bool, typer.Option("--unnamed", help="Only topics that the LLM did not name.")] = False,
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="Only the first N.")] = None,
    skipped: Annotated[bool, typer.Option("--skipped", help="The firms without topics instead, and why.")] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a .parquet, .csv or .jsonl file with all columns.")
    ] = None,
    sentences: Annotated[
        bool, typer.Option("--sentences", help="With --out: a row per sentence, with its topic or none.")
    ] = False,
    for_sentiment: Annotated[
        bool, typer.Option("--for-sentiment", help="With --out: a row per theme, firm and topic, with its sentences.")
    ] = False,
    themes: Annotated[
        str | None, typer.Option(metavar="QUARTERS", help="With --for-sentiment: the themes of this range.")
    ] = None,
    run: RunOption = None,
    coherent: Annotated[
        bool,
        typer.Option(
            "--coherent", help="Leave out topics whose sentences have no common subject, according to the LLM."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show a quarter's topics, or write them to a file.

    Those of the last successful run, unless --run names another one.

    \b
    Examples:
      ftm topics 2023Q1 --firm AAPL
      ftm topics 2023Q1 --search tariffs --limit 20
      ftm topics 2023Q1 --coherent --json | jq -r '.[].name'
      ftm topics 2023Q1 --out topics.parquet
      ftm topics 2023Q1 --out themes.jsonl --for-sentiment --themes 2022Q4..2023Q1
    """
    chosen = search is not None or unnamed or limit is not None or coherent
    _check_options(out, sentences, for_sentiment, themes, chosen=chosen, skipped=skipped)
    stack = connect(ctx.obj)
    if skipped:
        _print_without_topics(stack, RunRef(quarter, run or service.latest_run(stack, quarter)), firm, as_json)
        return
    if out and for_sentiment:
        range_ = parse_range(themes or quarter)
        _print_file(topic_files.write_sentiment(stack, quarter, run, range_, out, firm), as_json)
        return
    run = run or service.latest_run(stack, quarter)
    if out and sentences:
        _print_file(topic_files.write_sentences(stack, RunRef(quarter, run), out, firm), as_json)
        return
    everything = service.read(stack, quarter, run=run, firm=firm, coherent=coherent)
    found = service.select(everything, search=search, unnamed=unnamed)[:limit]
    if out:
        ids = [topic["topic_id"] for topic in found] if chosen else None
        _print_file(topic_files.write_topics(stack, RunRef(quarter, run), out, firm, ids), as_json)
        return
    if as_json:
        output.print_json(found)
        return
    _print(found)
    named = sum(topic["naming_method"] == "llm" for topic in found)
    firms = len({topic["firm_id"] for topic in found})
    topic_count, firm_count = output.count(len(found), "topic"), output.count(firms, "firm")
    of_all = f" (of {len(everything):,} topics)" if chosen else ""
    output.hint(f"{topic_count} of {firm_count}, {named:,} named by the LLM{of_all}")


def _check_options(
    out: Path | None, sentences: bool, for_sentiment: bool, themes: str | None, *, chosen: bool, skipped: bool
) -> None:
    if (sentences or for_sentiment) and out is None:
        raise UsageError("--sentences and --for-sentiment write a file: name it with --out")
    if sentences and for_sentiment:
        raise UsageError("--sentences and --for-sentiment are different files: write one at a time")
    if chosen and (sentences or for_sentiment or skipped):
        raise UsageError(
            "--search, --unnamed, --limit and --coherent choose topics: leave them out, or choose firms with --firm"
        )
    if themes and not for_sentiment:
        raise UsageError("--themes says which themes --for-sentiment writes: add it, or leave --themes out")
    if out is None:
        return
    if skipped:
        raise UsageError("--skipped lists firms: leave out --out, which writes them beside its file in any case")
    topic_files.check_path(out)


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
    columns = ("firm", "topic", "name", "sentences", "keywords", "named by")
    output.print_table(columns, rows, wrap=("name", "keywords"), drop=("named by", "sentences", "firm"))


def _print_without_topics(stack: Stack, ref: RunRef, firm: str | None, as_json: bool) -> None:
    found = service.without_topics(stack, ref, firm)
    if as_json:
        output.print_json(found)
        return
    rows = [(each["firm_id"], each["outcome"], each["reason"]) for each in found]
    output.print_table(("firm", "outcome", "reason"), rows, wrap=("reason",))
    output.hint(f"{output.count(len(found), 'firm')} without topics")


def _print_file(written: topic_files.WrittenFile, as_json: bool) -> None:
    if as_json:
        output.print_json(written)
        return
    output.print_line(written["file"])
    linked = f", {written['linked']:,} linked to run {written['previous_run']}" if written["previous_run"] else ""
    without = output.count(len(written["skipped"]), "firm")
    output.hint(f"{output.count(written['rows'], 'row')}{linked}; {without} without topics are in a file beside it")
