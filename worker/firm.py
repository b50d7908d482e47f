"""The data that the worker processes: a firm with its sentences, the topics found in them, and a firm's outcome."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from contract.batch import Counts


@dataclass(frozen=True)
class Sentence:
    sentence_id: str
    raw_text: str
    cleaned_text: str
    speaker_type: str = ""
    transcript_id: str = ""
    position: int = 0


@dataclass(frozen=True)
class Firm:
    firm_id: str
    firm_name: str
    permno: int | None
    gvkey: str | None
    earnings_call_date: date | None
    sentences: list[Sentence]


@dataclass(frozen=True)
class Topic:
    keywords: list[str]
    sentence_ids: list[str]
    """All sentences of the topic, in the order of the call."""
    shown: list[str]
    """The few sentences, as spoken, that represent the topic in the prompt."""
    questions: frozenset[int] = frozenset()
    """Indices in `shown` of analysts' questions."""
    core_ids: frozenset[str] = frozenset()
    """Ids of the sentences from which the topic is named and described; the others are attached to these."""
    cosines: Sequence[float] = ()
    """Cosine of each of `sentence_ids` to the topic's centroid."""


@dataclass(frozen=True)
class FirmTopics:
    """The topics of one firm, the largest first; when there are none, `skipped` says why."""

    topics: list[Topic] = field(default_factory=list[Topic])
    names: frozenset[str] = frozenset()
    """Words, in lower case, of the firm's, its speakers' and its products' names, and the firm's whole name."""
    call_words: frozenset[str] = frozenset()
    """All words of the call and of the firm's name, in lower case."""
    skipped: str = ""


@dataclass
class Outcome:
    """The result of one firm: its topics, or why it was skipped, or why it failed."""

    firm_id: str
    rows: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """One row for each topic, as in `worker.parts`."""
    counts: Counts = field(default_factory=Counts)
    skipped: str = ""
    failed: str = ""
