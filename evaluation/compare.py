"""`python -m evaluation.compare`: compares two sets of topic names for a quarter.

Topics are matched by the sentences that they contain, so the two runs may number them differently. The similarity of
two names is measured on their words, or with sentence embeddings if `sentence-transformers` and its model are
installed. The request on stdin is a `Request`, the answer on stdout an `Answer`.
"""

import random
import re
import sys
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean
from typing import Any, TypedDict

from contract.exit_codes import ExitCode
from evaluation import EvaluationError
from evaluation.process import answer_request
from evaluation.topic_names import NamedTopic, TopicNames, read_topic_names
from worker import firm_names

SAME_TOPIC = 0.5
"""Two topics are the same one if at least this share of their sentences is common (Jaccard index)."""

EMBEDDING_MODEL = "all-MiniLM-L6-v2"

MAX_NAME_WORDS = 8

WORDS = "words"
"""The similarity measure that needs no model."""

_ENDING = re.compile(r"(?<=\w{4})(?:ies|y|es|(?<!s)s|e|ed|ings?)$")
"""Inflections: `margins` counts as `margin`, and `pricing` as `price`, but `production` not as `product`."""

_SMALL_WORDS = {"a", "an", "and", "as", "at", "by", "for", "from", "in", "of", "on", "or", "the", "to", "vs", "with"}


class Quality(TypedDict):
    """Properties of one set of topic names."""

    source: str
    models: list[str]
    topics: int
    fallbacks: float
    """Share of topics that carry keywords instead of a name."""
    name_words: float
    """Mean number of words per name."""
    long_names: float
    """Share of names of more than 8 words."""
    summary_words: float
    generalisable: float
    """Share of topics whose name and summary contain neither the firm's name nor its id."""
    shared_names: float
    """Share of topics whose name another firm has as well; shared names make firms comparable."""
    repeats: float
    """Share of topics that repeat the name of an earlier topic of the same firm."""


class Pair(TypedDict):
    """One topic with its two names."""

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
    """Firms in both sets; all others are ignored."""
    a: Quality
    b: Quality
    matched: int
    """Topics in both sets."""
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


class Side(TypedDict):
    path: str
    """A Parquet file with the columns of `contract.topics.NAME_COLUMNS`."""
    source: str
    """Its name in results and messages."""


class Request(TypedDict):
    quarter: str
    a: Side
    b: Side
    show: int
    """How many of the most different pairs to return in `differ_most`."""
    judged: int
    """How many randomly chosen pairs to return in `to_judge`."""


class PairToJudge(TypedDict):
    firm_id: str
    a_name: str
    b_name: str
    sentence_ids: list[str]


class Answer(TypedDict):
    comparison: Comparison
    to_judge: list[PairToJudge]


@dataclass(frozen=True)
class Match:
    """A topic that is in both sets."""

    a: NamedTopic
    b: NamedTopic
    similarity: float


def main() -> int:
    return answer_request(_answer)


def compare(quarter: str, a: TopicNames, b: TopicNames, *, show: int) -> tuple[Comparison, list[Match]]:
    """Compare two sets of topic names, on the firms that are in both.

    Returns:
        The comparison, and the matched topics whose names differ, the most different first.

    Raises:
        EvaluationError: when they have no firm or no topic in common.
    """
    firms = {topic.firm_id for topic in a.topics} & {topic.firm_id for topic in b.topics}
    if not firms:
        raise EvaluationError(f"{a.source} and {b.source} have no firm in common", ExitCode.USAGE)
    a, b = _only(a, firms), _only(b, firms)
    pairs = list(_pairs(a.topics, b.topics))
    if not pairs:
        raise EvaluationError(
            f"{a.source} and {b.source} have no topic in common, by their sentences: compare runs of the same prefetch",
            ExitCode.USAGE,
        )
    measure, similarity = _measure()
    values = similarity([(first.name, second.name) for first, second in pairs])
    matches = sorted(
        (Match(first, second, value) for (first, second), value in zip(pairs, values, strict=True)),
        # Ties are broken by a hash, so that the pairs shown are reproducible and not only firms early in the alphabet.
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
    }
    return comparison, differing


def sample(quarter: str, matches: Sequence[Match], count: int) -> list[Match]:
    """A reproducible random sample of at most `count` matches; the most different ones would not be representative."""
    return random.Random(quarter).sample(matches, min(count, len(matches)))  # noqa: S311 (nothing to guess)


def quality(names: TopicNames) -> Quality:
    """The properties of one set of topic names."""
    firms_of: dict[str, set[str]] = defaultdict(set)
    for topic in names.topics:
        firms_of[_normal(topic.name)].add(topic.firm_id)
    within = Counter((topic.firm_id, _normal(topic.name)) for topic in names.topics)
    repeats = sum(count - 1 for count in within.values())
    topics = names.topics
    return {
        "source": names.source,
        "models": list(names.models),
        "topics": len(topics),
        "fallbacks": _share(topics, lambda topic: topic.is_fallback),
        "name_words": _mean([len(topic.name.split()) for topic in topics]),
        "long_names": _share(topics, lambda topic: len(topic.name.split()) > MAX_NAME_WORDS),
        "summary_words": _mean([len(topic.summary.split()) for topic in topics]),
        "generalisable": _share(topics, _is_generalisable),
        "shared_names": _share(topics, lambda topic: len(firms_of[_normal(topic.name)]) > 1),
        "repeats": round(repeats / len(topics), 4) if topics else 0.0,
    }


def _answer(request: Request) -> Answer:
    quarter = request["quarter"]
    a, b = (read_topic_names(Path(side["path"]), side["source"], quarter) for side in (request["a"], request["b"]))
    comparison, differing = compare(quarter, a, b, show=request["show"])
    pairs = sample(quarter, differing, request["judged"])
    return {"comparison": comparison, "to_judge": [_to_judge(match) for match in pairs]}


def _to_judge(match: Match) -> PairToJudge:
    return {
        "firm_id": match.a.firm_id,
        "a_name": match.a.name,
        "b_name": match.b.name,
        "sentence_ids": sorted(match.a.sentence_ids),
    }


def _only(names: TopicNames, firms: set[str]) -> TopicNames:
    return replace(names, topics=[topic for topic in names.topics if topic.firm_id in firms])


def _pairs(a: Sequence[NamedTopic], b: Sequence[NamedTopic]) -> Iterator[tuple[NamedTopic, NamedTopic]]:
    """Each topic of `a` with the topic of `b` that shares most of its sentences; best pairs first, each topic once."""
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
    """The model; None without sentence-transformers, or when the model is not on this machine.

    It is never downloaded: without a network the attempt takes more than a minute, and the measure would depend on
    the state of the network.
    """
    if find_spec("sentence_transformers") is None:
        return None
    try:
        return import_module("sentence_transformers").SentenceTransformer(EMBEDDING_MODEL, local_files_only=True)
    except (OSError, ValueError):
        return None


def word_similarity(first: str, second: str) -> float:
    """The share of words that two names have in common (Dice coefficient), ignoring inflections and small words."""
    left, right = _stems(first), _stems(second)
    if not left or not right:
        return float(_normal(first) == _normal(second))
    return round(2 * len(left & right) / (len(left) + len(right)), 4)


def _embedding_similarity(model: Any, pairs: list[tuple[str, str]]) -> list[float]:
    """Cosine similarities; a negative one counts as 0, like that of unrelated names."""
    names = sorted({name for pair in pairs for name in pair})
    vectors = dict(zip(names, model.encode(names, normalize_embeddings=True, show_progress_bar=False), strict=True))
    return [round(min(1.0, max(0.0, float(vectors[first] @ vectors[second]))), 4) for first, second in pairs]


def _is_generalisable(topic: NamedTopic) -> bool:
    """Whether the topic could be another firm's: neither its name nor its summary identifies the firm."""
    text = f"{topic.name}. {topic.summary}"
    return not (
        firm_names.contains_ticker(text, topic.firm_id)
        or firm_names.contains_name(text, firm_names.identifying_words(topic.firm_name))
    )


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


if __name__ == "__main__":
    sys.exit(main())
