"""Naming on a real vLLM: the worker's client beside the barest one, and its prompt beside the reference's."""

import asyncio
import json
import re
import time
from typing import Any
from urllib.parse import urlsplit

from worker.bench import topic as made_up_topic
from worker.firm import Firm, Topic
from worker.llm import Llm
from worker.naming import INSTRUCTIONS, MAX_TOKENS, prompt, response_format
from worker.settings import LlmSettings
from worker.topics import find_topics

ROUNDS = 4
REFERENCE_SENTENCES = 50
"""The reference shows up to so many sentences, and repeats its instructions after them."""


def throughput(base_url: str, model: str, requests: int = 160) -> list[dict[str, Any]]:
    """Requests a second of both clients on the same load, and the CPU of one request.

    The requests are the same, and the server has met them before: it computes as much for the one as for the other.
    """
    bodies = [_body(made_up_topic(number), model) for number in range(requests)]
    asyncio.run(_barest(base_url, model, bodies, 64))
    rows: list[dict[str, Any]] = []
    for in_flight in (16, 64):
        seconds = {"worker": 0.0, "barest": 0.0}
        cpu = {"worker": 0.0, "barest": 0.0}
        clients = [("worker", _with_worker), ("barest", _barest)]
        for _ in range(ROUNDS):
            for client, run in clients:
                wall, used = time.monotonic(), time.process_time()
                asyncio.run(run(base_url, model, bodies, in_flight))
                seconds[client] += time.monotonic() - wall
                cpu[client] += time.process_time() - used
            clients.reverse()
        sent = ROUNDS * requests
        rows.append(
            {
                "in flight": in_flight,
                "worker req/s": round(sent / seconds["worker"], 1),
                "barest req/s": round(sent / seconds["barest"], 1),
                "ratio": round(seconds["barest"] / seconds["worker"], 3),
                "worker CPU ms/req": round(1000 * cpu["worker"] / sent, 2),
                "barest CPU ms/req": round(1000 * cpu["barest"] / sent, 2),
            }
        )
    return rows


def tokens(firms: list[Firm]) -> list[dict[str, Any]]:
    """Prompt tokens a topic, and those of them that come after what all prompts share, which vLLM computes once.

    Counted as Qwen3's tokenizer nearly does: a word, a digit and a mark are a token each.
    """
    found = [(firm, topic) for firm in firms for topic in find_topics(firm).topics]
    prompts = {
        "worker": [prompt(topic) for _, topic in found],
        "reference": [_reference_prompt(firm, topic) for firm, topic in found],
    }
    uncached = {name: sum(_tokens(user["content"]) for _, user in asked) for name, asked in prompts.items()}
    return [
        {
            "prompt": name,
            "topics": len(found),
            "tokens/topic": round(uncached[name] / len(found) + _tokens(INSTRUCTIONS)),
            "uncached/topic": round(uncached[name] / len(found)),
            "of the reference": round(uncached[name] / uncached["reference"], 3),
        }
        for name in prompts
    ]


def _tokens(text: str) -> int:
    return len(re.findall(r"[^\W\d_]+|\d|[^\w\s]", text))


def _body(topic: Topic, model: str) -> dict[str, Any]:
    return {
        "model": model,
        "messages": prompt(topic),
        "max_tokens": MAX_TOKENS,
        "temperature": 0,
        "response_format": response_format(lengths=True),
        "chat_template_kwargs": {"enable_thinking": False},
    }


async def _with_worker(base_url: str, model: str, bodies: list[dict[str, Any]], in_flight: int) -> None:
    async with Llm(LlmSettings(base_url, model, in_flight)) as llm:
        schema = response_format(lengths=True)
        await asyncio.gather(*(llm.complete(body["messages"], MAX_TOKENS, schema) for body in bodies))


async def _barest(base_url: str, _model: str, bodies: list[dict[str, Any]], in_flight: int) -> None:
    """Sockets and nothing else: no client can do less."""
    address = urlsplit(base_url)
    waiting = iter([json.dumps(body).encode() for body in bodies])

    async def connection() -> None:
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        for body in waiting:
            head = (
                f"POST {address.path}/chat/completions HTTP/1.1\r\nHost: {address.netloc}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            writer.write(head.encode() + body)
            headers = (await reader.readuntil(b"\r\n\r\n")).lower()
            assert headers.startswith(b"http/1.1 200"), headers
            length = int(headers.split(b"content-length:")[1].split(b"\r\n")[0])
            json.loads(await reader.readexactly(length))
        writer.close()

    await asyncio.gather(*(connection() for _ in range(in_flight)))


def _reference_prompt(firm: Firm, topic: Topic) -> list[dict[str, str]]:
    text_of = {sentence.sentence_id: sentence.raw_text for sentence in firm.sentences}
    shown = "\n".join(f"- {text_of[sentence_id]}" for sentence_id in topic.sentence_ids[:REFERENCE_SENTENCES])
    user = f"Keywords: {', '.join(topic.keywords)}\n\nSentences:\n{shown}\n\n{INSTRUCTIONS}"
    return [{"role": "system", "content": INSTRUCTIONS}, {"role": "user", "content": user}]
