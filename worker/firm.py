"""What travels through the worker: a firm with its sentences, and the topics found in them."""

from dataclasses import dataclass, field
from datetime import date


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
    """The few sentences, raw, that stand for the topic before the LLM."""


@dataclass(frozen=True)
class FirmTopics:
    """The topics of one firm, the largest first; without topics, `skipped` says why."""

    topics: list[Topic] = field(default_factory=list[Topic])
    names: frozenset[str] = frozenset()
    """Words, in lower case, of the firm's, its speakers' and its products' names, and the firm's whole name."""
    call_words: frozenset[str] = frozenset()
    """All words of the call and of the firm's name, in lower case."""
    skipped: str = ""
