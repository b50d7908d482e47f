"""Who speaks each sentence of a call, and whether in the prepared remarks or in the questions and answers."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from worker.firm import Sentence

Role = Literal["executive", "analyst", "operator"]
Section = Literal["prepared", "qa"]

_ROLES: tuple[tuple[Role, re.Pattern[str]], ...] = (
    ("analyst", re.compile(r"analyst|questioner")),
    ("operator", re.compile(r"operator|moderator")),
    ("executive", re.compile(r"executive|management|officer|president|chair|director|\bc[efo]o\b|company|presenter")),
)
"""How data providers name them in speaker_type, in lower case."""
_FIRST_ANALYST = re.compile(
    r"(first|next) question (comes|is coming|will come|is from)|operator instructions|your line is (now )?open"
    r"|from the line of"
)
"""An operator's words before a question, for calls that do not name their speakers."""


@dataclass(frozen=True)
class Spoken:
    role: Role | None
    """None where speaker_type does not say."""
    section: Section | None
    """None if neither speakers nor an operator's words show where the questions begin."""


def spoken(sentences: Iterable[Sentence]) -> dict[str, Spoken]:
    """Role and section of each sentence of a firm, by sentence id. Each of its transcripts has its own sections."""
    calls: dict[str, list[Sentence]] = {}
    for sentence in sentences:
        calls.setdefault(sentence.transcript_id, []).append(sentence)
    found: dict[str, Spoken] = {}
    for call in calls.values():
        call.sort(key=lambda sentence: (sentence.position, sentence.sentence_id))
        roles: list[Role | None] = [_role(sentence.speaker_type) for sentence in call]
        start = _start_of_questions(call, roles)
        for number, (sentence, role) in enumerate(zip(call, roles, strict=True)):
            section = None if start is None else "qa" if number >= start else "prepared"
            found.setdefault(sentence.sentence_id, Spoken(role, section))
    return found


def _role(speaker_type: str) -> Role | None:
    lower = speaker_type.casefold()
    return next((role for role, pattern in _ROLES if pattern.search(lower)), None)


def _start_of_questions(call: Sequence[Sentence], roles: Sequence[Role | None]) -> int | None:
    """The index at which questions begin; the end of a call without analysts; None if it is not known."""
    if not any(roles):
        return next((n for n, sentence in enumerate(call) if _FIRST_ANALYST.search(sentence.raw_text.lower())), None)
    if "analyst" not in roles:
        return len(call)
    start = roles.index("analyst")
    while start and roles[start - 1] == "operator":
        start -= 1
    return start
