"""The client of the LLM: any OpenAI-compatible server, and vLLM on a Spot GPU above all.

A replaced GPU must cost minutes and not the batch: whatever looks like a server that is away starts one shared watch
(not one for each request in flight), which waits for it up to ten minutes; everything else that may pass is tried
again a few times, with full jitter. What cannot pass (400, 404) is never tried again.
"""

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.request import getproxies, proxy_bypass

import aiohttp

from contract import env
from worker import TemporaryError, WorkerError
from worker.settings import LlmSettings

PATIENCE_SECONDS = 600.0
"""How long a server may stay away: a Spot GPU is replaced and warm within this."""
ATTEMPTS = 6
REQUEST_SECONDS = 240.0
"""From the moment a request is sent. It covers vLLM's queue, and ends before the load balancer's 300 s."""
_CONNECT_SECONDS = 10.0
_IDLE_SECONDS = 1.0
"""A request on a connection that the server is just closing gets no answer; vLLM closes after 5 s without a request."""
_BACKOFF_SECONDS = 1.0
_MAX_BACKOFF_SECONDS = 20.0
_PROBE_SECONDS = 5.0

_AWAY = {500, 502, 503, 504}
_PASSING = _AWAY | {408, 409, 425, 429}


@dataclass(frozen=True)
class Clock:
    """Time, so that tests need not wait for it."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    jitter: Callable[[], float] = field(default=random.random)


@dataclass(frozen=True)
class Completion:
    content: str
    truncated: bool
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    retries: int


class RequestFailed(Exception):  # noqa: N818 (not of the batch: one topic goes without its name)
    """One request came to nothing, for a reason that lies in it."""

    def __init__(self, reason: str, retries: int) -> None:
        super().__init__(reason)
        self.retries = retries


class Llm:
    """One per event loop, made inside it. `async with` it; it closes its connections."""

    def __init__(self, settings: LlmSettings, clock: Clock | None = None) -> None:
        self.settings = settings
        self.model = settings.model or ""
        self._clock = clock or Clock()
        self._slots = asyncio.Semaphore(settings.max_concurrent)
        self._watch: asyncio.Task[None] | None = None
        self._answered = 0
        # Plain HTTP: openai and httpx take four times the CPU, and answers come in bursts that must be followed up.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_SECONDS),
            headers={"Authorization": f"Bearer {settings.api_key.strip()}"} if settings.api_key else None,
            proxy=_proxy(settings.base_url),
        )

    async def __aenter__(self) -> "Llm":
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._watch:
            self._watch.cancel()
        await self._session.close()

    async def check_model(self) -> None:
        """Wait for the server, and make sure that it has the model.

        Raises:
            TemporaryError: when the server stayed away.
            WorkerError: when it lacks the model, refuses the key or is no LLM server.
        """
        await self._server()

    async def complete(self, messages: list[dict[str, str]], max_tokens: int, schema: dict[str, Any]) -> Completion:
        """One answer, bound by a response format.

        Raises:
            RequestFailed: when the server refuses this request, or fails at it again and again.
            TemporaryError: when the server stayed away, or fails at every request.
            WorkerError: when the server lacks the model or refuses the key.
        """
        request = {
            "model": self.model,
            "messages": messages,
            "max_tokens": max_tokens,
            "temperature": 0,
            "response_format": schema,
        }
        if not self.settings.hosted:
            # Qwen3 thinks by default, at several times the cost, and a thinking answer is not bound by the schema.
            request["chat_template_kwargs"] = {"enable_thinking": False}
        async with self._slots:
            reason, answered_before = "", self._answered
            for attempt in range(ATTEMPTS):
                if attempt:
                    await self._back_off(attempt)
                if self._watch:
                    await self._server()
                try:
                    status, answer = await self._send("POST", "/chat/completions", REQUEST_SECONDS, request)
                except (aiohttp.ClientError, TimeoutError) as error:
                    reason = f"no answer ({type(error).__name__})"
                    if type(error) is not TimeoutError:  # that one is ours: it tells nothing of the server
                        await self._server()
                    continue
                if status < 400:
                    self._answered += 1
                    return _completion(_json(answer), attempt)
                self._refuse_if_final(status, answer, attempt)
                reason = f"HTTP {status}"
                if status in _AWAY:
                    await self._server()
        if self._answered == answered_before:  # it is not this request, then
            raise TemporaryError(
                f"the LLM at {self.settings.base_url} fails at every request ({reason}); the batch stops here,"
                " and another attempt continues it"
            )
        raise RequestFailed(reason, ATTEMPTS - 1)

    async def _send(
        self, method: str, path: str, seconds: float, request: dict[str, Any] | None = None
    ) -> tuple[int, bytes]:
        """The status and the body of the answer.

        Raises:
            TimeoutError: exactly this one when it took more than `seconds`.
            aiohttp.ClientError: when the server is not reached, or ends the connection before its answer is whole.
        """
        timeout = aiohttp.ClientTimeout(total=seconds, connect=_CONNECT_SECONDS)
        url = self.settings.base_url + path
        async with self._session.request(method, url, json=request, timeout=timeout) as response:
            return response.status, await response.read()

    def _refuse_if_final(self, status: int, answer: bytes, retries: int) -> None:
        if status in _PASSING:
            return
        if status == 404:
            raise WorkerError(f"the LLM at {self.settings.base_url} has no model {self.model!r}: {_said(answer)}")
        self._refuse_key(status)
        raise RequestFailed(f"HTTP {status}", retries)

    def _refuse_key(self, status: int) -> None:
        if status in (401, 403):
            raise WorkerError(
                f"the LLM at {self.settings.base_url} refuses the key (HTTP {status}): check {env.LLM_API_KEY}"
            )

    async def _back_off(self, attempt: int) -> None:
        ceiling = min(_MAX_BACKOFF_SECONDS, _BACKOFF_SECONDS * 2 ** (attempt - 1))
        await self._clock.sleep(self._clock.jitter() * ceiling)

    async def _server(self) -> None:
        """Return as soon as the server is there; whoever waits for it waits for the same watch."""
        if self._watch is None:
            self._watch = asyncio.create_task(self._watch_server())
            self._watch.add_done_callback(self._watch_ended)
        await asyncio.shield(self._watch)

    def _watch_ended(self, watch: asyncio.Task[None]) -> None:
        if not watch.cancelled() and watch.exception() is None:
            self._watch = None

    async def _watch_server(self) -> None:
        start = self._clock.now()
        while True:
            reason = await self._probe()
            if not reason:
                return
            if self._clock.now() - start >= PATIENCE_SECONDS:
                minutes = round(PATIENCE_SECONDS / 60)
                raise TemporaryError(
                    f"the LLM at {self.settings.base_url} stayed away for {minutes} minutes ({reason}): see that vLLM"
                    " runs (ftm vllm status), then resume the run"
                )
            await self._clock.sleep(_PROBE_SECONDS * (0.5 + self._clock.jitter()))

    async def _probe(self) -> str:
        """Why the server is not there; empty when it is, and has the model."""
        try:
            status, answer = await self._send("GET", "/models", _CONNECT_SECONDS)
        except aiohttp.InvalidURL as error:
            raise WorkerError(self._no_server("it is no URL")) from error
        except (aiohttp.ClientError, TimeoutError) as error:
            return type(error).__name__
        self._refuse_key(status)
        if status in _PASSING:
            return f"HTTP {status}"
        if status >= 400:
            raise WorkerError(self._no_server(f"HTTP {status}"))
        match _json(answer):
            case {"data": [*models]}:
                self._choose_model([str(_object(model).get("id")) for model in models])
            case _:
                raise WorkerError(self._no_server("its list of models is none"))
        return ""

    def _choose_model(self, served: list[str]) -> None:
        if not self.model and len(served) == 1:
            self.model = served[0]
        if self.model in served:
            return
        raise WorkerError(
            f"the LLM at {self.settings.base_url} serves {', '.join(served) or 'no model'}, not"
            f" {self.model or 'exactly one'}: set {env.LLM_MODEL_NAME} to a model that it serves"
        )

    def _no_server(self, what: str) -> str:
        return f"{self.settings.base_url} is not an OpenAI-compatible server ({what}): check {env.LLM_BASE_URL}"


def _completion(answer: Any, retries: int) -> Completion:
    """What counts in an answer, however broken it is: an empty content fails the reading of the name."""
    match answer:
        case {"choices": [{"message": {"content": str(content)}, **choice}, *_]}:
            truncated = choice.get("finish_reason") == "length"
        case _:
            content, truncated = "", False
    usage = _object(_object(answer).get("usage"))
    details = _object(usage.get("prompt_tokens_details"))
    return Completion(
        content=content,
        truncated=truncated,
        prompt_tokens=usage.get("prompt_tokens") or 0,
        cached_tokens=details.get("cached_tokens") or 0,
        completion_tokens=usage.get("completion_tokens") or 0,
        retries=retries,
    )


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None


def _said(answer: bytes) -> str:
    """The server's own words: what OpenAI's shape of an error holds, or else the whole."""
    message = _object(_object(_json(answer)).get("error")).get("message") or answer.decode(errors="replace")
    return " ".join(str(message).split())[:200]


def _proxy(url: str) -> str | None:
    """The proxy of the environment, as for S3: aiohttp's own way asks again for each request, and reads ~/.netrc."""
    scheme, _, host, *_ = url.split("/")
    return None if proxy_bypass(host) else getproxies().get(scheme.removesuffix(":"))
