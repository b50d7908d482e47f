"""The client of any OpenAI-compatible server, and above all of vLLM on a Spot GPU.

The `openai` package sends the requests. This module adds what a batch of thousands of requests needs:

- A server that seems to be absent is polled for up to 25 minutes, by one task for all requests in flight: replacing a
  Spot GPU costs minutes and not the batch.
- A request that fails at a running server is repeated for 90 seconds, with full jitter. Then the simplest possible
  request shows whether the server or the request is the cause.
- A rate limit makes all requests wait.
- A permanent refusal ends the request. If its cause is the key, the model or the account, it ends all work.
- Before its first success the client finds out which fields of OpenAI's API the server accepts (`llm.dialect`).
"""

import asyncio
import json
import random
import re
import ssl
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NoReturn
from urllib.parse import urlsplit

import aiohttp
import httpx2
import openai

from contract import ContractError
from contract.batch import LLM_OUTAGE_SECONDS
from contract.fallbacks import FallbackKind
from contract.served_models import choose_model
from llm import LlmAddressError, LlmError, LlmKeyError, LlmModelError, LlmUnavailableError
from llm.answers import Unreadable, Usage, is_cut_off, text_of, usage_of
from llm.concurrency import Concurrency
from llm.dialect import OPENAI_ONLY, Dialect
from llm.faults import Fault, Refusal, read_refusal, seconds_to_wait
from llm.settings import LlmSettings

_MAX_ASCII_PER_TOKEN = 7
_MAX_OTHER_BYTES_PER_TOKEN = 10
"""More than any common tokenizer needs for prose (English has 4 to 5 bytes a token): fewer tokens mean a cut prompt."""
_TYPICAL_MARGIN = 7 / 6
"""A single prompt may come close to that bound. If all prompts together do, the server cuts them."""

_LEARNING_SECONDS = 5.0
"""How long other requests wait for the first one, which finds out what the server accepts."""
_FIRST_BACKOFF_SECONDS = 1.0
_MAX_BACKOFF_SECONDS = 20.0
_MAX_RATE_PAUSE_SECONDS = 60.0
_SAME_FAILURES = 4
"""After this many equal failures before the first success, the server's answer is taken as permanent."""

_NO_ANSWER = (openai.APIConnectionError, httpx2.HTTPError, aiohttp.ClientError)
"""The `openai` package does not wrap all errors of its transport, such as the one for an answer that is not HTTP."""
_OVERLOADED = (408, 503, 504, 529)
"""Statuses of a server, or of a gateway in front of it, that gets too many requests at once."""
_OF_THE_REQUEST = {
    Fault.CONTEXT: FallbackKind.CONTEXT_TOO_SMALL,
    Fault.FILTER: FallbackKind.CONTENT_FILTER,
    Fault.REFUSED: FallbackKind.REQUEST_REFUSED,
}


@dataclass(frozen=True)
class Timeouts:
    """All in seconds."""

    outage: float = LLM_OUTAGE_SECONDS
    """How long a server may be absent. A Spot GPU is replaced and warm in 9 to 14 minutes; if it takes longer, the
    job's next attempt waits again."""
    retry: float = 90.0
    """How long a request is repeated at a running server: while vLLM shuts down, it answers 500 to every request for
    50 s, and still lists its models."""
    rate_limit: float = 600.0
    """How long a server may refuse every request because of its rate limit."""
    request: float = 240.0
    """The limit of one request while few answers are known. It begins when the request is sent, and so includes the
    server's queue. The load balancer's own limit is 300 s."""
    min_request: float = 60.0
    max_request: float = 1200.0
    connect: float = 10.0
    keepalive: float = 1.0
    """How long an idle connection is kept. vLLM closes it after 5 s, and a request sent at that moment is lost."""
    poll_interval: float = 5.0
    """Between two polls of an absent server, on average."""

    @property
    def give_up(self) -> float:
        """The limit of one request over several outages: the request itself may be crashing the server."""
        return 3 * self.outage


@dataclass(frozen=True)
class Clock:
    """Time, so that tests need not wait for it."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    jitter: Callable[[], float] = field(default=random.random)


@dataclass(frozen=True)
class Completion:
    content: str
    problem: Unreadable | None
    """Why the answer cannot be used, if that is known without parsing it: it is empty, or it or its prompt was cut."""
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    retries: int


class RequestFailed(Exception):  # noqa: N818 (not an error of the batch: one topic keeps its keywords)
    """One request cannot be answered, while the server answers others."""

    def __init__(self, kind: FallbackKind, reason: str, retries: int) -> None:
        super().__init__(reason)
        self.kind = kind
        self.retries = retries


@dataclass
class _Tries:
    """The failed attempts at one request so far."""

    refusals: list[Refusal] = field(default_factory=list[Refusal])
    failing_since: float = 0.0
    too_much: Refusal | None = None
    """The first refusal for which fewer fields were tried."""
    simplest_is_answered: bool = False

    @property
    def retries(self) -> int:
        return len(self.refusals)

    def same(self, refusal: Refusal) -> int:
        """How often the server gave this answer."""
        return sum(one.words == refusal.words for one in self.refusals)


class Llm:
    """An async context manager, to be created in the event loop that uses it; closes its connections at the end."""

    def __init__(self, settings: LlmSettings, clock: Clock | None = None, timeouts: Timeouts | None = None) -> None:
        self.settings = settings
        self.model = settings.model or ""
        """After `check_model`, spelled as the server does."""
        self._clock = clock or Clock()
        self._timeouts = timeouts or Timeouts()
        self.concurrency = Concurrency(settings.max_concurrent, self._clock.now)
        self.rate_limited = 0
        """How many requests were refused because of a rate limit."""
        self._watch: asyncio.Task[None] | None = None
        self._last_absent = 0.0
        self._dialect = OPENAI_ONLY if settings.hosted else Dialect()
        self._has_succeeded = False
        self._first_request = asyncio.Lock()
        """Until the first success, one request at a time finds out what the server accepts."""
        self._slowest = 0.0
        self._answers = 0
        self._least_tokens = self._counted_tokens = 0
        """The tokens of all answered prompts, by the lower bound and by the server's count."""
        self._timed_out = 0.0
        """The longest time limit that was exceeded since the last answer."""
        self._paused_until = 0.0
        self._rate_pause = 0.0
        self._refused_since = 0.0
        """When the current series of rate-limit responses began; 0 after an answer."""
        self._blamed: set[str] = set()
        """Failures that were caused by a request, and not by the server."""
        try:
            _ = urlsplit(settings.base_url).port
            self._openai = _client(settings, self._timeouts)
        except (httpx2.InvalidURL, ValueError) as error:
            raise LlmAddressError(self._not_a_server(f"it is not a valid URL: {error}")) from error

    async def __aenter__(self) -> "Llm":
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._watch:
            self._watch.cancel()
        await self._openai.close()

    async def check_model(self) -> None:
        """Wait for the server, and choose the model.

        Raises:
            LlmUnavailableError: when the server stays absent.
            LlmError: when it lacks the model, refuses the key or is not an LLM server.
        """
        await self._wait_for_server()

    async def complete(
        self, messages: list[dict[str, str]], max_tokens: int, response_format: dict[str, Any], first: bool = False
    ) -> Completion:
        """Send one request and return the answer.

        Args:
            messages: as in OpenAI's API.
            max_tokens: upper bound for the answer.
            response_format: of type json_schema; a server without it gets a simpler one.
            first: send it before all requests that wait for a slot.

        Raises:
            RequestFailed: when the server refuses this request, or repeatedly fails at it but not at others.
            LlmUnavailableError: when the server stays absent, fails at every request or limits the rate for too long.
            LlmError: when the server lacks the model, refuses the key, has moved, or the account has no credit.
        """
        async with self.concurrency.slot(first):
            if self._has_succeeded or not await self._is_to_learn():
                return await self._complete(messages, max_tokens, response_format)
            try:
                return await self._complete(messages, max_tokens, response_format)
            finally:
                self._first_request.release()

    async def _is_to_learn(self) -> bool:
        """Whether this request finds out what the server accepts; it then has the lock for that."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_LEARNING_SECONDS):
                await self._first_request.acquire()
            if not self._has_succeeded:
                return True
            self._first_request.release()
        return False

    async def _complete(self, messages: list[dict[str, str]], max_tokens: int, response_format: Any) -> Completion:
        dialect, tries = self._dialect, _Tries()
        while True:
            if self._watch:
                await self._wait_for_server()
            await self._pause()
            request = {"model": self.model} | dialect.request(messages, max_tokens, response_format)
            outcome = await self._attempt(request, tries.retries)
            if isinstance(outcome, Completion):
                if outcome.problem is None or outcome.problem.kind != FallbackKind.UNREADABLE:
                    self._settle(dialect)
                return outcome
            tries.refusals.append(outcome)
            if not self._has_succeeded and await self._asks_too_much(tries):
                tries.too_much = tries.too_much or outcome
                lesser = dialect.without_what_is_named(outcome.body) or dialect.smaller()
                if not lesser:
                    self._raise_if_final(tries.too_much, tries)
                    raise RequestFailed(FallbackKind.REQUEST_FAILED, str(tries.too_much), tries.retries - 1)
                dialect = lesser
                continue
            self._raise_if_final(outcome, tries)
            if outcome.fault is Fault.RATE:
                continue
            if outcome.fault is Fault.FAILING and not outcome.is_time_out:
                await self._wait_for_server()
            tries.failing_since = tries.failing_since or self._clock.now()
            await self._blame(outcome, tries)
            await self._back_off(tries.retries - 1)

    async def _attempt(self, request: dict[str, Any], retries: int) -> Completion | Refusal:
        """Send a request once; returns the answer, or why there is none."""
        epoch, sent, limit = self.concurrency.epoch, self._clock.now(), self._request_limit()
        try:
            async with asyncio.timeout(limit):
                status, headers, body = await self._send("/chat/completions", request)
        except TimeoutError:
            self._timed_out = max(self._timed_out, limit)
            self.concurrency.overloaded(epoch)
            return _no_answer(f"no answer in {limit:.0f} s", is_time_out=True)
        except _NO_ANSWER as error:
            return _no_answer(f"no answer ({_innermost(error)})")
        document = _json(body)
        if status < 300 and not _is_error(document):
            return self._completion(document, headers, request, retries, epoch, self._clock.now() - sent)
        refusal = read_refusal(status, headers, body, self.settings.api_key)
        if refusal.fault is Fault.RATE:
            self._limit_rate(refusal, epoch)
        elif refusal.status in _OVERLOADED:
            self.concurrency.overloaded(epoch)
        return refusal

    def _completion(
        self, document: Any, headers: httpx2.Headers, request: dict[str, Any], retries: int, epoch: int, latency: float
    ) -> Completion:
        self.concurrency.succeeded(epoch, latency)
        self._answers += 1
        self._slowest = max(self._slowest * 0.99, latency)
        self._timed_out = self._rate_pause = self._refused_since = 0.0
        if seconds := seconds_to_wait(headers):
            self._paused_until = self._clock.now() + min(seconds, self._timeouts.rate_limit)
        text, usage = text_of(document), usage_of(document)
        problem = text if isinstance(text, Unreadable) else self._problem(document, usage, request)
        return Completion(
            content="" if isinstance(text, Unreadable) else text,
            problem=problem,
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.cached_tokens,
            completion_tokens=usage.completion_tokens,
            retries=retries,
        )

    def _problem(self, document: Any, usage: Usage, request: dict[str, Any]) -> Unreadable | None:
        """What is wrong with an answer apart from its content."""
        sent = "".join(str(message["content"]) for message in request["messages"][:2])
        if self._is_cut(_least_tokens(sent), usage.prompt_tokens + usage.cached_tokens):
            return Unreadable(
                FallbackKind.PROMPT_TRUNCATED,
                f"the server cut the prompt: it read {usage.prompt_tokens} tokens of {len(sent)} characters",
            )
        if is_cut_off(document):
            limit = request.get("max_tokens") or request.get("max_completion_tokens") or 0
            if 0 < usage.completion_tokens < limit:
                return Unreadable(
                    FallbackKind.CONTEXT_TOO_SMALL,
                    f"the model's context is too small: {usage.prompt_tokens} tokens of the prompt leave room for"
                    f" {usage.completion_tokens} of the answer",
                )
            return Unreadable(FallbackKind.CUT_OFF, "it is too long, and was cut off")
        return None

    def _is_cut(self, at_least: int, counted: int) -> bool:
        """Whether the server has read less of a prompt than it was sent; False if it counts no tokens."""
        if not counted:
            return False
        self._least_tokens += at_least
        self._counted_tokens += counted
        all_are_dense = self._counted_tokens < _TYPICAL_MARGIN * self._least_tokens
        return counted < at_least * (_TYPICAL_MARGIN if all_are_dense else 1)

    async def _send(self, path: str, request: dict[str, Any] | None = None) -> tuple[int, httpx2.Headers, str]:
        """Status, headers and body of the answer to a POST, or to a GET without a request.

        Raises:
            one of _NO_ANSWER: when there is no answer, or not all of it.
        """
        # Raw answers: the package's models take twice the CPU, and reject formats that `llm.answers` reads.
        options: Any = {"headers": {} if self.settings.api_key else {"Authorization": openai.Omit()}}
        try:
            if request is None:
                response = await self._openai.get(path, cast_to=httpx2.Response, options=options)
            else:
                response = await self._openai.post(path, body=request, cast_to=httpx2.Response, options=options)
        except openai.APIStatusError as error:
            response = error.response
        return response.status_code, response.headers, response.text

    async def _asks_too_much(self, tries: "_Tries") -> bool:
        """Whether the server may accept the same request with fewer fields.

        A 500 that names no field is a failure of the server, unless it is repeated while the server answers the
        simplest request: then it is treated like a 400.
        """
        refusal = tries.refusals[-1]
        if refusal.fault not in (Fault.REFUSED, Fault.MODEL, Fault.FAILING):
            return False
        if refusal.status in (400, 404, 422, 500, 501) and Dialect().without_what_is_named(refusal.body):
            return True
        if refusal.fault is Fault.REFUSED:
            return refusal.status in (400, 422)
        if refusal.fault is Fault.MODEL or refusal.status != 500:
            return False
        if tries.too_much or tries.simplest_is_answered:
            return True
        if tries.same(refusal) >= _SAME_FAILURES:
            # It may have recovered just now: the same request is sent once more.
            tries.simplest_is_answered = await self._answers_the_simplest()
        return False

    def _request_limit(self) -> float:
        """The time limit of a request in seconds, from the latency of the answers so far."""
        timeouts = self._timeouts
        needed = 20 * self._slowest if self._answers >= 20 else max(timeouts.request, 4 * self._slowest)
        return min(timeouts.max_request, max(timeouts.min_request, needed, 2 * self._timed_out))

    def _settle(self, dialect: Dialect) -> None:
        if self._has_succeeded:
            return
        self._has_succeeded = True
        if dialect != self._dialect:
            self._log(f"the LLM at {self.settings.base_url} does not know all that ftm asks for; settled on: {dialect}")
        self._dialect = dialect

    def _limit_rate(self, refusal: Refusal, epoch: int) -> None:
        """Make all requests wait for as long as the server asks, or for growing pauses if it does not say."""
        now = self._clock.now()
        self.rate_limited += 1
        self._refused_since = self._refused_since or now
        if epoch == self.concurrency.epoch or refusal.retry_after:
            self._rate_pause = min(_MAX_RATE_PAUSE_SECONDS, max(_FIRST_BACKOFF_SECONDS, 2 * self._rate_pause))
            pause = refusal.retry_after or self._rate_pause * (0.75 + self._clock.jitter() / 2)
            self._paused_until = max(self._paused_until, now + pause)
        self.concurrency.overloaded(epoch)
        if self.rate_limited == 1:
            self._log(f"the LLM at {self.settings.base_url} limits the rate ({refusal}); ftm waits, and sends less")

    async def _pause(self) -> None:
        while (seconds := self._paused_until - self._clock.now()) > 0:
            await self._clock.sleep(seconds)

    def _raise_if_final(self, refusal: Refusal, tries: "_Tries") -> None:
        """Raise an error for a permanent refusal, of this request or of all."""
        where = f"the LLM at {self.settings.base_url}"
        match refusal.fault:
            case Fault.KEY:
                self._refuse_key(refusal)
            case Fault.QUOTA:
                raise LlmError(f"{where} has no money left for this key ({refusal}): check the account's billing")
            case Fault.MODEL if self._has_succeeded:
                raise LlmUnavailableError(f"{where} no longer has the model {self.model!r} ({refusal})")
            case Fault.MODEL:
                raise LlmModelError(
                    f"{where} has no model {self.model!r} ({refusal}): check {self.settings.model_option}, and"
                    f" {self.settings.url_option}"
                )
            case Fault.MOVED | Fault.NOT_AN_API if not (self._has_succeeded and refusal.fault is Fault.NOT_AN_API):
                raise LlmAddressError(self._not_a_server(str(refusal)))
            case Fault.RATE:
                self._raise_if_limited_for_long(refusal)
            case Fault.CONTEXT | Fault.FILTER | Fault.REFUSED:
                raise RequestFailed(_OF_THE_REQUEST[refusal.fault], str(refusal), tries.retries - 1)
            case Fault.FAILING if refusal.is_text and not self._has_succeeded:
                self._raise_if_unchanged(refusal, tries)
            case _:
                pass

    def _raise_if_limited_for_long(self, refusal: Refusal) -> None:
        where, limit = f"the LLM at {self.settings.base_url}", self._timeouts.rate_limit
        if refusal.retry_after and refusal.retry_after > limit:
            raise LlmError(
                f"{where} limits the rate and asks to wait {_duration(refusal.retry_after)} ({refusal}): try again then"
            )
        if self._clock.now() - self._refused_since >= limit:
            raise LlmUnavailableError(
                f"{where} refused every request for {_duration(limit)} because of its rate limit ({refusal}); another"
                " attempt continues"
            )

    def _raise_if_unchanged(self, refusal: Refusal, tries: "_Tries") -> None:
        """LiteLLM without its database answers 500 in plain text where a key is missing."""
        if tries.same(refusal) >= _SAME_FAILURES:
            raise LlmError(
                f"the LLM at {self.settings.base_url} fails at every request ({refusal}): if it wants a key, set"
                f" {self.settings.key_option}; otherwise see the server's log"
            )

    def _refuse_key(self, refusal: Refusal) -> NoReturn:
        what = "refuses the key" if self.settings.api_key else "wants a key"
        raise LlmKeyError(f"the LLM at {self.settings.base_url} {what} ({refusal}): check {self.settings.key_option}")

    async def _blame(self, refusal: Refusal, tries: "_Tries") -> None:
        """Return while it is too early to decide; then raise an error for the request, or for all work."""
        now, since, timeouts = self._clock.now(), tries.failing_since, self._timeouts
        is_known = refusal.words in self._blamed and tries.same(refusal) >= _SAME_FAILURES
        is_over = (
            now - max(since, self._last_absent) >= max(timeouts.retry, self._timed_out)
            or now - since >= timeouts.give_up
        )
        if not is_known and not is_over:
            return
        if await self._answers_the_simplest():
            self._blamed.add(refusal.words)
            raise RequestFailed(FallbackKind.REQUEST_FAILED, str(refusal), tries.retries - 1)
        if is_over:
            raise LlmUnavailableError(
                f"the LLM at {self.settings.base_url} fails at every request ({refusal}): see the server's log; a"
                " batch continues in its next attempt"
            )

    async def _answers_the_simplest(self) -> bool:
        """Whether the server answers the simplest possible request."""
        request = {"model": self.model} | self._dialect.request([{"role": "user", "content": "Hello"}], 1, None)
        with suppress(TimeoutError, *_NO_ANSWER):
            async with asyncio.timeout(self._request_limit()):
                status, _, body = await self._send("/chat/completions", request)
            return status < 300 and not _is_error(_json(body))
        return False

    async def _back_off(self, retries: int) -> None:
        ceiling = min(_MAX_BACKOFF_SECONDS, _FIRST_BACKOFF_SECONDS * 2**retries)
        await self._clock.sleep(self._clock.jitter() * ceiling)

    async def _wait_for_server(self) -> None:
        """Return as soon as the server answers; all callers share one task that polls it."""
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
            self._log(f"waiting for the LLM at {self.settings.base_url} ({reason})")
        tries = _Tries()
        while reason:
            self._last_absent = self._clock.now()
            if self._last_absent - start >= self._timeouts.outage:
                raise LlmUnavailableError(
                    f"the LLM at {self.settings.base_url} was absent for {_duration(self._timeouts.outage)} ({reason}):"
                    " check that it runs (for vLLM: ftm vllm status), then try again or resume the run"
                )
            await self._clock.sleep(self._timeouts.poll_interval * (0.5 + self._clock.jitter()))
            if (reason := await self._probe()) and isinstance(reason, Refusal):
                tries.refusals.append(reason)
                self._raise_if_final(reason, tries)

    async def _probe(self) -> "Refusal | str":
        """Why the server cannot be used now; empty when it answers and has the model."""
        refusals: list[Refusal] = []
        for base_url in _base_urls(self.settings.base_url):
            try:
                async with asyncio.timeout(self._timeouts.connect):
                    status, headers, body = await self._send(f"{base_url}/models")
            except TimeoutError:
                return "no answer in time"
            except _NO_ANSWER as error:
                return _innermost(error)
            models = _models(_json(body)) if status < 300 else None
            if models is not None:
                self._use(base_url)
                self._choose_model(models)
                return ""
            refusals.append(read_refusal(status, headers, body, self.settings.api_key))
            if refusals[-1].fault not in (Fault.MODEL, Fault.NOT_AN_API, Fault.REFUSED) and status >= 300:
                break
        return self._without_models(refusals)

    def _without_models(self, refusals: list[Refusal]) -> "Refusal | str":
        """Why a server without a list of models cannot be used; empty when requests can be sent without the list."""
        refusal = refusals[-1]
        if refusal.fault in (Fault.KEY, Fault.QUOTA):
            self._raise_if_final(refusal, _Tries())
        if refusal.fault is Fault.RATE:
            return ""  # the server runs, and the requests will wait for its rate limit
        if refusal.status >= 500 or refusal.fault is Fault.BUSY:
            return refusal
        tried = "" if len(refusals) < 2 else ", with and without /v1"
        raise LlmAddressError(self._not_a_server(f"{refusals[0]} for its list of models{tried}"))

    def _use(self, base_url: str) -> None:
        if str(self._openai.base_url).rstrip("/") != base_url:
            self._openai.base_url = base_url
            self._log(f"the LLM's API is at {base_url}")

    def _choose_model(self, served: list[str]) -> None:
        try:
            self.model = choose_model(served, self.model or None, self.settings.model_option)
        except ContractError as error:
            where = f"the LLM at {self.settings.base_url}"
            if self._has_succeeded:
                raise LlmUnavailableError(f"{where} no longer has the model {self.model!r}: {error}") from error
            raise LlmModelError(f"{where}: {error}") from error

    def _not_a_server(self, what: str) -> str:
        return f"{self.settings.base_url} is not an OpenAI-compatible server ({what}): check {self.settings.url_option}"

    def _log(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)


def _client(settings: LlmSettings, timeouts: Timeouts) -> openai.AsyncOpenAI:
    # The transport on aiohttp takes half of the default one's CPU with 64 requests in flight.
    http = openai.DefaultAioHttpClient(
        follow_redirects=False,
        limits=httpx2.Limits(max_connections=settings.max_concurrent + 8, keepalive_expiry=timeouts.keepalive),
        timeout=httpx2.Timeout(None, connect=timeouts.connect),
        verify=_certificates(),
    )
    client = openai.AsyncOpenAI(
        base_url=settings.base_url, api_key=settings.api_key or "none", max_retries=0, http_client=http
    )
    client.organization = client.project = None  # OPENAI_ORG_ID is for OpenAI, and this may be any server
    return client


@cache
def _certificates() -> ssl.SSLContext:
    """The machine's certificate authorities; reading them is most of the time that a client takes to make."""
    return httpx2.create_ssl_context()


def _base_urls(base_url: str) -> Iterator[str]:
    """The base URL, and with /v1 appended if its path has no version."""
    yield base_url
    if not re.search(r"/v\d", base_url):
        yield f"{base_url}/v1"


def _models(document: Any) -> list[str] | None:
    """The ids in a list of models, which is OpenAI's or bare; None for anything else."""
    records = document.get("data") if isinstance(document, dict) else document
    if not isinstance(records, list):
        return None
    ids = [one.get("id") or one.get("name") or one.get("model") if isinstance(one, dict) else one for one in records]
    return [one for one in ids if isinstance(one, str) and one]


def _least_tokens(text: str) -> int:
    """A lower bound for the tokens of a text."""
    ascii_bytes = sum(character.isascii() for character in text)
    other_bytes = len(text.encode()) - ascii_bytes
    return int(ascii_bytes / _MAX_ASCII_PER_TOKEN + other_bytes / _MAX_OTHER_BYTES_PER_TOKEN)


def _is_error(document: Any) -> bool:
    """Whether a response with a success status contains an error instead of an answer."""
    if not isinstance(document, dict):
        return False
    choices = document.get("choices")
    if isinstance(choices, list) and choices:
        failed = isinstance(choices[0], dict) and bool(choices[0].get("error"))
        return failed and isinstance(text_of(document), Unreadable)
    return bool(document.get("error")) or document.get("object") == "error"


def _no_answer(words: str, is_time_out: bool = False) -> Refusal:
    return Refusal(Fault.FAILING, 0, words, "", is_time_out=is_time_out)


def _innermost(error: BaseException) -> str:
    """The first cause of a connection's failure, in a few words."""
    while error.__cause__:
        error = error.__cause__
    return " ".join(str(error).split())[:150] or type(error).__name__


def _duration(seconds: float) -> str:
    if seconds >= 7200:
        return f"{round(seconds / 3600)} hours"
    return f"{round(seconds / 60)} minutes" if seconds >= 120 else f"{round(seconds)} seconds"


def _json(body: str) -> Any:
    try:
        return json.loads(body, strict=False)
    except (ValueError, RecursionError):
        return None
