"""Two namings of the same quarter, side by side.

Topics are matched by the sentences that they hold, so two runs need not number them alike. How near two names are is
told by their words, or by sentence embeddings where `sentence-transformers` and its model are at hand.
"""

import random
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from itertools import takewhile
from statistics import fmean
from typing import TYPE_CHECKING, Any, TypedDict

from cli.errors import UsageError
from cli.services.namings import NamedTopic, Naming

if TYPE_CHECKING:
    from cli.services.judge import Verdicts

SAME_TOPIC = 0.5
"""The share of common sentences (Jaccard) from which two topics are one."""

EMBEDDING_MODEL = "all-MiniLM-L6-v2"

MAX_NAME_WORDS = 8

WORDS = "words"
"""The measure without a model."""

_ENDING = re.compile(r"(?<=\w{4})(?:ies|y|es|(?<!s)s|e|ed|ings?)$")
"""What inflects a word: `margins` is `margin`, and `pricing` is `price`, but `production` is not `product`."""

_SMALL_WORDS = {"a", "an", "and", "as", "at", "by", "for", "from", "in", "of", "on", "or", "the", "to", "vs", "with"}

_GENERIC = {
    *("advanced", "american", "bank", "best", "central", "consolidated", "east", "eastern", "first", "general"),
    *("global", "great", "international", "national", "new", "north", "northern", "pacific", "public", "south"),
    *("southern", "standard", "states", "strategic", "united", "universal", "us", "west", "western"),
}
"""First words of firms' names that anybody says: they name the firm only with the words after them."""

_LEGAL_FORMS = {"co", "company", "corp", "corporation", "inc", "incorporated", "llc", "ltd", "plc"}


class Quality(TypedDict):
    """What can be told of one naming by itself."""

    source: str
    models: list[str]
    topics: int
    fallbacks: float
    """Share of topics that carry keywords instead of a name."""
    name_words: float
    """Mean words a name."""
    long_names: float
    """Share of names of more than 8 words."""
    summary_words: float
    generalisable: float
    """Share of topics whose name and summary say neither the firm's name nor its id."""
    shared_names: float
    """Share of topics whose name another firm has too: what makes firms comparable."""
    repeats: float
    """Share of topics whose name an earlier topic of the same firm has."""


class Pair(TypedDict):
    """One topic under its two names."""

    firm_id: str
    a_topic: str
    b_topic: str
    a_name: str
    b_name: str
    a_summary: str
    b_summary: str
    similarity: float


class Comparison(TypedDict):
    """`ftm compare --json` prints it."""

    quarter: str
    firms: int
    """Firms that both namings hold; the others are left out on both sides."""
    a: Quality
    b: Quality
    matched: int
    """Topics that both namings have."""
    only_a: int
    only_b: int
    measure: str
    """How similarity was measured: `words`, or the embedding model."""
    differing: int
    """Matched topics whose names are not the same."""
    agreement: float
    """Mean similarity of the two names of a matched topic, 0 to 1."""
    same_names: float
    """Share of matched topics with one and the same name."""
    differ_most: list[Pair]
    judge: "Verdicts | None"
    """None when no judge was asked."""


@dataclass(frozen=True)
class Match:
    """A topic that both namings have."""

    a: NamedTopic
    b: NamedTopic
    similarity: float


def compare(quarter: str, a: Naming, b: Naming, *, show: int) -> tuple[Comparison, list[Match]]:
    """Hold two namings against each other, on the firms that both hold.

    Also returns the matched topics whose names differ, the most different first.

    Raises:
        UsageError: when they have no firm in common, or no topic.
    """
    firms = {topic.firm_id for topic in a.topics} & {topic.firm_id for topic in b.topics}
    if not firms:
        raise UsageError(f"{a.source} and {b.source} have no firm in common")
    a, b = _only(a, firms), _only(b, firms)
    pairs = list(_pairs(a.topics, b.topics))
    if not pairs:
        raise UsageError(
            f"{a.source} and {b.source} have no topic in common, by their sentences: compare namings of one prefetch"
        )
    measure, similarity = _measure()
    values = similarity([(first.name, second.name) for first, second in pairs])
    matches = sorted(
        (Match(first, second, value) for (first, second), value in zip(pairs, values, strict=True)),
        # By a hash where they differ alike: what is shown is no start of the alphabet, and the same each time.
        key=lambda match: (match.similarity, zlib.crc32(match.a.topic_id.encode()), match.a.topic_id),
    )
    differing = [match for match in matches if _normal(match.a.name) != _normal(match.b.name)]
    comparison: Comparison = {
        "quarter": quarter,
        "firms": len(firms),
        "a": quality(a),
        "b": quality(b),
        "matched": len(matches),
        "only_a": len(a.topics) - len(matches),
        "only_b": len(b.topics) - len(matches),
        "measure": measure,
        "differing": len(differing),
        "agreement": _mean([match.similarity for match in matches]),
        "same_names": round(1 - len(differing) / len(matches), 4),
        "differ_most": [_pair(match) for match in differing[:show]],
        "judge": None,
    }
    return comparison, differing


def sample(quarter: str, matches: Sequence[Match], count: int) -> list[Match]:
    """The same `count` of the matches each time, picked at random: the most different ones would not stand for all."""
    return random.Random(quarter).sample(matches, min(count, len(matches)))  # noqa: S311 (nothing to guess)


def can_embed() -> bool:
    """Whether sentence-transformers is installed, with its model or without."""
    return find_spec("sentence_transformers") is not None


def quality(naming: Naming) -> Quality:
    """What can be told of a naming by itself."""
    firms_of: dict[str, set[str]] = defaultdict(set)
    for topic in naming.topics:
        firms_of[_normal(topic.name)].add(topic.firm_id)
    within = Counter((topic.firm_id, _normal(topic.name)) for topic in naming.topics)
    repeats = sum(count - 1 for count in within.values())
    topics = naming.topics
    return {
        "source": naming.source,
        "models": list(naming.models),
        "topics": len(topics),
        "fallbacks": _share(topics, lambda topic: topic.is_fallback),
        "name_words": _mean([len(topic.name.split()) for topic in topics]),
        "long_names": _share(topics, lambda topic: len(topic.name.split()) > MAX_NAME_WORDS),
        "summary_words": _mean([len(topic.summary.split()) for topic in topics]),
        "generalisable": _share(topics, _is_generalisable),
        "shared_names": _share(topics, lambda topic: len(firms_of[_normal(topic.name)]) > 1),
        "repeats": round(repeats / len(topics), 4) if topics else 0.0,
    }


def _only(naming: Naming, firms: set[str]) -> Naming:
    return replace(naming, topics=[topic for topic in naming.topics if topic.firm_id in firms])


def _pairs(a: Sequence[NamedTopic], b: Sequence[NamedTopic]) -> Iterator[tuple[NamedTopic, NamedTopic]]:
    """Each topic with the one of the other naming that shares most of its sentences, best pairs first, each once."""
    by_sentence: dict[str, set[int]] = defaultdict(set)
    for number, topic in enumerate(b):
        for sentence in topic.sentence_ids:
            by_sentence[sentence].add(number)
    candidates: list[tuple[float, int, int]] = []
    for number, topic in enumerate(a):
        common = Counter(other for sentence in topic.sentence_ids for other in by_sentence.get(sentence, ()))
        for other, shared in common.items():
            overlap = shared / (len(topic.sentence_ids) + len(b[other].sentence_ids) - shared)
            if overlap >= SAME_TOPIC:
                candidates.append((-overlap, number, other))
    taken_a: set[int] = set()
    taken_b: set[int] = set()
    for _, number, other in sorted(candidates):
        if number not in taken_a and other not in taken_b:
            taken_a.add(number)
            taken_b.add(other)
            yield a[number], b[other]


def _measure() -> tuple[str, Callable[[list[tuple[str, str]]], list[float]]]:
    model = _embedding_model()
    if model is None:
        return WORDS, lambda pairs: [word_similarity(first, second) for first, second in pairs]
    return EMBEDDING_MODEL, lambda pairs: _embedding_similarity(model, pairs)


def _embedding_model() -> Any:
    """The model; None without sentence-transformers, or when it is not on this machine.

    It is never fetched: without a network that is tried for more than a minute, and a measure that depends on the
    network's mood would be none.
    """
    if not can_embed():
        return None
    try:
        return import_module("sentence_transformers").SentenceTransformer(EMBEDDING_MODEL, local_files_only=True)
    except (OSError, ValueError):
        return None


def word_similarity(first: str, second: str) -> float:
    """The share of words that two names have in common (Dice), inflections and small words aside."""
    left, right = _stems(first), _stems(second)
    if not left or not right:
        return float(_normal(first) == _normal(second))
    return round(2 * len(left & right) / (len(left) + len(right)), 4)


def _embedding_similarity(model: Any, pairs: list[tuple[str, str]]) -> list[float]:
    """Cosines; names that point away from each other have as little in common as unrelated ones: 0."""
    names = sorted({name for pair in pairs for name in pair})
    vectors = dict(zip(names, model.encode(names, normalize_embeddings=True, show_progress_bar=False), strict=True))
    return [round(min(1.0, max(0.0, float(vectors[first] @ vectors[second]))), 4) for first, second in pairs]


def _is_generalisable(topic: NamedTopic) -> bool:
    """Whether the topic could be another firm's: neither its name nor its summary says whose it is."""
    text = f"{topic.name}. {topic.summary}"
    if len(topic.firm_id) > 1 and topic.firm_id in re.findall(r"\w+", text):
        return False
    brand = r"\W+".join(map(re.escape, _brand(topic.firm_name)))
    # With a capital, since many a brand is a word that anybody says: a gap is not Gap.
    return not brand or all(said[0][0].islower() for said in re.finditer(rf"\b{brand}\b", text, re.IGNORECASE))


def _brand(firm_name: str) -> list[str]:
    """The words that tell a firm: `Toro` of The Toro Company, `American Eagle` of American Eagle Outfitters."""
    words = list(takewhile(lambda word: word.lower() not in _LEGAL_FORMS, re.findall(r"\w+", firm_name)))
    if words and words[0].lower() == "the":
        del words[0]
    telling = (number for number, word in enumerate(words, 1) if len(word) > 2 and word.lower() not in _GENERIC)
    return words[: next(telling, len(words))]


def _pair(match: Match) -> Pair:
    return {
        "firm_id": match.a.firm_id,
        "a_topic": match.a.topic_id,
        "b_topic": match.b.topic_id,
        "a_name": match.a.name,
        "b_name": match.b.name,
        "a_summary": match.a.summary,
        "b_summary": match.b.summary,
        "similarity": match.similarity,
    }


def _stems(name: str) -> set[str]:
    return {_ENDING.sub("", word) for word in re.findall(r"\w+", name.lower()) if word not in _SMALL_WORDS}


def _normal(name: str) -> str:
    return " ".join(re.findall(r"\w+", name.lower()))


def _mean(values: Sequence[float]) -> float:
    return round(fmean(values), 4) if values else 0.0


def _share(items: Sequence[Any], holds: Callable[[Any], bool]) -> float:
    return round(sum(map(holds, items)) / len(items), 4) if items else 0.0
