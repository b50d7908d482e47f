"""Names for a firm's topics: all asked at once, a bad answer once more, and then the keywords must do."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, replace

from contract.batch import Counts
from contract.fallbacks import Fallback, FallbackKind, add_fallbacks, count_fallbacks
from llm.client import Llm, RequestFailed
from worker.firm import Firm, FirmTopics, Topic
from worker.naming import prompt as naming
from worker.naming.validation import Name, Problem, read_answer, repeated_name, same_name
from worker.parts import NamedTopic


@dataclass(frozen=True)
class _Asked:
    """What came of one topic so far: its name, or what was wrong with the answer."""

    messages: list[naming.Message]
    answer: str
    result: Name | Problem
    counts: Counts
    final: bool = False
    """The server refused: asking again is in vain."""


class Namer:
    def __init__(self, llm: Llm) -> None:
        self._llm = llm
        self.fallbacks: dict[str, Fallback] = {}
        """Why topics fell back to their keywords, by kind, over all firms."""

    async def name(self, firm: Firm, found: FirmTopics, taken: Iterable[str] = ()) -> tuple[list[NamedTopic], Counts]:
        """The topics with their names, in their order, and what the names cost.

        Args:
            taken: names that none of them may have.

        Raises:
            LlmError: as `Llm.complete`.
        """
        prompts = [naming.prompt(topic) for topic in found.topics]
        asked = await self._ask_all([*zip(found.topics, prompts, strict=True)], firm, found)
        asked = _without_repeats(asked, taken)

        again = {
            n: _again(one, one.result)
            for n, one in enumerate(asked)
            if isinstance(one.result, Problem) and not one.final
        }
        second = await self._ask_all([(found.topics[n], messages) for n, messages in again.items()], firm, found)
        for number, answer in zip(again, second, strict=True):
            asked[number] = replace(answer, counts=asked[number].counts + answer.counts)
        asked = _without_repeats(asked, taken, first=[n for n in range(len(asked)) if n not in again])

        named = [self._named(topic, one.result) for topic, one in zip(found.topics, asked, strict=True)]
        counts = sum((one.counts for one in asked), Counts())
        counts.topics = len(named)
        counts.named = sum(topic.method == "llm" for topic in named)
        counts.incoherent = sum(topic.coherent is False for topic in named)
        problems = [one.result for one in asked if isinstance(one.result, Problem)]
        counts.fallbacks = count_fallbacks((problem.kind, problem.sentence) for problem in problems)
        self.fallbacks = add_fallbacks(self.fallbacks, counts.fallbacks)
        return named, counts

    async def _ask_all(
        self, topics: list[tuple[Topic, list[naming.Message]]], firm: Firm, found: FirmTopics
    ) -> list[_Asked]:
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._ask(topic, messages, firm, found)) for topic, messages in topics]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _ask(self, topic: Topic, messages: list[naming.Message], firm: Firm, found: FirmTopics) -> _Asked:
        try:
            answer = await self._llm.complete(messages, naming.MAX_TOKENS, naming.RESPONSE_FORMAT)
        except RequestFailed as error:
            counts = Counts(requests=1 + error.retries, retries=error.retries)
            problem = Problem(FallbackKind.REQUEST_FAILED, f"the request failed: {error}")
            return _Asked(messages, "", problem, counts, final=True)
        counts = Counts(
            prompt_tokens=answer.prompt_tokens,
            cached_tokens=answer.cached_tokens,
            completion_tokens=answer.completion_tokens,
            requests=1 + answer.retries,
            retries=answer.retries,
        )
        if answer.truncated:
            problem = Problem(FallbackKind.CUT_OFF, "it is too long, and was cut off")
            return _Asked(messages, answer.content, problem, counts)
        result = read_answer(answer.content, topic, firm.firm_id, found)
        return _Asked(messages, answer.content, result, counts)

    def _named(self, topic: Topic, result: Name | Problem) -> NamedTopic:
        if isinstance(result, Name):
            return NamedTopic(topic, result.name, result.summary, "llm", self._llm.model, result.coherent)
        return NamedTopic(topic, naming.fallback_name(topic.keywords), "", "keywords", None)


def _again(asked: _Asked, problem: Problem) -> list[naming.Message]:
    return naming.ask_again(asked.messages, asked.answer, problem.sentence)


def _without_repeats(asked: list[_Asked], taken: Iterable[str], first: list[int] | None = None) -> list[_Asked]:
    """A name belongs to the first topic that has it, `first` before the others; the others need another one."""
    used = {same_name(name) for name in taken}
    unique = list(asked)
    order = sorted(range(len(asked)), key=lambda number: (first is not None and number not in first, number))
    for number in order:
        one = asked[number]
        if not isinstance(one.result, Name):
            continue
        same = same_name(one.result.name)
        if same in used:
            unique[number] = replace(one, result=repeated_name(one.result.name))
        used.add(same)
    return unique
