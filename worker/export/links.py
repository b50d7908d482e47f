"""Links each topic of a firm's call to the topic of its previous call that it continues.

Topics are compared by the TF-IDF of their sentences' words among the firm's topics of both quarters, so that a link
depends on these two calls only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from worker.words import plain_words

MIN_COSINE = 0.3
"""A topic whose highest cosine is lower than this continues no topic."""


@dataclass(frozen=True)
class Link:
    topic_id: str
    """The topic of the quarter before."""
    cosine: float


def link(topics: Mapping[str, str], before: Mapping[str, str]) -> dict[str, Link]:
    """Topic id -> the closest topic of the quarter before, if it is close enough. Two topics may have the same link.

    Args:
        topics: topic id -> the words of its sentences.
        before: the same of the quarter before.
    """
    texts = [*topics.values(), *before.values()]
    if not topics or not before or not any(plain_words(text) for text in texts):
        return {}
    # Importing it takes seconds, which only an export with links has to spend.
    from sklearn.feature_extraction.text import TfidfVectorizer

    tfidf: Any = TfidfVectorizer(
        analyzer=plain_words,  # pyright: ignore[reportArgumentType]
        sublinear_tf=True,
    )
    vectors = tfidf.fit_transform(texts)
    cosines = (vectors[: len(topics)] @ vectors[len(topics) :].T).toarray().round(4)
    earlier = list(before)
    closest = zip(topics, cosines.argmax(axis=1), cosines.max(axis=1), strict=True)
    return {topic: Link(earlier[number], float(cosine)) for topic, number, cosine in closest if cosine >= MIN_COSINE}
