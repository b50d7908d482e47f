"""`ftm name` and `ftm compare`: another naming of some firms, and two namings side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import output
from cli.completion import complete_run
from cli.errors import UsageError
from cli.options import JsonOption, QuarterArgument, RunOption, check_url
from cli.services import comparison, namings, topics, worker
from cli.services.comparison import Comparison, Match
from cli.stack import Stack, connect
from contract import env

if TYPE_CHECKING:
    from cli.services.judge import Verdicts


def name(
    ctx: typer.Context,
    quarter: QuarterArgument,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The Parquet file to write.")],
    sample: Annotated[int, typer.Option(metavar="N", min=1, help="Firms, picked at random, the same each time.")] = 50,
    llm_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL", callback=check_url, help="OpenAI-compatible API; LLM_BASE_URL or the xAI API if not given."
        ),
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
    if out.is_dir():
        raise UsageError(f"--out {out} is a folder: name a file in it, such as {out / 'named.parquet'}")
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
        str | None,
        typer.Option(
            metavar="URL", callback=check_url, help="An LLM that says which name fits better, in both orders."
        ),
    ] = None,
    judge_model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="The judge's model, if it serves several.")
    ] = None,
    judged: Annotated[int, typer.Option(metavar="N", min=1, help="Pairs that the judge sees, picked at random.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """Hold two namings of a quarter against each other: that of its last run (a), and another (b).

    The key of the judge's API is read from LLM_API_KEY: where that is set, it is sent to the judge.

    \b
    Examples:
      ftm compare 2023Q1 --with 20230405_101500
      ftm compare 2023Q1 --with hosted.parquet --judge http://127.0.0.1:8000/v1 --json
    """
    stack = connect(ctx.obj)
    b = namings.of_run_or_file(stack, quarter, other)
    a = namings.of_run(stack, quarter, run or topics.latest_run(stack, quarter))
    result, differing = comparison.compare(quarter, a, b, show=show)
    if not as_json:
        _print(result)  # before the judge is asked, which takes its time
    try:
        if judge and not differing:
            output.hint("no names differ: there is nothing to judge")
        elif judge:
            pairs = comparison.sample(quarter, differing, judged)
            result["judge"] = _ask_judge(stack, quarter, judge, judge_model, pairs)
    finally:  # what is counted stands, when the judge fails
        if as_json:
            output.print_json(result)
    if result["judge"] and not as_json:
        _print_verdicts(result["judge"], result["differing"])


def _ask_judge(stack: Stack, quarter: str, url: str, model: str | None, matches: Sequence[Match]) -> "Verdicts":
    from cli.services.judge import judge

    ids = (sentence for match in matches for sentence in match.a.sentence_ids)
    texts = namings.sentences(stack, quarter, ids, {match.a.firm_id for match in matches})
    output.hint(f"the judge is asked about {output.count(len(matches), 'pair')}, in both orders")
    return judge(url, model, matches, texts)


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
    if result["differ_most"]:
        pairs = [
            (pair["a_topic"], f"{pair['similarity']:.2f}", pair["a_name"], pair["b_name"])
            for pair in result["differ_most"]
        ]
        output.print_table(("differ most", "alike", "a", "b"), pairs)
    if result["measure"] == comparison.WORDS and comparison.can_embed():
        output.hint(
            f"sentence-transformers is here, but its model is not: `hf download sentence-transformers/"
            f"{comparison.EMBEDDING_MODEL}` fetches it, and names are then compared by meaning"
        )


def _print_verdicts(verdicts: "Verdicts", differing: int) -> None:
    output.print_line(
        f"judged by {verdicts['model']}, {verdicts['pairs']:,} of {output.count(differing, 'differing pair')}: "
        f"a better {verdicts['a']}, b better {verdicts['b']}, equal {verdicts['equal']}, "
        f"contradicted {verdicts['contradicted']}, unanswered {verdicts['unanswered']}"
    )
