"""Counts of the names in a run: one name for unrelated topics of many firms is worthless.

A worker compares the topics within one part. When parts are small, a model that gives every topic the same name is
noticed only across parts. So a part's entry in the progress record lists its frequent names with the subjects of their
topics. These counts are added up over all parts and batches of a run, without reading the topics again.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

LISTED_SHARE = 0.02
"""A part lists the names of at least this share of its topics. A name with that share of a run's topics, which would
fail the run, has at least that share in some part."""

MIN_TOPICS = 3
"""Two topics may have the same name by chance."""

_ALIKE = 0.5
"""Topics are similar when at least this share of them has one subject in common."""


@dataclass
class NameUse:
    """The topics with one name. A firm has each name only once, so that every topic is of another firm."""

    topics: int = 0
    subjects: Counter[str] = field(default_factory=Counter[str])
    """How many of the topics have each subject: a word of their keywords that the name lacks, or its concept."""

    @property
    def is_for_unlike_topics(self) -> bool:
        return self.topics >= MIN_TOPICS and max(self.subjects.values(), default=0) < _ALIKE * self.topics


NameUses = Mapping[str, NameUse]
"""By the name, in lower case and without punctuation."""


def add_name_uses(parts: Iterable[NameUses]) -> dict[str, NameUse]:
    """The sum over all parts."""
    total: dict[str, NameUse] = {}
    for part in parts:
        for name, use in part.items():
            known = total.setdefault(name, NameUse())
            known.topics += use.topics
            known.subjects.update(use.subjects)
    return total


def name_records(uses: NameUses) -> dict[str, dict[str, Any]]:
    """The uses as a progress record contains them."""
    return {name: {"topics": use.topics, "subjects": dict(use.subjects)} for name, use in uses.items()}


def parse_name_uses(record: Mapping[str, Any]) -> dict[str, NameUse]:
    """Read what `name_records` returned.

    Raises:
        KeyError, TypeError, ValueError: when it is anything else.
    """
    return {
        str(name): NameUse(int(use["topics"]), Counter({str(one): int(n) for one, n in use["subjects"].items()}))
        for name, use in record.items()
    }
