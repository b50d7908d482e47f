"""Why topics have their keywords instead of a name: the kinds of reasons, and how many topics each kind has.

A worker counts them for each firm; the progress record and the run's summary contain the sums.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypedDict

_MAX_EXAMPLE = 200
"""Characters of an example: a record contains one for each firm and kind."""


class FallbackKind(StrEnum):
    """Why a topic has no name from the LLM. The values are stored in the progress records."""

    # The request failed, or the server cut it.
    REQUEST_REFUSED = "request_refused"
    REQUEST_FAILED = "request_failed"
    CONTENT_FILTER = "content_filter"
    CONTEXT_TOO_SMALL = "context_too_small"
    PROMPT_TRUNCATED = "prompt_truncated"
    # The format of the answer.
    CUT_OFF = "cut_off"
    UNREADABLE = "unreadable"
    # The content of the answer.
    EMPTY = "empty"
    TOO_LONG = "too_long"
    FIRM_NAME = "firm_name"
    KEYWORD_LIST = "keyword_list"
    VACUOUS = "vacuous"
    LOOPING_SUMMARY = "looping_summary"
    COPIED_EXAMPLE = "copied_example"
    FOREIGN_NAME = "foreign_name"
    UNRELATED = "unrelated"
    REPEATED_NAME = "repeated_name"


@dataclass(frozen=True)
class Fallback:
    """The topics that fell back for reasons of one kind."""

    topics: int
    example: str
    """One of the reasons, in words."""


class FallbackRecord(TypedDict):
    """One kind in a run's summary."""

    reason: str
    """The kind, as in `FallbackKind`; records of another version of ftm may contain others."""
    topics: int
    example: str


Fallbacks = Mapping[str, Fallback]
"""By kind."""


def count_fallbacks(reasons: Iterable[tuple[str, str]]) -> dict[str, Fallback]:
    """Count (kind, reason) pairs, one for each topic that fell back; the first reason of a kind is its example."""
    counted: dict[str, Fallback] = {}
    for kind, reason in reasons:
        counted = add_fallbacks(counted, {str(kind): Fallback(1, reason[:_MAX_EXAMPLE])})
    return counted


def add_fallbacks(one: Fallbacks, other: Fallbacks) -> dict[str, Fallback]:
    """The sum of two counts, with the examples of the first."""
    added = dict(one)
    for kind, fallback in other.items():
        known = added.get(kind)
        added[kind] = Fallback(known.topics + fallback.topics, known.example) if known else fallback
    return added


def fallback_records(fallbacks: Fallbacks) -> list[FallbackRecord]:
    """The counts as a summary has them, the most frequent kind first."""
    ordered = sorted(fallbacks.items(), key=lambda item: (-item[1].topics, item[0]))
    return [FallbackRecord(reason=kind, topics=one.topics, example=one.example) for kind, one in ordered]


def fallback_lines(fallbacks: Fallbacks) -> list[str]:
    """One sentence for each kind with one of its reasons, the most frequent kind first."""
    return [
        f"{_topics(one['topics'])} no name: {one['example']} (kind: {one['reason']})"
        for one in fallback_records(fallbacks)
    ]


def parse_fallbacks(record: Mapping[str, Any]) -> dict[str, Fallback]:
    """The counts as a progress record contains them: `{kind: {"topics": 3, "example": "..."}}`.

    Raises:
        KeyError, TypeError, ValueError: when it is anything else.
    """
    return {str(kind): Fallback(_count(one["topics"]), str(one["example"])) for kind, one in record.items()}


def _topics(count: int) -> str:
    return "1 topic has" if count == 1 else f"{count} topics have"


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"a count of topics is {value!r}")
    return value
