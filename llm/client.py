"""The client of the LLM: any OpenAI-compatible server, and vLLM on a Spot GPU above all.

A replaced GPU must cost minutes and not the batch: whatever looks like a server that is away starts one shared watch
(not one for each request in flight), which waits for it up to ten minutes; a server that is there and fails is tried
again for a minute and a half, with full jitter. Then a request that nobody can fail at tells whether it is the server
or the request. What cannot pass (400, 404) is never tried again, unless it is vLLM's own that a server refuses.
"""

import asyncio
import json
import random
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NoReturn
from urllib.request import getproxies, proxy_bypass

import aiohttp

from contract import env
from llm import LlmError, LlmUnavailableError
from llm.settings import LlmSettings

PATIENCE_SECONDS = 600.0
"""How long a server may stay away: a Spot GPU is mostly replaced and warm within this, and if
not, the job's next attempt waits again."""
RETRY_SECONDS = 90.0
"""For how long a request is tried again at a server that is there: vLLM says 500 to everything for the 50 s in which it
shuts down, while its list of models is still to be had."""
REQUEST_SECONDS = 240.0
"""From the moment a request is sent. It covers vLLM's queue, and ends before the load balancer's 300 s."""
_GIVE_UP_SECONDS = 3 * PATIENCE_SECONDS
"""The same, however often the server went away and came back meanwhile: it may be this request that fells it."""
_THINKING_OFF = {"chat_template_kwargs": {"enable_thinking": False}}
"""Qwen3 thinks by default, at several times the cost, and a thinking answer is not bound by the schema."""
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
        self._last_away = 0.0
        self._plain = settings.hosted
        """Whether the server refuses what vLLM knows beyond OpenAI's API."""
        # Plain HTTP: openai and httpx take four times the CPU, and answers come in bursts that must be followed up.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_SECONDS),
            headers={"Authorization": f"Bearer {settings.api_key}"} if settings.api_key else None,
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
            LlmUnavailableError: when the server stayed away.
            LlmError: when it lacks the model, refuses the key or is no LLM server.
        """
        await self._server()

    async def complete(self, messages: list[dict[str, str]], max_tokens: int, schema: dict[str, Any]) -> Completion:
        """One answer, bound by a response format.

        Raises:
            RequestFailed: when the server refuses this request, or fails at it again and again, but not at another.
            LlmUnavailableError: when the server stayed away, or fails at every request.
            LlmError: when the server lacks the model, refuses the key or has moved.
        """
        request = {
            "model": self.model,
            "messages": messages,
            "max_tokens": max_tokens,
            "temperature": 0,
            "response_format": schema,
        }
        async with self._slots:
            retries, failing_since = 0, 0.0
            while True:
                if self._watch:
                    await self._server()
                outcome = await self._attempt(request, retries)
                if isinstance(outcome, Completion):
                    return outcome
                if retries == 0:
                    failing_since = self._clock.now()
                if self._has_failed_for_long(failing_since):
                    await self._blame(outcome, retries)
                await self._back_off(retries)
                retries += 1

    async def _attempt(self, request: dict[str, Any], retries: int) -> Completion | str:
        """The answer; or why there is none, once the server is there to be asked again."""
        plain = self._plain
        body = _without_lengths(request) if plain else request | _THINKING_OFF
        try:
            status, answer = await self._send("POST", "/chat/completions", REQUEST_SECONDS, body)
        except (aiohttp.ClientError, TimeoutError) as error:
            if type(error) is not TimeoutError:  # that one is ours: it tells nothing of the server
                await self._server()
            return f"no answer ({type(error).__name__})"
        if status < 300:
            return _completion(_json(answer), retries)
        reason = self._reason(status, answer)
        if status in (400, 422) and not plain and any(word in reason for word in (*_THINKING_OFF, "maxLength")):
            self._plain = True  # from now on, nothing is asked but what every server knows
            return await self._attempt(request, retries)
        self._raise_if_final(status, reason, retries)
        if status in _AWAY:
            await self._server()
        return reason

    async def _send(
        self, method: str, path: str, seconds: float, request: dict[str, Any] | None = None
    ) -> tuple[int, bytes]:
        """The status and the body of the answer.

        Raises:
            TimeoutError: exactly this one when it took more than `seconds`.
            aiohttp.ClientError: when the server is not reached, or ends the connection before its answer is whole.
            LlmError: when it sends its callers elsewhere; a POST that went there would arrive as a GET.
        """
        timeout = aiohttp.ClientTimeout(total=seconds, connect=_CONNECT_SECONDS)
        url = self.settings.base_url + path
        options: Any = {"json": request, "timeout": timeout, "allow_redirects": False}
        async with self._session.request(method, url, **options) as response:
            if 300 <= response.status < 400:
                location = response.headers.get("Location", "nowhere")[:200]
                raise LlmError(self._no_server(f"HTTP {response.status}, it sends its callers to {location}"))
            return response.status, await response.read()

    def _reason(self, status: int, answer: bytes) -> str:
        """The status with the server's own words: what OpenAI's shape of an error holds, or else the whole."""
        message = _object(_object(_json(answer)).get("error")).get("message") or answer.decode(errors="replace")
        said = " ".join(str(message).split())
        if key := self.settings.api_key:
            said = said.replace(key, "***")
        return f"HTTP {status}: {said[:200]}" if said else f"HTTP {status}"

    def _raise_if_final(self, status: int, reason: str, retries: int) -> None:
        if status in _PASSING:
            return
        if status == 404:
            raise LlmError(f"the LLM at {self.settings.base_url} has no model {self.model!r} ({reason})")
        self._refuse_key(status)
        raise RequestFailed(reason, retries)

    def _refuse_key(self, status: int) -> None:
        if status in (401, 403):
            raise LlmError(
                f"the LLM at {self.settings.base_url} refuses the key (HTTP {status}): check {env.LLM_API_KEY}"
            )

    def _has_failed_for_long(self, since: float) -> bool:
        now = self._clock.now()
        return now - max(since, self._last_away) >= RETRY_SECONDS or now - since >= _GIVE_UP_SECONDS

    async def _blame(self, reason: str, retries: int) -> NoReturn:
        """End a request that failed again and again: by its own fault if the server answers the simplest one."""
        simplest = {"model": self.model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
        with suppress(aiohttp.ClientError, TimeoutError):
            status, _ = await self._send("POST", "/chat/completions", REQUEST_SECONDS, simplest)
            if status < 300:
                raise RequestFailed(reason, retries)
        raise LlmUnavailableError(
            f"the LLM at {self.settings.base_url} fails at every request ({reason}); the batch stops here, and another"
            " attempt continues it"
        )

    async def _back_off(self, retries: int) -> None:
        ceiling = min(_MAX_BACKOFF_SECONDS, _BACKOFF_SECONDS * 2**retries)
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
        if reason := await self._probe():
            print(f"waiting for the LLM at {self.settings.base_url} ({reason})", file=sys.stderr, flush=True)
        while reason:
            self._last_away = self._clock.now()
            if self._last_away - start >= PATIENCE_SECONDS:
                minutes = round(PATIENCE_SECONDS / 60)
                raise LlmUnavailableError(
                    f"the LLM at {self.settings.base_url} stayed away for {minutes} minutes ({reason}): see that vLLM"
                    " runs (ftm vllm status), then resume the run"
                )
            await self._clock.sleep(_PROBE_SECONDS * (0.5 + self._clock.jitter()))
            reason = await self._probe()

    async def _probe(self) -> str:
        """Why the server is not there; empty when it is, and has the model."""
        try:
            status, answer = await self._send("GET", "/models", _CONNECT_SECONDS)
        except aiohttp.InvalidURL as error:
            raise LlmError(self._no_server("it is no URL")) from error
        except (aiohttp.ClientError, TimeoutError) as error:
            return type(error).__name__
        self._refuse_key(status)
        if status in _PASSING:
            return f"HTTP {status}"
        if status >= 400:
            raise LlmError(self._no_server(f"HTTP {status}"))
        match _json(answer):
            case {"data": [*models]}:
                self._choose_model([str(_object(model).get("id")) for model in models])
            case _:
                raise LlmError(self._no_server("its list of models is none"))
        return ""

    def _choose_model(self, served: list[str]) -> None:
        if not self.model and len(served) == 1:
            self.model = served[0]
        if self.model in served:
            return
        raise LlmError(
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


def _without_lengths(part: Any) -> Any:
    """A request, or a part of one, whose schema bounds no string."""
    if not isinstance(part, dict):
        return part
    return {name: _without_lengths(value) for name, value in part.items() if name != "maxLength"}


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None


def _proxy(url: str) -> str | None:
    """The proxy of the environment, as for S3: aiohttp's own way asks again for each request, and reads ~/.netrc."""
    scheme, _, host, *_ = url.split("/")
    return None if proxy_bypass(host) else getproxies().get(scheme.removesuffix(":"))
