"""`ftm name` and `ftm compare`: name a sample of firms with another LLM, and compare two sets of topic names."""

from pathlib import Path
from shlex import quote
from typing import Annotated, TypedDict

import typer

from cli import output
from cli.completion import complete_run
from cli.errors import UsageError
from cli.options import JsonOption, QuarterArgument, RunOption, check_url
from cli.rendering import comparison as rendering
from cli.services import evaluation, topics
from cli.stack import connect
from contract import env
from contract.layout import RunRef


class NamedSample(TypedDict):
    """What `ftm name --json` prints."""

    quarter: str
    file: str
    firms: int
    topics: int
    named: int


def name(
    ctx: typer.Context,
    quarter: QuarterArgument,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The Parquet file to write.")],
    sample: Annotated[int, typer.Option(metavar="N", min=1, help="Firms; the same random sample each time.")] = 50,
    llm_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL", callback=check_url, help="OpenAI-compatible API; LLM_BASE_URL or the xAI API if not given."
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="MODEL", help="Its model, if it serves several.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Name a sample of firms with another LLM, into a file.

    The quarter's results are not touched. Runs on this machine and needs the worker (pip install -e '.[worker]'). The
    API's key is read from LLM_API_KEY.

    \b
    Example:
      ftm name 2023Q1 --llm-url https://api.x.ai/v1 --out hosted.parquet
      ftm compare 2023Q1 --with hosted.parquet
    """
    if out.is_dir():
        raise UsageError(f"--out {out} is a folder: name a file in it, such as {out / 'named.parquet'}")
    if not out.absolute().parent.is_dir():
        raise UsageError(f"{out.parent} is not a folder to write {out.name} into")
    stack = connect(ctx.obj)
    firms = evaluation.sample_firms(stack, quarter, sample)
    llm = {env.LLM_BASE_URL: llm_url, env.LLM_MODEL_NAME: model}
    output.hint(f"finding and naming the topics of {output.count(len(firms), 'firm')}")
    evaluation.name_sample(stack, quarter, firms, out, {key: value for key, value in llm.items() if value})
    if as_json:
        methods = evaluation.naming_methods(out)
        document: NamedSample = {
            "quarter": quarter,
            "file": str(out),
            "firms": len(firms),
            "topics": len(methods),
            "named": methods.count("llm"),
        }
        output.print_json(document)
    else:
        output.print_line(str(out))
    output.hint(f"compare it with the results: {stack.command} compare {quarter} --with {quote(str(out))}")


def compare(
    ctx: typer.Context,
    quarter: QuarterArgument,
    other: Annotated[
        str,
        typer.Option(
            "--with", metavar="RUN|FILE", autocompletion=complete_run, help="A run, or a file that `ftm name` wrote."
        ),
    ],
    run: RunOption = None,
    show: Annotated[int, typer.Option(metavar="N", min=0, help="How many of the most different pairs to show.")] = 10,
    judge: Annotated[
        str | None,
        typer.Option(
            metavar="URL", callback=check_url, help="An LLM that decides which name is better, in both orders."
        ),
    ] = None,
    judge_model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="The judge's model, if it serves several.")
    ] = None,
    judged: Annotated[int, typer.Option(metavar="N", min=1, help="Randomly chosen pairs for the judge.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """Compare two sets of topic names for a quarter.

    One is that of the last run (a), the other (b) comes from another run or from a file.

    A judge needs the worker (pip install -e '.[worker]'). The key of its API is read from LLM_API_KEY: where that is
    set, it is sent to the judge.

    \b
    Examples:
      ftm compare 2023Q1 --with 20230405_101500
      ftm compare 2023Q1 --with hosted.parquet --judge http://127.0.0.1:8000/v1
    """
    stack = connect(ctx.obj)
    result, pairs = evaluation.compare(
        stack, RunRef(quarter, run or topics.latest_run(stack, quarter)), other, show=show, judged=judged
    )
    result["judge"] = None
    if not as_json:
        rendering.print_comparison(result)  # before the judge is asked, which takes a while
    try:
        if judge and not pairs:
            output.hint("no names differ: there is nothing to judge")
        elif judge:
            output.hint(f"the judge is asked about {output.count(len(pairs), 'pair')}, in both orders")
            result["judge"] = evaluation.judge(stack, quarter, judge, judge_model, pairs)
    finally:  # the comparison is printed even if the judge fails
        if as_json:
            output.print_json(result)
    if result["judge"] and not as_json:
        rendering.print_verdicts(result["judge"], result["differing"])
