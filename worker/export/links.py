"""Links each topic of a firm's call to the topic of its previous call that it continues.

Topics are compared by the TF-IDF of their sentences' words among the firm's topics of both quarters, so that the link
depends on nothing but these two calls.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from worker.words import plain_words

MIN_COSINE = 0.3
"""Below this cosine, a topic continues none."""

_Vector = Mapping[str, float]


@dataclass(frozen=True)
class Link:
    topic_id: str
    """The topic of the quarter before."""
    cosine: float


def link(topics: Mapping[str, str], before: Mapping[str, str]) -> dict[str, Link]:
    """Topic id -> the closest topic of the quarter before, where one is close; two topics may have the same.

    Args:
        topics: topic id -> the words of its sentences.
        before: the same of the quarter before.
    """
    counts = {name: Counter(plain_words(text)) for name, text in (*topics.items(), *before.items())}
    frequency = Counter(word for count in counts.values() for word in count)
    vectors = {name: _vector(count, frequency, len(counts)) for name, count in counts.items()}
    found: dict[str, Link] = {}
    for name in topics:
        cosines = [(round(_cosine(vectors[name], vectors[other]), 4), other) for other in before]
        cosine, best = max(cosines, key=lambda each: each[0], default=(0.0, ""))
        if cosine >= MIN_COSINE:
            found[name] = Link(best, cosine)
    return found


def _vector(count: Counter[str], frequency: Counter[str], topics: int) -> _Vector:
    """TF-IDF of unit length."""
    weights = {
        word: (1 + math.log(number)) * (1 + math.log((1 + topics) / (1 + frequency[word])))
        for word, number in count.items()
    }
    length = math.sqrt(sum(weight * weight for weight in weights.values()))
    return {word: weight / length for word, weight in weights.items()}


def _cosine(a: _Vector, b: _Vector) -> float:
    return sum(weight * b[word] for word, weight in a.items() if word in b)
