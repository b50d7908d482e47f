"""Decides which answers of the LLM become a topic's name, and says what is wrong with the others.

A refused answer is a `Problem`: a run counts problems by `kind`, and the second request tells the LLM the `sentence`.
"""

import re
from dataclasses import dataclass
from itertools import pairwise

from contract.fallbacks import FallbackKind
from llm.answers import Unreadable, read_object
from worker.firm import FirmTopics, Topic
from worker.firm_names import contains_name, contains_ticker
from worker.naming import content
from worker.naming.prompt import EXAMPLES, MAX_NAME_CHARS, MAX_NAME_WORDS, MAX_SUMMARY_CHARS
from worker.naming.relation import Relation
from worker.vocabulary import stem, weight_of
from worker.words import all_words, one_line


@dataclass(frozen=True)
class Problem:
    kind: FallbackKind
    sentence: str
    """For the LLM, without a full stop; it completes "That answer cannot be used: "."""


@dataclass(frozen=True)
class Name:
    name: str
    summary: str
    coherent: bool | None = None
    """Whether the LLM says that the sentences share one subject; None when it does not say."""


def read_answer(text: str, topic: Topic, firm_id: str, found: FirmTopics) -> Name | Problem:
    """The name in an answer, or the problem with it.

    Args:
        text: the LLM's answer, in any format that `llm.answers` reads.
        firm_id: the firm's ticker; the answer may contain it only if the shown sentences do.
        found: the topics of the topic's firm, for the names and the words of its call.
    """
    record = read_object(text, ("name", "summary"), optional=("coherent",))
    if isinstance(record, Unreadable):
        return Problem(record.kind, record.reason)
    answer = Name(one_line(record["name"]).strip(" .\"'"), one_line(record["summary"]), _coherent(record))
    return find_problem(answer, topic, firm_id, found) or answer


def _coherent(record: dict[str, object]) -> bool | None:
    answers: dict[object, bool] = {"true": True, "false": False}
    return answers.get(str(record.get("coherent")).lower())


def find_problem(answer: Name, topic: Topic, firm_id: str, found: FirmTopics) -> Problem | None:
    """The first problem with an answer's content, if there is one. Arguments as for `read_answer`."""
    return (
        _wrong_length(answer)
        or _says_own_name(answer, topic, firm_id, found.names)
        or _says_nothing(answer, topic)
        or _comes_from_elsewhere(answer, topic, found.call_words)
    )


def repeated_name(name: str) -> Problem:
    """The problem with a name that another topic of the firm has."""
    sentence = f"another topic has the name {name!r} already; be more specific"
    return Problem(FallbackKind.REPEATED_NAME, sentence)


def same_name(name: str) -> str:
    """A key that is equal for names that differ only in case and punctuation."""
    return " ".join(all_words(name))


def _wrong_length(answer: Name) -> Problem | None:
    if not any(character.isalpha() for character in answer.name):
        return Problem(FallbackKind.EMPTY, "the name is empty")
    if len(all_words(answer.name)) > MAX_NAME_WORDS or len(answer.name) > MAX_NAME_CHARS:
        sentence = f"the name has more than {MAX_NAME_WORDS} words or {MAX_NAME_CHARS} characters"
        return Problem(FallbackKind.TOO_LONG, sentence)
    if not answer.summary:
        return Problem(FallbackKind.EMPTY, "the summary is empty")
    if len(answer.summary) > MAX_SUMMARY_CHARS:
        return Problem(FallbackKind.TOO_LONG, "the summary is longer than one short sentence")
    return None


def _says_own_name(answer: Name, topic: Topic, firm_id: str, names: frozenset[str]) -> Problem | None:
    texts = (answer.name, answer.summary)
    said = sorted(name for name in names if any(contains_name(text, name, names) for text in texts))
    if said:
        return Problem(FallbackKind.FIRM_NAME, f"it says {said[0]!r}, the name of a company, person or product")
    # Tickers such as AI, IT and KEY are also terms or common words: sentences that contain them allow them.
    said_ticker, shown_ticker = (any(contains_ticker(one, firm_id) for one in each) for each in (texts, topic.shown))
    if said_ticker and not shown_ticker:
        return Problem(FallbackKind.FIRM_NAME, f"it says {firm_id!r}, the company's ticker")
    return None


def _says_nothing(answer: Name, topic: Topic) -> Problem | None:
    if _is_list_of_keywords(answer.name, topic):
        return Problem(FallbackKind.KEYWORD_LIST, "the name only lists the keywords")
    if content.is_vacuous(answer.name):
        sentence = f"the name {answer.name!r} would fit any company; name what most of the sentences share"
        return Problem(FallbackKind.VACUOUS, sentence)
    if content.loops(answer.summary):
        return Problem(FallbackKind.LOOPING_SUMMARY, "the summary repeats itself")
    return None


def _comes_from_elsewhere(answer: Name, topic: Topic, call_words: frozenset[str]) -> Problem | None:
    relation = Relation(topic.shown, topic.keywords)
    if content.is_copied(answer.name, EXAMPLES, relation):
        sentence = f"the name {answer.name!r} is copied from the instructions, and the sentences are not about that"
        return Problem(FallbackKind.COPIED_EXAMPLE, sentence)
    for text in (answer.name, answer.summary):
        if foreign := content.name_from_elsewhere(text, relation, call_words):
            return Problem(FallbackKind.FOREIGN_NAME, f"it says {foreign!r}, which the call does not mention")
    if content.is_unrelated(answer.name, answer.summary, relation):
        sentence = "it is not about what the sentences say; use their subject and not another one"
        return Problem(FallbackKind.UNRELATED, sentence)
    return None


def _is_list_of_keywords(name: str, topic: Topic) -> bool:
    """Whether the name is only a list of keywords: two with a comma, or three that do not form a phrase.

    "Crude oil prices" and "Prices and drilling" consist of two keywords, but are good labels for a chart.
    """
    parts = [part for part in re.split(r"\s*(?:,|\band\b)\s*", name.lower()) if part]
    if len(parts) > (1 if "," in name else 2) and all(part in topic.keywords for part in parts):
        return True
    row = f" {same_name(name)} "
    found = sorted(
        (row.find(f" {word} "), number, word) for number, word in enumerate(topic.keywords) if f" {word} " in row
    )
    for _, _, word in sorted(found, key=lambda one: -len(one[2])):
        row = row.replace(f" {word} ", " , ")
    if len(row.split()) < 3 or set(row.split()) != {","}:
        return False
    return not _is_phrase(name, topic, [number for _, number, _ in found])


def _is_phrase(name: str, topic: Topic, order: list[int]) -> bool:
    """Whether a sequence of keywords is a phrase: its last word is generic, or the sentences contain parts of it.

    A sequence in the order of the list of keywords is a copy of the list, unless the sentences contain all of it.
    """
    words = all_words(name)
    if weight_of(stem(words[-1])) < 1:
        return True
    said = [f" {same_name(text)} " for text in topic.shown]
    pairs = [any(f" {first} {second} " in text for text in said) for first, second in pairwise(words)]
    return all(pairs) or (any(pairs) and order != sorted(order))
