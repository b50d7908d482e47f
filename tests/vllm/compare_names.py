"""Compares two namings of the same topics by sentence embeddings, and prints the comparison as JSON.

Run by the interpreter that has torch, with the project on its path: `python compare_names.py MODEL`.
"""

import json
import sys
from collections.abc import Sequence

from cli.services import comparison
from cli.services.namings import NamedTopic, Naming

A = ["Share repurchase program", "Foreign exchange headwinds", "Store openings", "Store openings"]
B = ["Buyback of shares", "Currency pressure", "Clinical trial results", "Store openings"]


def naming(source: str, names: Sequence[str]) -> Naming:
    return Naming(
        source,
        ["m"],
        [NamedTopic("F", "Firm", f"F_{n}", name, "", False, frozenset({f"s{n}"})) for n, name in enumerate(names)],
    )


if __name__ == "__main__":
    comparison.EMBEDDING_MODEL = sys.argv[1]
    result, _ = comparison.compare("2023Q1", naming("a", A), naming("b", B), show=len(A))
    print(json.dumps(result))
