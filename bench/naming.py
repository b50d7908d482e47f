"""Compares the worker's LLM client with a minimal client, on a real vLLM and on a server of limited throughput."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import stdev
from typing import Any
from urllib.parse import urlsplit

from evaluation.load_generator import topic as made_up_topic
from llm.client import Llm
from llm.settings import LlmSettings
from worker.firm import Topic
from worker.naming.prompt import RESPONSE_FORMAT, prompt

BLOCKS = 5
"""Blocks of four runs: worker, barest, barest, worker. The order matters, as a run is affected by the one before it."""
ANSWER_TOKENS = 48
"""Typical for a real name and summary; the random words of the tiny model would be longer."""


def throughput(base_url: str, model: str, requests: int = 160) -> list[dict[str, Any]]:
    """Requests per second of both clients with the same load, and the CPU time per request.

    Both send the same requests, and the server has seen them before, so it computes as much for either client. Its
    speed still varies more than the clients differ: `+-` is the standard error of the ratio.
    """
    bodies = [_body(made_up_topic(number), model) for number in range(requests)]
    asyncio.run(_barest(base_url, model, bodies, 64))
    runs = {"worker": _with_worker, "barest": _barest}
    sent = 2 * BLOCKS * requests
    rows: list[dict[str, Any]] = []
    for in_flight in (16, 64):
        seconds = {client: [0.0] * BLOCKS for client in runs}
        cpu = dict.fromkeys(runs, 0.0)
        for block in range(BLOCKS):
            for client in ("worker", "barest", "barest", "worker"):
                wall, used = time.monotonic(), time.process_time()
                asyncio.run(runs[client](base_url, model, bodies, in_flight))
                seconds[client][block] += time.monotonic() - wall
                cpu[client] += time.process_time() - used
        ratios = [barest / worker for worker, barest in zip(seconds["worker"], seconds["barest"], strict=True)]
        rows.append(
            {
                "in flight": in_flight,
                "worker req/s": round(sent / sum(seconds["worker"]), 1),
                "barest req/s": round(sent / sum(seconds["barest"]), 1),
                "ratio": round(sum(seconds["barest"]) / sum(seconds["worker"]), 3),
                "+-": round(stdev(ratios) / BLOCKS**0.5, 3),
                "worker CPU ms/req": round(1000 * cpu["worker"] / sent, 2),
                "barest CPU ms/req": round(1000 * cpu["barest"] / sent, 2),
            }
        )
    return rows


def at_a_limited_server(limit: float = 50.0, requests: int = 3000) -> list[dict[str, Any]]:
    """Requests per second of both clients at a server that answers `limit` per second, the share of a GPU that one job
    gets.

    There is always a request to send. The worker's client begins with few requests in flight.
    """
    bodies = [_body(made_up_topic(number), "limited") for number in range(requests)]
    clients = {"worker": _with_worker, "barest": _barest}
    rows: list[dict[str, Any]] = []
    for in_flight in (64, 256):
        seconds, cpu = dict.fromkeys(clients, 0.0), dict.fromkeys(clients, 0.0)
        with _limited_server(limit) as base_url:
            for client in clients:
                wall, used = time.monotonic(), time.process_time()
                asyncio.run(clients[client](base_url, "limited", bodies, in_flight))
                seconds[client] = time.monotonic() - wall
                cpu[client] = time.process_time() - used
        rows.append(
            {
                "server req/s": limit,
                "in flight": in_flight,
                "worker req/s": round(requests / seconds["worker"], 1),
                "barest req/s": round(requests / seconds["barest"], 1),
                "ratio": round(seconds["barest"] / seconds["worker"], 3),
                "worker CPU ms/req": round(1000 * cpu["worker"] / requests, 2),
                "barest CPU ms/req": round(1000 * cpu["barest"] / requests, 2),
            }
        )
    return rows


@contextmanager
def _limited_server(limit: float) -> Iterator[str]:
    """Start a server process that answers `limit` requests per second, one after another; yield its base URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.limited_server", str(limit)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
    finally:
        process.kill()
        process.wait()


def _body(topic: Topic, model: str) -> dict[str, Any]:
    return {
        "model": model,
        "messages": prompt(topic),
        "max_tokens": ANSWER_TOKENS,
        "temperature": 0,
        "response_format": RESPONSE_FORMAT,
        "chat_template_kwargs": {"enable_thinking": False},
    }


async def _with_worker(base_url: str, model: str, bodies: list[dict[str, Any]], in_flight: int) -> None:
    async with Llm(LlmSettings(base_url, model, in_flight)) as llm:
        await asyncio.gather(*(llm.complete(body["messages"], ANSWER_TOKENS, RESPONSE_FORMAT) for body in bodies))


async def _barest(base_url: str, _model: str, bodies: list[dict[str, Any]], in_flight: int) -> None:
    """Uses only sockets: no client can do less."""
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
