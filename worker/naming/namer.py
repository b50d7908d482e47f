"""Names a firm's topics: all requests are sent at once, an unusable answer is requested once more, and after that the
topic keeps its keywords."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace

from contract.batch import Counts
from contract.fallbacks import Fallback, FallbackKind, add_fallbacks, count_fallbacks, fallback_lines
from llm import LlmError
from llm.client import Llm, RequestFailed
from worker.firm import Firm, FirmTopics, Topic
from worker.naming import prompt as naming
from worker.naming.validation import Name, Problem, read_answer, repeated_name, same_name
from worker.parts import NamedTopic

FIRST_TOPICS = 40
"""Topics by which a batch decides whether the LLM can name at all."""
MAX_FIRST_FALLBACKS = 30
"""The batch ends if this many of the first topics have no name: with a wrong chat template or a weak model, later
topics would have none either."""


@dataclass(frozen=True)
class _Asked:
    """The latest answer about a topic: its name, or the problem with it."""

    messages: list[naming.Message]
    answer: str
    result: Name | Problem
    counts: Counts
    final: bool = False
    """Whether asking again is pointless: the server refused the request, or cut the prompt."""


class Namer:
    """The namer of a batch's topics.

    Args:
        on_answer: called after the first answer about each topic.
    """

    def __init__(self, llm: Llm, on_answer: Callable[[], Awaitable[None]] | None = None) -> None:
        self._llm = llm
        self._on_answer = on_answer
        self.fallbacks: dict[str, Fallback] = {}
        """Why topics fell back to their keywords, by kind, over all firms."""
        self.found = 0
        """Topics of the firms whose topics were asked about."""
        self.answered = 0
        """Topics about which the first answer has come."""
        self.decided = 0
        """Topics that have a name, or have fallen back."""
        self._most_sentences: int | None = None
        """How many sentences of a topic fit into the model's context; None while all do."""
        self._stopped = ""
        """Why no more requests are sent; empty while they are."""

    async def name(self, firm: Firm, found: FirmTopics, taken: Iterable[str] = ()) -> tuple[list[NamedTopic], Counts]:
        """The topics with their names, in their order, and the counts of the requests.

        Args:
            taken: names that none of them may have.

        Raises:
            LlmError: as `Llm.complete`; or when nearly all of the first topics fell back to their keywords.
        """
        self.found += len(found.topics)
        asked = await self._ask_all([(topic, None) for topic in found.topics], firm, found)
        asked = _without_repeats(asked, taken)

        again = {n: one for n, one in enumerate(asked) if isinstance(one.result, Problem) and not one.final}
        second = await self._ask_all([(found.topics[n], one) for n, one in again.items()], firm, found)
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
        self._count(counts)
        return named, counts

    async def _ask_all(self, topics: list[tuple[Topic, _Asked | None]], firm: Firm, found: FirmTopics) -> list[_Asked]:
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._ask(topic, before, firm, found)) for topic, before in topics]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _ask(self, topic: Topic, before: _Asked | None, firm: Firm, found: FirmTopics) -> _Asked:
        """Ask about a topic; with an answer `before`, ask again and say what was wrong with it."""
        if before and isinstance(before.result, Problem):
            messages = naming.ask_again(before.messages, before.answer, before.result.sentence)
            return await self._ask_once(topic, messages, firm, found, is_second=True)
        asked = await self._ask_first(topic, firm, found)
        self.answered += 1
        if self._on_answer:
            await self._on_answer()
        return asked

    async def _ask_first(self, topic: Topic, firm: Firm, found: FirmTopics) -> _Asked:
        """Ask about a topic; a prompt that exceeds the model's context is sent again with half of its sentences."""
        shown = topic.shown[: self._most_sentences]
        counts = Counts()
        while True:
            messages = naming.prompt(replace(topic, shown=shown), found.topics)
            asked = await self._ask_once(topic, messages, firm, found)
            asked = replace(asked, counts=counts + asked.counts)
            if not isinstance(asked.result, Problem) or asked.result.kind != FallbackKind.CONTEXT_TOO_SMALL:
                if len(shown) < len(topic.shown):
                    self._most_sentences = min(len(shown), self._most_sentences or len(shown))
                return asked
            if len(shown) < 2:
                return asked
            shown, counts = shown[: len(shown) // 2], asked.counts

    async def _ask_once(
        self, topic: Topic, messages: list[naming.Message], firm: Firm, found: FirmTopics, is_second: bool = False
    ) -> _Asked:
        if self._stopped:
            raise LlmError(self._stopped)
        try:
            # A second request goes before the first ones of other firms: a firm's topics are decided together.
            answer = await self._llm.complete(messages, naming.MAX_TOKENS, naming.RESPONSE_FORMAT, first=is_second)
        except RequestFailed as error:
            counts = Counts(requests=1 + error.retries, retries=error.retries)
            return _Asked(messages, "", Problem(error.kind, f"the request failed: {error}"), counts, final=True)
        counts = Counts(
            prompt_tokens=answer.prompt_tokens,
            cached_tokens=answer.cached_tokens,
            completion_tokens=answer.completion_tokens,
            requests=1 + answer.retries,
            retries=answer.retries,
        )
        if answer.problem:
            problem = Problem(answer.problem.kind, answer.problem.reason)
            is_final = problem.kind in (FallbackKind.PROMPT_TRUNCATED, FallbackKind.CONTEXT_TOO_SMALL)
            return _Asked(messages, answer.content, problem, counts, final=is_final)
        result = read_answer(answer.content, topic, firm.firm_id, found)
        return _Asked(messages, answer.content, result, counts)

    def _named(self, topic: Topic, result: Name | Problem) -> NamedTopic:
        if isinstance(result, Name):
            return NamedTopic(topic, result.name, result.summary, "llm", self._llm.model, result.coherent)
        return NamedTopic(topic, naming.fallback_name(topic.keywords), "", "keywords", None)

    def _count(self, counts: Counts) -> None:
        """Add a firm; when nearly all of the first topics have no name, no other topic is asked about."""
        is_among_the_first = self.decided < FIRST_TOPICS
        self.decided += counts.topics
        self.fallbacks = add_fallbacks(self.fallbacks, counts.fallbacks)
        without = sum(one.topics for one in self.fallbacks.values())
        share = MAX_FIRST_FALLBACKS / FIRST_TOPICS
        if is_among_the_first and without >= max(MAX_FIRST_FALLBACKS, share * self.decided):
            self._stopped = (
                f"{without} of the first {self.decided} topics have no name from {self._llm.model}, so the batch stops"
                f" here; {fallback_lines(self.fallbacks)[0]}. Check the model and its chat template (ftm vllm logs)"
            )


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
