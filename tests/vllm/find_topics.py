"""Finds the topics of a sample firm by sentence embeddings, and prints each topic's sentences as JSON.

Run by the interpreter that has torch, with the project on its path: `python find_topics.py FOLDER`. The model, which it
writes to FOLDER, is one of sentence-transformers' simplest: a sentence is the mean of random vectors of its words.
"""

import json
import sys

# Installed in vLLM's own environment only.
from sentence_transformers import SentenceTransformer  # pyright: ignore[reportMissingImports]
from sentence_transformers.sentence_transformer.modules import StaticEmbedding  # pyright: ignore[reportMissingImports]
from tokenizers import Tokenizer, models, pre_tokenizers  # pyright: ignore[reportMissingImports]

from worker import embeddings
from worker.firm import Firm, Sentence
from worker.topics import find_topics

SUBJECTS = (
    "drug trial patients regulator approval dose endpoint therapy",
    "store shoppers traffic apparel comparable inventory markdown merchandise",
    "crude drilling basin barrels pipeline rigs wells acreage",
)


def build(folder: str) -> None:
    words = sorted({word for sentence in sentences() for word in sentence.cleaned_text.split()})
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate([*words, "?"])}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()  # pyright: ignore[reportAttributeAccessIssue]
    SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=256)]).save(folder)


def sentences() -> list[Sentence]:
    """Twelve sentences of each subject, in turn, each with another five of its words."""
    rows: list[Sentence] = []
    for position in range(36):
        words = SUBJECTS[position % 3].split()
        start = position // 3
        text = " ".join(words[(start + step) % len(words)] for step in range(5))
        rows.append(Sentence(f"F_T_{position:04d}", text, text, "Executive", "T", position))
    return rows


if __name__ == "__main__":
    build(sys.argv[1])
    found = find_topics(Firm("F", "Firm", None, None, None, sentences()), embeddings.load(sys.argv[1]))
    print(json.dumps([topic.sentence_ids for topic in found.topics]))
