"""Takes back a name that unrelated topics of several firms have; similar topics of many firms may share a name.

The firms of one checkpoint are compared in their order, so that the result is reproducible. A model that gives every
topic the same name is noticed at each checkpoint, and its topics count as not named. If checkpoints contain few firms,
the run's summary notices it from the names of all parts: see `contract.topic_names`.
"""

from collections import defaultdict
from collections.abc import Container

from contract.fallbacks import FallbackKind, add_fallbacks, count_fallbacks
from contract.topic_names import LISTED_SHARE, MIN_TOPICS, NameUse
from worker.firm import Outcome
from worker.naming.prompt import fallback_name
from worker.naming.relation import concepts_of, content_stems
from worker.naming.validation import same_name
from worker.parts import Row
from worker.vocabulary import weight_of

_LIKE = 0.4
"""The share of the name's other topics with which a topic must have something in common beside the name."""


def take_back_repeats(outcomes: list[Outcome]) -> None:
    """Give topics their keywords for a name, in place, where their name was given to unrelated topics."""
    by_name: dict[str, list[tuple[Outcome, Row]]] = defaultdict(list)
    for outcome in outcomes:
        for row in outcome.rows:
            if row["naming_method"] == "llm":
                by_name[same_name(row["name"])].append((outcome, row))
    for group in by_name.values():
        if len(group) < MIN_TOPICS:
            continue
        subjects = [_subjects(row) for _, row in group]
        for number, (outcome, row) in enumerate(group):
            others = subjects[:number] + subjects[number + 1 :]
            if sum(not subjects[number].isdisjoint(other) for other in others) < _LIKE * len(others):
                _take_back(outcome, row, len(group))


def lacks_name(row: Row, repeated_names: Container[str]) -> bool:
    """Whether a topic has its keywords for a name, or a name that is treated as missing."""
    return row["naming_method"] != "llm" or same_name(row["name"]) in repeated_names


def name_uses(rows: list[Row]) -> dict[str, NameUse]:
    """The frequent names of a part, with the subjects of their topics; the run's summary adds them up."""
    uses: dict[str, NameUse] = defaultdict(NameUse)
    for row in rows:
        if row["naming_method"] == "llm":
            use = uses[same_name(row["name"])]
            use.topics += 1
            use.subjects.update(map(str, _subjects(row)))
    return {name: use for name, use in uses.items() if use.topics >= LISTED_SHARE * len(rows)}


def _subjects(row: Row) -> set[str | int]:
    """The specific stems in a topic's keywords that are not in its name, and the concepts of these stems."""
    stems = {stem for keyword in row["keywords"] for stem in content_stems(keyword) if weight_of(stem) == 1}
    beside = stems.difference(content_stems(row["name"]))
    return beside.union(*(concepts_of(stem) for stem in beside))


def _take_back(outcome: Outcome, row: Row, topics: int) -> None:
    reason = f"the name {row['name']!r} was given to {topics} topics of several companies, which are not alike"
    lost = count_fallbacks([(FallbackKind.REPEATED_NAME, reason)])
    outcome.counts.named -= 1
    outcome.counts.incoherent -= row["coherent"] is False
    outcome.counts.fallbacks = add_fallbacks(outcome.counts.fallbacks, lost)
    row.update(name=fallback_name(row["keywords"]), summary="", naming_method="keywords", model=None, coherent=None)
