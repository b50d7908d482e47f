"""How the comparison of two sets of topic names is printed."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from cli import output

_EMBEDDING_MODEL = "all-MiniLM-L6-v2"


def print_comparison(result: Mapping[str, Any]) -> None:
    """The two sets side by side, and the pairs that differ most; `result` is `evaluation.compare`'s Comparison."""
    a, b = result["a"], result["b"]
    rows = [
        ("source", a["source"], b["source"]),
        ("model", ", ".join(a["models"]), ", ".join(b["models"])),
        (f"topics of {output.count(result['firms'], 'firm')}", f"{a['topics']:,}", f"{b['topics']:,}"),
        ("only here", f"{result['only_a']:,}", f"{result['only_b']:,}"),
        ("fallbacks to keywords", f"{a['fallbacks']:.1%}", f"{b['fallbacks']:.1%}"),
        ("words per name", f"{a['name_words']:.1f}", f"{b['name_words']:.1f}"),
        ("names over 8 words", f"{a['long_names']:.1%}", f"{b['long_names']:.1%}"),
        ("words per summary", f"{a['summary_words']:.1f}", f"{b['summary_words']:.1f}"),
        ("without the firm's name", f"{a['generalisable']:.1%}", f"{b['generalisable']:.1%}"),
        ("names that other firms share", f"{a['shared_names']:.1%}", f"{b['shared_names']:.1%}"),
        ("repeated within a firm", f"{a['repeats']:.1%}", f"{b['repeats']:.1%}"),
    ]
    output.print_table((result["quarter"], "a", "b"), rows, wrap=("a", "b"))
    output.print_line(
        f"{result['matched']:,} topics are in both; their names agree by {result['agreement']:.0%} "
        f"(by {result['measure']}), {result['same_names']:.0%} are the same"
    )
    if result["differ_most"]:
        pairs = [
            (pair["a_topic"], f"{pair['similarity']:.2f}", pair["a_name"], pair["b_name"])
            for pair in result["differ_most"]
        ]
        output.print_table(("differ most", "alike", "a", "b"), pairs, wrap=("a", "b"), drop=("alike",))
    if result["measure"] == "words" and find_spec("sentence_transformers"):
        output.hint(
            f"sentence-transformers is installed, but its model is not: "
            f"`hf download sentence-transformers/{_EMBEDDING_MODEL}` fetches it, and names are then compared by meaning"
        )


def print_verdicts(verdicts: Mapping[str, Any], differing: int) -> None:
    """How the judge decided; `verdicts` is `evaluation.judge`'s Verdicts."""
    output.print_line(
        f"judged by {verdicts['model']}, {verdicts['pairs']:,} of {output.count(differing, 'differing pair')}: "
        f"a better {verdicts['a']}, b better {verdicts['b']}, equal {verdicts['equal']}, "
        f"contradicted {verdicts['contradicted']}, unanswered {verdicts['unanswered']}"
    )
