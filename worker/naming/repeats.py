"""One name for unrelated topics of many firms is taken back; one name for like topics of many firms is right.

The firms of one checkpoint are compared, in their order, so that the result depends on nothing else. A model that gives
every topic the same name is found at each checkpoint, and the topics then count as not named.
"""

from collections import defaultdict
from typing import Any

from contract.fallbacks import FallbackKind, add_fallbacks, count_fallbacks
from worker.firm import Outcome
from worker.naming.prompt import fallback_name
from worker.naming.relation import concepts_of, content_stems
from worker.naming.validation import same_name
from worker.vocabulary import weight_of

_MIN_TOPICS = 3
"""Two topics that share a name by chance are no sign of anything."""
_LIKE = 0.4
"""The share of the name's other topics with which a topic must have something in common beside the name."""


def take_back_repeats(outcomes: list[Outcome]) -> None:
    """Give topics their keywords for a name, in place, where their name was given to unrelated topics."""
    by_name: dict[str, list[tuple[Outcome, dict[str, Any]]]] = defaultdict(list)
    for outcome in outcomes:
        for row in outcome.rows:
            if row["naming_method"] == "llm":
                by_name[same_name(row["name"])].append((outcome, row))
    for group in by_name.values():
        if len(group) < _MIN_TOPICS:
            continue
        subjects = [_subjects(row) for _, row in group]
        for number, (outcome, row) in enumerate(group):
            others = subjects[:number] + subjects[number + 1 :]
            if sum(not subjects[number].isdisjoint(other) for other in others) < _LIKE * len(others):
                _take_back(outcome, row, len(group))


def _subjects(row: dict[str, Any]) -> set[str | int]:
    """The specific stems of a topic's keywords that its name does not have, and their concepts."""
    stems = {stem for keyword in row["keywords"] for stem in content_stems(keyword) if weight_of(stem) == 1}
    beside = stems.difference(content_stems(row["name"]))
    return beside.union(*(concepts_of(stem) for stem in beside))


def _take_back(outcome: Outcome, row: dict[str, Any], topics: int) -> None:
    reason = f"the name {row['name']!r} was given to {topics} topics of several companies, which are not alike"
    lost = count_fallbacks([(FallbackKind.REPEATED_NAME, reason)])
    outcome.counts.named -= 1
    outcome.counts.incoherent -= row["coherent"] is False
    outcome.counts.fallbacks = add_fallbacks(outcome.counts.fallbacks, lost)
    row.update(name=fallback_name(row["keywords"]), summary="", naming_method="keywords", model=None, coherent=None)
