"""Which answers of the LLM become a topic's name, and what is wrong with the others.

A refused answer is a `Problem`: its `kind` groups the results of a run, and its `sentence` goes back to the LLM with
the second request.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

from contract.fallbacks import FallbackKind
from worker.firm import Topic
from worker.naming.prompt import MAX_NAME_CHARS, MAX_NAME_WORDS, MAX_SUMMARY_CHARS
from worker.words import all_words, one_line


@dataclass(frozen=True)
class Problem:
    kind: FallbackKind
    sentence: str
    """In words for the LLM, without a full stop; it completes "That answer cannot be used: "."""


@dataclass(frozen=True)
class Name:
    name: str
    summary: str


def read_answer(content: str, topic: Topic, firm_id: str, names: Iterable[str]) -> Name | Problem:
    """The name in an answer, or the problem with it.

    Args:
        content: the LLM's text; JSON, in which raw control characters are accepted.
        firm_id: the firm's ticker; the answer may contain it only if the shown sentences do.
        names: in lower case, words of the firm's, its people's and its products' names, and the firm's whole name.
    """
    try:
        record = json.loads(content, strict=False)
    except (ValueError, RecursionError):
        return Problem(FallbackKind.UNREADABLE, "it is not a JSON object")
    match record:
        case {"name": str(name), "summary": str(summary)}:
            answer = Name(one_line(name).strip(" .\"'"), one_line(summary))
        case _:
            sentence = 'it is not a JSON object with the strings "name" and "summary"'
            return Problem(FallbackKind.UNREADABLE, sentence)
    return find_problem(answer, topic, firm_id, frozenset(names)) or answer


def find_problem(answer: Name, topic: Topic, firm_id: str, names: frozenset[str]) -> Problem | None:
    """The first problem with an answer's content, if there is one. Arguments as for `read_answer`."""
    if not any(character.isalpha() for character in answer.name):
        return Problem(FallbackKind.EMPTY, "the name is empty")
    if len(all_words(answer.name)) > MAX_NAME_WORDS or len(answer.name) > MAX_NAME_CHARS:
        sentence = f"the name has more than {MAX_NAME_WORDS} words or {MAX_NAME_CHARS} characters"
        return Problem(FallbackKind.TOO_LONG, sentence)
    if not answer.summary:
        return Problem(FallbackKind.EMPTY, "the summary is empty")
    if len(answer.summary) > MAX_SUMMARY_CHARS:
        return Problem(FallbackKind.TOO_LONG, "the summary is longer than one short sentence")
    text = f" {same_name(answer.name)} | {same_name(answer.summary)} "
    said = sorted(name for name in names if f" {name} " in text)
    if said:
        return Problem(FallbackKind.FIRM_NAME, f"it says {said[0]!r}, the name of a company, person or product")
    if _says_ticker(answer, topic, firm_id):
        return Problem(FallbackKind.FIRM_NAME, f"it says {firm_id!r}, the company's ticker")
    if _is_list_of_keywords(answer.name, topic):
        return Problem(FallbackKind.KEYWORD_LIST, "the name only lists the keywords")
    return None


def repeated_name(name: str) -> Problem:
    """The problem with a name that another topic of the firm has."""
    sentence = f"another topic of this company has the name {name!r} already; be more specific"
    return Problem(FallbackKind.REPEATED_NAME, sentence)


def same_name(name: str) -> str:
    """A key that is equal for two names which a reader would take for the same."""
    return " ".join(all_words(name))


def _says_ticker(answer: Name, topic: Topic, firm_id: str) -> bool:
    """Whether the answer contains the ticker and the shown sentences do not.

    Tickers such as AI, IT and KEY are also terms or common words: sentences that contain them allow them.
    """
    if len(firm_id) < 2 or not any(character.isalpha() for character in firm_id):
        return False
    ticker = re.compile(rf"\b{re.escape(firm_id)}\b")
    texts = (answer.name, answer.summary)
    return any(map(ticker.search, texts)) and not any(map(ticker.search, topic.shown))


def _is_list_of_keywords(name: str, topic: Topic) -> bool:
    """Whether the name only strings keywords together: two with a comma, or three.

    "Crude oil prices" and "Prices and drilling" consist of two keywords and are still labels for a chart; so is a
    phrase that the sentences use, such as "loan loss provision".
    """
    parts = [part for part in re.split(r"\s*(?:,|\band\b)\s*", name.lower()) if part]
    if len(parts) > (1 if "," in name else 2) and all(part in topic.keywords for part in parts):
        return True
    said = row = f" {same_name(name)} "
    for keyword in sorted(topic.keywords, key=len, reverse=True):
        row = row.replace(f" {keyword} ", " , ")
    in_a_row = len(row.split()) > 2 and set(row.split()) == {","}
    return in_a_row and not any(said in f" {same_name(text)} " for text in topic.shown)
