"""How often a run gave one name, and to which topics: one name for unlike topics of many firms says nothing.

A worker compares the topics of one part; a model that calls everything the same shows only across parts where these are
small. So a part's entry in the progress record has the names that cover much of it, with the subjects of their topics.
These counts add up over all parts and batches of a run, without reading the topics again.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

LISTED_SHARE = 0.02
"""A part lists the names that it gave to at least this share of its topics: a name that covers as much of a run, which
would fail it, covers as much of some part."""

MIN_TOPICS = 3
"""Two topics that share a name by chance are no sign of anything."""

_ALIKE = 0.5
"""Topics are alike when at least this share of them has one subject in common."""


@dataclass
class NameUse:
    """The topics that have one name. Within a firm a name is given once: so many topics are of so many firms."""

    topics: int = 0
    subjects: Counter[str] = field(default_factory=Counter[str])
    """How many of the topics have each subject: a word of their keywords that the name lacks, or its concept."""

    @property
    def is_for_unlike_topics(self) -> bool:
        return self.topics >= MIN_TOPICS and max(self.subjects.values(), default=0) < _ALIKE * self.topics


NameUses = Mapping[str, NameUse]
"""By the name, in lower case and without punctuation."""


def add_name_uses(parts: Iterable[NameUses]) -> dict[str, NameUse]:
    """The uses of names in all parts together."""
    total: dict[str, NameUse] = {}
    for part in parts:
        for name, use in part.items():
            known = total.setdefault(name, NameUse())
            known.topics += use.topics
            known.subjects.update(use.subjects)
    return total


def name_records(uses: NameUses) -> dict[str, dict[str, Any]]:
    """The uses as a progress record holds them."""
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
