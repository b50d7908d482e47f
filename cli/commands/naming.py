"""`ftm name` and `ftm compare`: another naming of some firms, and two namings side by side."""

from pathlib import Path
from typing import Annotated

import typer

from cli import output
from cli.completion import complete_run
from cli.errors import UsageError
from cli.options import JsonOption, QuarterArgument, RunOption
from cli.services import comparison, namings, topics, worker
from cli.services.comparison import Comparison
from cli.stack import connect
from contract import env


def name(
    ctx: typer.Context,
    quarter: QuarterArgument,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The Parquet file to write.")],
    sample: Annotated[int, typer.Option(metavar="N", min=1, help="Firms, picked at random, the same each time.")] = 50,
    llm_url: Annotated[
        str | None, typer.Option(metavar="URL", help="OpenAI-compatible API; LLM_BASE_URL or the xAI API if not given.")
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="MODEL", help="Its model, if it serves several.")] = None,
) -> None:
    """Name the topics of some firms by another LLM, into a file; the quarter's results are not touched.

    Runs on this machine and needs the worker (pip install 'ftm[worker]'). The API's key is read from LLM_API_KEY.

    \b
    Example:
      ftm name 2023Q1 --sample 50 --llm-url https://api.x.ai/v1 --out hosted.parquet
      ftm compare 2023Q1 --with hosted.parquet
    """
    if not out.absolute().parent.is_dir():
        raise UsageError(f"{out.parent} is not a folder to write {out.name} into")
    stack = connect(ctx.obj)
    firms = namings.sample_firms(stack, quarter, sample)
    llm = {env.LLM_BASE_URL: llm_url, env.LLM_MODEL_NAME: model}
    output.hint(f"finding and naming the topics of {output.count(len(firms), 'firm')}")
    worker.name(stack, quarter, firms, out, {key: value for key, value in llm.items() if value})
    output.print_line(str(out))
    output.hint(f"hold it against the results: {stack.command} compare {quarter} --with {out}")


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
    show: Annotated[int, typer.Option(metavar="N", min=0, help="Pairs that differ most to show.")] = 10,
    judge: Annotated[
        str | None, typer.Option(metavar="URL", help="An LLM that says which name fits better, in both orders.")
    ] = None,
    judged: Annotated[int, typer.Option(metavar="N", min=1, help="Pairs that the judge sees.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """Hold two namings of a quarter against each other: that of its last run (a), and another (b).

    \b
    Examples:
      ftm compare 2023Q1 --with 20230405_101500
      ftm compare 2023Q1 --with hosted.parquet --judge http://127.0.0.1:8000/v1 --json
    """
    stack = connect(ctx.obj)
    b = namings.of_run_or_file(stack, quarter, other)
    a = namings.of_run(stack, quarter, run or topics.latest_run(stack, quarter))
    # The matched topics whose names differ, the most different first.
    result, matches = comparison.compare(quarter, a, b, show=show)
    if judge and matches:
        from cli.services.judge import judge as ask_judge

        differing = matches[:judged]
        ids = (sentence for match in differing for sentence in match.a.sentence_ids)
        texts = namings.sentences(stack, quarter, ids, {match.a.firm_id for match in differing})
        result["judge"] = ask_judge(judge, differing, texts)
    if as_json:
        output.print_json(result)
    else:
        _print(result)


def _print(result: Comparison) -> None:
    a, b = result["a"], result["b"]
    rows = [
        ("source", a["source"], b["source"]),
        ("model", ", ".join(a["models"]), ", ".join(b["models"])),
        (f"topics of {output.count(result['firms'], 'firm')}", f"{a['topics']:,}", f"{b['topics']:,}"),
        ("only here", f"{result['only_a']:,}", f"{result['only_b']:,}"),
        ("fallbacks to keywords", f"{a['fallbacks']:.1%}", f"{b['fallbacks']:.1%}"),
        ("words a name", f"{a['name_words']:.1f}", f"{b['name_words']:.1f}"),
        ("names over 8 words", f"{a['long_names']:.1%}", f"{b['long_names']:.1%}"),
        ("words a summary", f"{a['summary_words']:.1f}", f"{b['summary_words']:.1f}"),
        ("without the firm's name", f"{a['generalisable']:.1%}", f"{b['generalisable']:.1%}"),
        ("names that other firms share", f"{a['shared_names']:.1%}", f"{b['shared_names']:.1%}"),
        ("repeated within a firm", f"{a['repeats']:.1%}", f"{b['repeats']:.1%}"),
    ]
    output.print_table((result["quarter"], "a", "b"), rows)
    output.print_line(
        f"{result['matched']:,} topics are in both; their names agree by {result['agreement']:.0%} "
        f"(by {result['measure']}), {result['same_names']:.0%} are the same"
    )
    if verdicts := result["judge"]:
        output.print_line(
            f"judged by {verdicts['model']}, {verdicts['pairs']} pairs: a better {verdicts['a']}, b better "
            f"{verdicts['b']}, equal {verdicts['equal']}, contradicted {verdicts['contradicted']}"
        )
    if result["differ_most"]:
        pairs = [
            (pair["a_topic"], f"{pair['similarity']:.2f}", pair["a_name"], pair["b_name"])
            for pair in result["differ_most"]
        ]
        output.print_table(("differ most", "alike", "a", "b"), pairs)
