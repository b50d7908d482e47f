"""Compares two sets of topic names by sentence embeddings, and prints the comparison as JSON.

Run it with the interpreter that has torch, with the project on its path: `python compare_names.py MODEL`.
"""

import json
import sys
from collections.abc import Sequence

from evaluation import compare
from evaluation.topic_names import NamedTopic, TopicNames

A = ["Share repurchase program", "Foreign exchange headwinds", "Store openings", "Store openings"]
B = ["Buyback of shares", "Currency pressure", "Clinical trial results", "Store openings"]


def names_of(source: str, names: Sequence[str]) -> TopicNames:
    return TopicNames(
        source,
        ["m"],
        [NamedTopic("F", "Firm", f"F_{n}", name, "", False, frozenset({f"s{n}"})) for n, name in enumerate(names)],
    )


if __name__ == "__main__":
    compare.EMBEDDING_MODEL = sys.argv[1]
    result, _ = compare.compare("2023Q1", names_of("a", A), names_of("b", B), show=len(A))
    print(json.dumps(result))
