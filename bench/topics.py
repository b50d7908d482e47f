"""Topics: the worker's recipe beside BERTopic's, on the same sentences of the same firms, on one core.

BERTopic is optional (`pip install bertopic`); without sentence-transformers and a model at hand it clusters the
worker's own TF-IDF, reduced, so that only what follows the embedding differs.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import combinations
from typing import Any

from worker import text
from worker.firm import Firm
from worker.topics import find_topics

TERMS = 10


@dataclass(frozen=True)
class Found:
    """What a method found in one firm: the topics' terms, and the share of the sentences that are in one."""

    terms: list[list[str]]
    coverage: float


def compare(firms: list[Firm]) -> list[dict[str, Any]]:
    """One row a method: seconds, topics and coverage a firm, NPMI and diversity of the terms."""
    find_topics(firms[0])  # imports and caches are not the method's
    rows = [_measure("worker", _worker, firms)]
    if find_spec("bertopic"):
        _bertopic(firms[0])
        rows.append(_measure("BERTopic", _bertopic, firms))
    return rows


def representativeness(firms: list[Firm]) -> list[dict[str, Any]]:
    """How close the shown sentences come to all of a topic's: the mean best cosine, over its rows and the topics.

    Cosines are of TF-IDF, so that no method is measured in its own space.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    closeness: dict[str, list[float]] = {"shown": [], "the first as many": []}
    topics = shown = 0
    for firm in firms:
        texts = {sentence.sentence_id: sentence for sentence in firm.sentences}
        for topic in find_topics(firm).topics:
            rows = [texts[sentence_id] for sentence_id in topic.sentence_ids]
            tfidf = TfidfVectorizer(sublinear_tf=True).fit_transform([row.cleaned_text or "-" for row in rows])
            similarity = (tfidf @ tfidf.T).toarray()
            chosen = [number for number, row in enumerate(rows) if row.raw_text in topic.shown]
            closeness["shown"].append(float(similarity[:, chosen].max(axis=1).mean()))
            closeness["the first as many"].append(float(similarity[:, : len(chosen)].max(axis=1).mean()))
            topics += 1
            shown += len(topic.shown)
    return [
        {"sentences": name, "per topic": round(shown / topics, 1), "mean best cosine": round(_mean(values), 3)}
        for name, values in closeness.items()
    ]


def _measure(name: str, method: Callable[[Firm], Found | None], firms: list[Firm]) -> dict[str, Any]:
    seconds, found, failed = 0.0, dict[str, Found](), 0
    for firm in firms:
        began = time.process_time()
        try:
            result = method(firm)
        except (ValueError, TypeError):  # BERTopic on small firms
            result, failed = None, failed + 1
        seconds += time.process_time() - began
        if result and result.terms:
            found[firm.firm_id] = result
    terms = [(firm, topic) for firm in firms if firm.firm_id in found for topic in found[firm.firm_id].terms]
    return {
        "method": name,
        "CPU s/firm": round(seconds / len(firms), 3),
        "firms without": len(firms) - len(found),
        "of them errors": failed,
        "topics/firm": round(len(terms) / len(firms), 1),
        "coverage": round(sum(one.coverage for one in found.values()) / len(firms), 3),
        "NPMI": round(_mean(_npmi(firm, topic) for firm, topic in terms), 3),
        "diversity": round(_mean(_diversity(one.terms) for one in found.values()), 3),
    }


def _worker(firm: Firm) -> Found:
    topics = find_topics(firm).topics
    covered = sum(len(topic.sentence_ids) for topic in topics)
    return Found([topic.keywords for topic in topics], covered / max(1, len(firm.sentences)))


def _bertopic(firm: Firm) -> Found:
    """UMAP(15, 10, cosine), HDBSCAN(6, 2, leaf) and c-TF-IDF, as the reference runs it."""
    from bertopic import BERTopic  # pyright: ignore[reportMissingImports]
    from hdbscan import HDBSCAN  # pyright: ignore[reportMissingImports]
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from umap import UMAP  # pyright: ignore[reportMissingImports]

    documents = [sentence.cleaned_text for sentence in firm.sentences]
    tfidf = TfidfVectorizer(sublinear_tf=True).fit_transform(documents)
    embeddings = TruncatedSVD(min(100, *(size - 1 for size in tfidf.shape)), random_state=0).fit_transform(tfidf)
    model = BERTopic(
        umap_model=UMAP(n_neighbors=15, n_components=10, min_dist=0.0, metric="cosine", random_state=0),
        hdbscan_model=HDBSCAN(min_cluster_size=6, min_samples=2, cluster_selection_method="leaf"),
        embedding_model=None,
        top_n_words=TERMS,
    )
    labels, _ = model.fit_transform(documents, embeddings)
    terms = [[word for word, _ in model.get_topic(label)] for label in sorted(set(labels) - {-1})]
    return Found(terms, sum(label != -1 for label in labels) / len(labels))


def _npmi(firm: Firm, terms: list[str]) -> float:
    """How much more often two terms of a topic share a sentence than by chance: -1 never, 1 always."""
    documents = [frozenset(text.content_words(sentence)) for sentence in firm.sentences]
    words = list(dict.fromkeys(word for term in terms for word in term.split()))[:TERMS]
    alone = Counter(word for document in documents for word in document & set(words))
    together = Counter(pair for document in documents for pair in combinations(sorted(document & set(words)), 2))
    total = len(documents)

    def score(pair: tuple[str, str]) -> float:
        first, second = pair
        joint = together[pair] / total
        if not joint:
            return -1.0
        if joint == 1:
            return 1.0
        return math.log(joint * total * total / (alone[first] * alone[second])) / -math.log(joint)

    known = sorted(word for word in words if alone[word])
    return _mean(score(pair) for pair in combinations(known, 2))


def _diversity(topics: list[list[str]]) -> float:
    """The share of terms, over a firm's topics, that are in one topic only."""
    terms = Counter(term for topic in topics for term in topic)
    return len(terms) / max(1, sum(terms.values()))


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed) if listed else 0.0
