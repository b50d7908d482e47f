"""`python -m evaluation.load_generator`: measures, inside Batch jobs, how fast an LLM names topics.

Several of these processes load the LLM like several Batch jobs of a run. They have a common start, so that they measure
each level together: level i begins at BENCH_START + i x (BENCH_SECONDS + BENCH_PAUSE_SECONDS). Each level prints one
line of JSON.
"""

import asyncio
import json
import os
import random
import secrets
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from statistics import quantiles
from typing import TYPE_CHECKING, Any

from contract import env
from contract.fallbacks import count_fallbacks
from llm.settings import LlmSettings, read_llm_settings
from worker import WorkerError
from worker.__main__ import exit_code
from worker.firm import Topic

if TYPE_CHECKING:
    from llm.client import Completion, Llm

_SUBJECTS = ["freight", "margin", "backlog", "pricing", "currency", "volume", "dividend", "drilling", "inventory"]
_VERBS = ["rose", "fell", "improved", "weakened", "stabilised"]
_PLACES = ["Europe", "Asia", "North America", "our largest segment", "the second half"]


def main(environ: Mapping[str, str]) -> int:
    return exit_code(lambda: asyncio.run(_bench(environ)))


def topic(number: int) -> Topic:
    """A generated topic of typical size: eight sentences of about 25 words. No two are the same."""
    chance = random.Random(number)  # noqa: S311 (made-up text)
    subjects: list[str] = chance.sample(_SUBJECTS, 6)
    sentences = [
        f"In {chance.choice(_PLACES)} {chance.choice(subjects)} {chance.choice(_VERBS)}"
        f" by {chance.randint(1, 400) / 10} percent against last year, mostly because {chance.choice(subjects)} and"
        f" {chance.choice(subjects)} {chance.choice(_VERBS)} more than we had planned for case {number}."
        for _ in range(8)
    ]
    return Topic(keywords=subjects, sentence_ids=[], shown=sentences)


async def level(llm: "Llm", in_flight: int, seconds: float, first: int) -> dict[str, Any]:
    """Keep `in_flight` requests in flight for some seconds, on topics numbered from `first`.

    The client's own control of its concurrency is off: the level that is reported is the level that is measured.
    """
    from llm.client import RequestFailed
    from worker.naming.prompt import MAX_TOKENS, RESPONSE_FORMAT, prompt

    done: list[tuple[float, Completion]] = []
    failed: list[tuple[str, str]] = []
    numbers = iter(range(first, sys.maxsize))
    llm.concurrency.fix(in_flight)
    began = time.monotonic()

    async def keep_asking() -> None:
        while (asked := time.monotonic()) - began < seconds:
            try:
                completion = await llm.complete(prompt(topic(next(numbers))), MAX_TOKENS, RESPONSE_FORMAT)
                done.append((time.monotonic() - asked, completion))
            except RequestFailed as error:
                failed.append((error.kind, str(error)))

    await asyncio.gather(*(keep_asking() for _ in range(in_flight)))
    elapsed = time.monotonic() - began
    latencies = [latency for latency, _ in done]
    problems = [completion.problem for _, completion in done if completion.problem]
    unusable = [(problem.kind, problem.reason) for problem in problems]
    cuts = quantiles(latencies, n=20, method="inclusive") if len(latencies) > 1 else latencies * 19
    return {
        "in_flight": in_flight,
        "requests": len(done),
        "errors": len(failed),
        "retries": sum(completion.retries for _, completion in done),
        "seconds": round(elapsed, 3),
        "p50": round(cuts[9], 4) if cuts else None,
        "p95": round(cuts[18], 4) if cuts else None,
        "prompt_tokens": sum(completion.prompt_tokens for _, completion in done),
        "cached_tokens": sum(completion.cached_tokens for _, completion in done),
        "completion_tokens": sum(completion.completion_tokens for _, completion in done),
        "fallbacks": {kind: asdict(one) for kind, one in count_fallbacks([*failed, *unusable]).items()},
    }


async def _bench(environ: Mapping[str, str]) -> None:
    from llm.client import Llm

    levels, seconds, start = _plan(environ)
    settings: LlmSettings = replace(read_llm_settings(environ), max_concurrent=max(levels))
    async with Llm(settings) as llm:
        await llm.check_model()
        for number, in_flight in enumerate(levels):
            await asyncio.sleep(max(0.0, start + number * (seconds + env.BENCH_PAUSE_SECONDS) - time.time()))
            # Each level has its own topics, so that the prefix cache contains only the instructions. They are random
            # because nothing distinguishes the containers, not even the process id.
            print(json.dumps(await level(llm, in_flight, seconds, first=secrets.randbelow(10**10))), flush=True)


def _plan(environ: Mapping[str, str]) -> tuple[list[int], float, float]:
    try:
        levels = [int(text) for text in env.required(environ, env.BENCH_LEVELS).split(",")]
        seconds = float(env.required(environ, env.BENCH_SECONDS))
        start = float(env.required(environ, env.BENCH_START))
    except ValueError as error:
        raise WorkerError(f"{env.BENCH_LEVELS}, {env.BENCH_SECONDS} or {env.BENCH_START} is wrong: {error}") from error
    if min(levels) < 1 or seconds <= 0:
        raise WorkerError(f"{env.BENCH_LEVELS} and {env.BENCH_SECONDS} must be above zero")
    return levels, seconds, start


if __name__ == "__main__":
    sys.exit(main(os.environ))
