"""`python -m evaluation.smoke_job`: names three topics as a run's jobs would, and prints one line of JSON.

It runs in a Batch job, with the stack's own image, address and network. The topics are the largest ones of three firms
of the quarter in QUARTER. Without a quarter, or if its prefetch cannot be read, they are three short ones in this
module: the LLM is tested, and not the prefetch. It exits with 1, and the reason on stderr, when fewer than two get a
name.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, TypedDict

from contract import ContractError, env
from llm.settings import LlmSettings, read_llm_settings
from worker import WorkerError
from worker.__main__ import exit_code
from worker.firm import Firm, FirmTopics, Topic

if TYPE_CHECKING:
    from worker.naming.namer import Namer

TOPICS = 3
_MIN_NAMED = 2
"""Of three: one in fifty answers of a good model is refused."""
_FIRMS_TRIED = 30
"""Calls in a row without any topic that are tried: each costs a fraction of a second."""

_BUILT_IN = (
    (
        "wages, overtime, nurses",
        "Hourly wages rose by 6% in our distribution centers.",
        "We still pay more overtime than we would like, because open positions take ten weeks to fill.",
        "Agency nurses cost us twice what our own nurses do.",
    ),
    (
        "dollar, currency, euro",
        "The stronger dollar took three points off reported growth.",
        "In constant currency, sales grew by 5%, with the euro and the yen both weaker.",
        "Currency translation reduced operating income by $11 million.",
    ),
    (
        "stores, openings, leases",
        "We opened 14 stores in the quarter and closed three.",
        "New stores reach the average sales of older stores in their third year.",
        "Leases for next year's store openings are signed.",
    ),
)


class Smoke(TypedDict):
    """What the job prints, and `ftm vllm smoke --json`."""

    passed: bool
    """Whether at least two of three topics have a name."""
    model: str
    base_url: str
    topics: "list[SmokeTopic]"


class SmokeTopic(TypedDict):
    """The result for one topic."""

    firm_id: str
    keywords: list[str]
    name: str
    summary: str
    """Empty when the topic has no name."""
    problem: str
    """Why it has no name from the LLM, in a sentence; empty when it has one."""
    seconds: float
    requests: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


def main(environ: Mapping[str, str]) -> int:
    return exit_code(lambda: asyncio.run(_smoke(environ)))


async def _smoke(environ: Mapping[str, str]) -> None:
    # Heavy modules are imported only now, so that a wrong variable is reported at once.
    from llm.client import Llm
    from worker.naming.namer import Namer

    settings: LlmSettings = read_llm_settings(environ)
    topics: list[SmokeTopic] = []
    async with Llm(settings) as llm:
        await llm.check_model()
        namer = Namer(llm)
        for firm, found in await _choose_topics(environ):
            topics.append(await _name(firm, found, namer))
    refused = [topic for topic in topics if topic["problem"]]
    passed = len(topics) - len(refused) >= min(_MIN_NAMED, len(topics))
    document: Smoke = {"passed": passed, "model": llm.model, "base_url": settings.base_url, "topics": topics}
    print(json.dumps(document, ensure_ascii=False), flush=True)
    if not passed:
        named = f"{llm.model} named {len(topics) - len(refused)} of {len(topics)} topics"
        raise WorkerError(f"{named}; {', '.join(refused[0]['keywords'])}: {refused[0]['problem']}")


async def _choose_topics(environ: Mapping[str, str]) -> list[tuple[Firm, FirmTopics]]:
    topics: list[tuple[Firm, FirmTopics]] = []
    if environ.get(env.QUARTER):
        try:
            async for topic in _read_topics(environ):
                topics.append(topic)
                if len(topics) == TOPICS:
                    break
        except (WorkerError, ContractError) as error:
            print(f"smoke test: built-in topics are named, because {error}", file=sys.stderr, flush=True)
    return topics or list(_built_in())


async def _name(firm: Firm, found: FirmTopics, namer: "Namer") -> SmokeTopic:
    began = time.monotonic()
    (named,), counts = await namer.name(firm, found)
    problem = next((fallback.example for fallback in counts.fallbacks.values()), "")
    return {
        "firm_id": firm.firm_id,
        "keywords": named.topic.keywords,
        "name": named.name,
        "summary": named.summary,
        "problem": problem,
        "seconds": round(time.monotonic() - began, 2),
        "requests": counts.requests,
        "prompt_tokens": counts.prompt_tokens,
        "cached_tokens": counts.cached_tokens,
        "completion_tokens": counts.completion_tokens,
    }


async def _read_topics(environ: Mapping[str, str]) -> AsyncIterator[tuple[Firm, FirmTopics]]:
    """The largest topic of each of the quarter's first firms that have one."""
    from worker.prefetch import read_firms, read_manifest
    from worker.storage import open_bucket
    from worker.topics.process import TopicProcess

    bucket, quarter = open_bucket(env.required(environ, env.S3_BUCKET)), environ[env.QUARTER]
    firm_ids = read_manifest(bucket, quarter).firm_ids[:_FIRMS_TRIED]
    with TopicProcess(environ.get(env.TOPIC_EMBEDDING_MODEL, "")) as process:
        async for firm in read_firms(bucket, quarter, firm_ids):
            if isinstance(firm, Firm):
                found = await process.find_topics(firm)
                if found.topics:
                    yield firm, replace(found, topics=found.topics[:1])


def _built_in() -> Iterator[tuple[Firm, FirmTopics]]:
    for number, (keywords, *sentences) in enumerate(_BUILT_IN, 1):
        firm = Firm(f"SAMPLE{number}", "Sample", None, None, None, [])
        words = " ".join(sentences).lower().split()
        yield firm, FirmTopics([Topic(keywords.split(", "), [], sentences)], call_words=frozenset(words))


if __name__ == "__main__":
    sys.exit(main(os.environ))
