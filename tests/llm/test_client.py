"""The client against a server that fails like vLLM, its load balancer and Spot instances do; in virtual time."""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from components.vllm_cluster import SHUTDOWN_SECONDS
from contract import env
from contract.fallbacks import FallbackKind
from contract.served_models import HOSTED_MODEL
from llm import LlmError, LlmUnavailableError
from llm.client import Clock, Completion, Llm, RequestFailed, Timeouts
from llm.settings import XAI_BASE_URL, LlmSettings, read_llm_settings
from testing.worker import MODEL, FakeTime, LlmServer, Reply, completion
from worker.naming.prompt import RESPONSE_FORMAT

UNAVAILABLE = Reply(status=503, body=b"<html>503 Service Temporarily Unavailable</html>")
FAILING = Reply(status=500, body={"error": {"message": "EngineCore encountered an issue"}})
FULL = Reply(status=503, body={"error": {"message": "the queue is full"}})
LIMITED = Reply(status=429, body={"error": {"message": "5 a minute"}})
TIMEOUTS = Timeouts()
SELDOM_POLLED = Timeouts(poll_interval=60.0)
"""For tests in which a server is absent for long."""
HANGING = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"
"""The beginning of a response, after which the connection stays open."""


def run(
    server: LlmServer,
    work: Callable[[Llm], Awaitable[Any]],
    time: FakeTime | None = None,
    timeouts: Timeouts = TIMEOUTS,
    **settings: Any,
) -> Any:
    async def session() -> Any:
        async with Llm(LlmSettings(server.url, MODEL, **settings), (time or FakeTime()).clock, timeouts) as llm:
            return await work(llm)

    return asyncio.run(session())


class Wire:
    """A server that sends raw bytes: each of `faults` answers one completion; later ones succeed."""

    def __init__(self, *faults: bytes | None, models: bytes | None = None) -> None:
        self.models = models or reply(200, {"data": [{"id": MODEL}]})
        self.faults = list(faults)
        """The bytes sent before the connection is closed. None sends nothing and keeps it open, as after HANGING."""
        self.heads: list[str] = []
        self.connections = 0
        self.on_completion: Callable[[], None] = lambda: None
        """Called with each request before it is answered."""

    def run(
        self,
        work: Callable[[Llm], Awaitable[Any]],
        time: FakeTime | None = None,
        loop: type[asyncio.SelectorEventLoop] = asyncio.SelectorEventLoop,
        timeouts: Timeouts = TIMEOUTS,
        **settings: Any,
    ) -> Any:
        async def session() -> Any:
            server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
            async with Llm(LlmSettings(url, MODEL, **settings), (time or FakeTime()).clock, timeouts) as llm:
                return await work(llm)

        with asyncio.Runner(loop_factory=loop) as runner:
            return runner.run(session())

    @property
    def probes(self) -> int:
        return sum(head.startswith("GET /v1/models ") for head in self.heads)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with suppress(asyncio.IncompleteReadError):  # the client has disconnected
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                self.heads.append(head)
                if head.startswith("GET"):
                    writer.write(self.models)
                    continue
                await reader.readexactly(int(head.lower().split("content-length: ")[1].split()[0]))
                self.on_completion()
                if not self.faults:
                    writer.write(reply(200, completion("{}")))
                    continue
                fault = self.faults.pop(0)
                writer.write(fault or b"")
                if fault is None or fault.endswith(HANGING):
                    await reader.read()
                writer.close()
                return


def reply(status: int, body: Any = None) -> bytes:
    data = json.dumps(body).encode()
    return b"HTTP/1.1 %d -\r\nContent-Length: %d\r\n\r\n%s" % (status, len(data), data)


class SkippingLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock, including all timeouts, can be moved forward."""

    skipped = 0.0

    def time(self) -> float:
        return super().time() + self.skipped


class LoopTime(FakeTime):
    """A clock that shows the event loop's time."""

    @property
    def clock(self) -> Clock:
        return replace(super().clock, now=lambda: asyncio.get_running_loop().time())


def skip(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SkippingLoop)
    loop.skipped += seconds


def ask(llm: Llm, keywords: str = "oil, gas") -> Awaitable[Completion]:
    messages = [{"role": "system", "content": "Name it."}, {"role": "user", "content": f"Keywords: {keywords}"}]
    return llm.complete(messages, 100, RESPONSE_FORMAT)


def asks_of(request: dict[str, Any], keywords: str) -> bool:
    return keywords in request["messages"][-1]["content"]


async def ask_many(llm: Llm, count: int) -> list[Completion | BaseException]:
    return await asyncio.gather(*(ask(llm) for _ in range(count)), return_exceptions=True)


def test_the_address_is_the_argument_then_the_environment_then_xai() -> None:
    environ = {env.LLM_BASE_URL: "http://gpu/v1/", env.LLM_API_KEY: "key"}
    assert read_llm_settings(environ, "http://given/v1").base_url == "http://given/v1"
    assert read_llm_settings(environ).base_url == "http://gpu/v1"
    assert read_llm_settings(environ).model is None
    hosted = read_llm_settings({env.LLM_API_KEY: "key"})
    assert (hosted.base_url, hosted.model) == (XAI_BASE_URL, HOSTED_MODEL)
    with pytest.raises(LlmError, match="there is no LLM"):
        read_llm_settings({})


def test_the_only_model_of_a_server_is_used_and_several_need_a_choice(llm: LlmServer) -> None:
    async def model(settings: LlmSettings) -> str:
        async with Llm(settings) as client:
            await client.check_model()
            return client.model

    assert asyncio.run(model(LlmSettings(llm.url, None))) == MODEL
    llm.models = Reply(body={"data": [{"id": "one"}, {"id": "two"}]})
    with pytest.raises(LlmError, match=r"serves several models \(one, two\): choose one with LLM_MODEL_NAME"):
        asyncio.run(model(LlmSettings(llm.url, None)))


@pytest.mark.parametrize(
    ("wanted", "served", "chosen"),
    [
        (None, ["nomic-embed-text:latest", "qwen3:latest"], "qwen3:latest"),
        ("qwen3", ["llama3:latest", "qwen3:latest"], "qwen3:latest"),
        ("qwen3-8b", ["/models/Qwen3-8B.gguf", "bge-m3"], "/models/Qwen3-8B.gguf"),
    ],
)
def test_the_model_is_found_as_the_server_spells_it(
    llm: LlmServer, wanted: str | None, served: list[str], chosen: str
) -> None:
    llm.models = Reply(body={"data": [{"id": model} for model in served]})
    checked = asyncio.run(first_answer(LlmSettings(llm.url, wanted)))
    assert (checked, llm.requests[0]["model"]) == (chosen, chosen)


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/"])
def test_the_base_url_may_lack_v1(llm: LlmServer, path: str) -> None:
    settings = read_llm_settings({env.LLM_BASE_URL: llm.url.removesuffix("/v1") + path})
    assert asyncio.run(first_answer(settings)) == MODEL


def test_a_url_without_an_api_is_reported_with_the_setting(llm: LlmServer) -> None:
    settings = replace(read_llm_settings({env.LLM_BASE_URL: f"{llm.url[:-3]}/elsewhere"}), url_option="--llm-url")
    with pytest.raises(LlmError, match=r"\(HTTP 404: .*with and without /v1\): check --llm-url"):
        asyncio.run(first_answer(settings))


async def first_answer(settings: LlmSettings) -> str:
    """The model that has given the first answer."""
    async with Llm(settings, FakeTime().clock) as client:
        await client.check_model()
        await ask(client)
        return client.model


@pytest.mark.parametrize(
    "refusal",
    ["Unrecognized request argument supplied: chat_template_kwargs", "Invalid schema: 'maxLength' is not permitted."],
)
def test_a_server_without_vllm_extensions_gets_standard_requests(llm: LlmServer, refusal: str) -> None:
    def behave(_number: int, request: dict[str, Any]) -> Reply:
        if "chat_template_kwargs" in request or "maxLength" in json.dumps(request):
            return Reply(status=400, body={"error": {"message": refusal}})
        return Reply()

    llm.behave = behave
    completions = run(llm, lambda client: ask_many(client, 3))

    assert all(isinstance(completion, Completion) for completion in completions)
    assert len(llm.requests) == 4
    asked = llm.requests[-1]["response_format"]["json_schema"]["schema"]
    assert asked == {
        "type": "object",
        "properties": {"name": {"type": "string"}, "summary": {"type": "string"}, "coherent": {"type": "boolean"}},
        "required": ["name", "summary", "coherent"],
        "additionalProperties": False,
    }


@pytest.mark.parametrize("fault", [UNAVAILABLE, FAILING, FULL, Reply(close=True)])
def test_temporary_errors_are_retried_with_growing_pauses(llm: LlmServer, fault: Reply) -> None:
    llm.behave = lambda number, _request: fault if number < 3 else Reply()
    time = FakeTime()

    completion = run(llm, ask, time)

    assert completion.retries == 3
    assert len(llm.requests) == 4
    assert time.slept == [0.5, 1.0, 2.0]


@pytest.mark.parametrize(
    ("fault", "is_watched"),
    [
        pytest.param(b"", True, id="closed before the answer"),
        pytest.param(HANGING + b" ", True, id="closed in mid-answer"),
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", True, id="no HTTP"),
        *[pytest.param(reply(status), True, id=f"{status}") for status in (500, 502, 503, 504)],
        *[pytest.param(reply(status), False, id=f"{status}") for status in (408, 409, 425, 429)],
        pytest.param(None, False, id="no answer in time"),
        pytest.param(HANGING, False, id="not the whole answer in time"),
    ],
)
def test_an_absent_server_is_polled_and_a_slow_one_is_not(fault: bytes | None, is_watched: bool) -> None:
    timeouts = Timeouts(request=1.0, min_request=1.0) if fault in (None, HANGING) else TIMEOUTS
    wire = Wire(fault)
    assert wire.run(ask, timeouts=timeouts).retries == 1
    assert wire.probes == is_watched


@pytest.mark.parametrize("is_full", [False, True])
def test_an_unreachable_server_is_polled(is_full: bool) -> None:
    """No process listens, or the connection is never established, as with a reclaimed host."""
    time = FakeTime(lambda _seconds: pytest.fail("the first pause"))
    with socket.socket() as closed, socket.socket() as first, socket.socket() as second:
        closed.bind(("127.0.0.1", 0))
        if is_full:
            closed.listen(0)
            for one in (first, second):
                one.setblocking(False)
                one.connect_ex(closed.getsockname())

        async def session() -> None:
            url = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
            async with Llm(LlmSettings(url, MODEL), time.clock, Timeouts(connect=0.2)) as llm:
                await ask(llm)

        with pytest.raises(pytest.fail.Exception, match="the first pause"):
            asyncio.run(session())
    assert time.slept == [5.0]  # the poll interval, not the pause before another attempt


def test_a_hanging_server_is_detected_by_a_minimal_request() -> None:
    wire = Wire(*[None] * 4)
    with pytest.raises(LlmUnavailableError, match=r"fails at every request \(no answer in \d+ s\)"):
        wire.run(ask, timeouts=Timeouts(request=0.1, min_request=0.1, max_request=0.1, retry=1.0))
    assert wire.faults == []


def test_the_timeout_of_a_request_begins_when_it_is_sent() -> None:
    """Three consecutive requests that each take most of their timeout."""
    wire = Wire()
    wire.on_completion = lambda: skip(0.8 * TIMEOUTS.request)
    completions = wire.run(lambda llm: ask_many(llm, 3), loop=SkippingLoop, max_concurrent=1)
    assert [completion.retries for completion in completions] == [0, 0, 0]


def test_a_requests_time_limit_follows_what_the_server_has_needed() -> None:
    """The first answer takes nearly all of the initial limit; later ones may take four times as long."""
    wire = Wire()
    needed = [0.9 * TIMEOUTS.request, 3 * TIMEOUTS.request, 1.5 * TIMEOUTS.request]
    wire.on_completion = lambda: skip(needed.pop(0))
    completions = wire.run(lambda llm: ask_many(llm, 3), LoopTime(), SkippingLoop, max_concurrent=1)
    assert [completion.retries for completion in completions] == [0, 0, 0]


@pytest.mark.parametrize(
    ("characters", "counted", "is_cut"),
    [
        (1700, 256, True),
        (1700, 390, False),
        (2700, 256, True),
        (1300, 256, False),
        (1700, 0, False),
        (1700, 1700, False),
    ],
)
def test_a_prompt_that_the_server_cut_is_found_by_its_count_of_tokens(
    llm: LlmServer, characters: int, counted: int, is_cut: bool
) -> None:
    answer = completion("{}") | {"usage": {"prompt_tokens": counted, "completion_tokens": 9}}
    llm.behave = lambda _number, _request: Reply(body=answer)
    asked = run(llm, lambda client: ask(client, "word " * (characters // 5)))
    assert bool(asked.problem) == is_cut
    if is_cut:
        assert asked.problem.kind == FallbackKind.PROMPT_TRUNCATED
        assert f"it read {counted} tokens of " in asked.problem.reason


def test_one_dense_prompt_among_others_is_not_taken_for_a_cut_one(llm: LlmServer) -> None:
    answer = completion("{}") | {"usage": {"prompt_tokens": 400, "completion_tokens": 9}}
    llm.behave = lambda _number, _request: Reply(body=answer)

    async def work(client: Llm) -> list[Completion]:
        return [await ask(client, "word " * words) for words in (360, 360, 360, 520)]

    assert [asked.problem for asked in run(llm, work)] == [None] * 4


def test_idle_connections_are_not_reused() -> None:
    """The server closes idle connections, possibly at the moment when a request is sent."""
    wire = Wire()

    async def work(llm: Llm) -> None:
        await ask(llm)
        await ask(llm)
        assert wire.connections == 1
        await asyncio.sleep(0.2)
        await ask(llm)
        assert wire.connections == 2

    wire.run(work, timeouts=Timeouts(keepalive=0.1))


def test_the_key_is_sent_in_the_header_and_never_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    wire = Wire(reply(403, {"error": {"message": "no secret"}}))
    with pytest.raises(LlmError, match=r"refuses the key \(HTTP 403: no \*\*\*\): check LLM_API_KEY") as error:
        wire.run(ask, api_key="secret")
    assert "secret" not in str(error.value)
    assert "\r\nauthorization: bearer secret\r\n" in wire.heads[0].lower()
    wire = Wire()
    wire.run(ask)
    assert "authorization" not in wire.heads[0].lower()


@pytest.mark.parametrize("url", ["http://[bad/v1", "http://host:99999/v1"])
def test_an_invalid_address_is_reported_at_once(url: str) -> None:
    async def session() -> None:
        async with Llm(LlmSettings(url, MODEL), FakeTime().clock) as llm:
            await llm.check_model()

    with pytest.raises(LlmError, match="is not a valid URL"):
        asyncio.run(session())


def test_a_request_that_fails_while_others_succeed_is_abandoned(llm: LlmServer) -> None:
    """The request itself is to blame: the server answers a minimal request."""
    llm.behave = lambda _number, request: FAILING if asks_of(request, "oil") else Reply(body=completion("Hello"))
    time = FakeTime()

    async def work(client: Llm) -> None:
        await ask(client, "gas")
        await ask(client, "oil")

    with pytest.raises(RequestFailed, match="HTTP 500: EngineCore encountered an issue") as error:
        run(llm, work, time)

    _, *asked, simplest = llm.requests
    assert len(asked) == 1 + error.value.retries == 1 + len(time.slept)
    assert (simplest["max_tokens"], "oil" in str(simplest)) == (1, False)
    assert TIMEOUTS.retry <= sum(time.slept) < TIMEOUTS.retry + 20
    assert max(time.slept) == 10.0  # half of the longest pause: they do not grow further


def test_a_server_that_fails_at_every_request_ends_the_attempt(llm: LlmServer) -> None:
    llm.behave = lambda _number, _request: FAILING
    with pytest.raises(LlmUnavailableError, match=r"fails at every request \(HTTP 500: EngineCore"):
        run(llm, ask)
    results = run(llm, lambda client: ask_many(client, 4))
    assert all(isinstance(result, LlmUnavailableError) for result in results)


def test_requests_wait_while_a_server_shuts_down(llm: LlmServer) -> None:
    """It fails every request for as long as the task definition allows, but still lists its models."""

    def pass_time(now: float) -> None:
        if now >= SHUTDOWN_SECONDS:
            llm.behave = lambda _number, _request: Reply()

    llm.behave = lambda _number, _request: FAILING
    assert run(llm, ask, FakeTime(pass_time)).retries > 0
    assert TIMEOUTS.retry >= SHUTDOWN_SECONDS + 30


def test_the_time_of_an_outage_does_not_count_towards_a_request(llm: LlmServer) -> None:
    """The request fails once, the server is absent for five minutes, and fails a little more when it is back."""

    def pass_time(now: float) -> None:
        llm.models = up if now > 300 else UNAVAILABLE
        if now > 350:
            llm.behave = lambda _number, _request: Reply()

    up = llm.models
    llm.behave = lambda _number, _request: FAILING
    assert run(llm, ask, FakeTime(pass_time)).retries > 2


def test_a_request_that_crashes_the_server_each_time_is_abandoned(llm: LlmServer) -> None:
    def crash(_number: int, request: dict[str, Any]) -> Reply:
        nonlocal back_at
        if not asks_of(request, "oil"):
            return Reply(body=completion("Hello"))
        llm.models, back_at = UNAVAILABLE, sum(time.slept) + 1000
        return Reply(close=True)

    def pass_time(now: float) -> None:
        if now > back_at:
            llm.models = up

    up, llm.behave, back_at, time = llm.models, crash, 0.0, FakeTime(pass_time)
    with pytest.raises(RequestFailed, match="no answer"):
        run(llm, ask, time, SELDOM_POLLED)
    assert sum(asks_of(request, "oil") for request in llm.requests) < 8


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_rejected_request_is_never_repeated(llm: LlmServer, status: int) -> None:
    llm.behave = lambda _number, _request: Reply(status=status, body={"error": {"message": "input_tokens"}})
    with pytest.raises(RequestFailed, match=f"HTTP {status}: input_tokens"):
        run(llm, ask)
    assert len(llm.requests) == 1


def test_requests_stop_when_the_model_has_gone(llm: LlmServer) -> None:
    llm.behave = lambda _number, _request: Reply(status=404, body={"error": {"message": "It does not exist."}})
    with pytest.raises(LlmError, match=rf"has no model '{MODEL}' \(HTTP 404: It does not exist\.\)"):
        run(llm, ask)
    assert len(llm.requests) == 1


def test_error_texts_of_the_server_are_shortened_and_never_contain_the_key(llm: LlmServer) -> None:
    said = f"the key sk-1234 of\nyours {'does ' * 100}"
    llm.behave = lambda _number, _request: Reply(status=400, body={"error": {"message": said}})
    with pytest.raises(RequestFailed, match=r"^HTTP 400: the key \*\*\* of yours does ") as error:
        run(llm, ask, api_key="sk-1234")
    assert len(str(error.value)) < 250


@pytest.mark.parametrize("is_asked", [False, True])
def test_a_redirect_is_reported(is_asked: bool) -> None:
    """A followed redirect would turn the POST into a GET, which returns the list of models and no name."""
    moved = b"HTTP/1.1 301 -\r\nLocation: https://llm.example/v1/\r\nContent-Length: 0\r\n\r\n"
    wire = Wire(moved) if is_asked else Wire(models=moved)
    with pytest.raises(LlmError, match=r"HTTP 301, it sends its callers to https://llm\.example/v1/"):
        wire.run(ask if is_asked else lambda llm: llm.check_model())
    assert len(wire.heads) == 1


def test_a_rate_limit_that_admits_nothing_ends_the_attempt_with_that_reason(llm: LlmServer) -> None:
    llm.behave = lambda _number, _request: LIMITED
    time = FakeTime()
    with pytest.raises(LlmUnavailableError, match=r"for 10 minutes because of its rate limit \(HTTP 429: 5 a minute\)"):
        run(llm, ask, time)
    assert TIMEOUTS.rate_limit <= sum(time.slept) < TIMEOUTS.rate_limit + 120
    assert len(llm.requests) < 25


def test_a_server_that_asks_for_a_longer_wait_than_a_job_can_take_ends_the_work() -> None:
    wire = Wire(b"HTTP/1.1 429 -\r\nRetry-After: 86400\r\nContent-Length: 0\r\n\r\n")
    with pytest.raises(LlmError, match="asks to wait 24 hours"):
        wire.run(ask)


def test_no_more_requests_than_allowed_are_in_flight(llm: LlmServer) -> None:
    results = run(llm, lambda client: ask_many(client, 40), max_concurrent=7)
    assert all(isinstance(result, Completion) for result in results)
    assert llm.most_at_once <= 7


def test_one_shared_poll_waits_for_a_replaced_gpu(llm: LlmServer) -> None:
    probes = 0

    def come_back(now: float) -> None:
        nonlocal probes
        probes += 1
        if now > 300:
            llm.models = up
            llm.behave = lambda _number, _request: Reply()

    up, llm.models = llm.models, UNAVAILABLE
    llm.behave = lambda _number, _request: UNAVAILABLE
    time = FakeTime(come_back)

    results = run(llm, lambda client: ask_many(client, 16), time, max_concurrent=16)

    assert all(isinstance(result, Completion) for result in results)
    assert 16 < len(llm.requests) <= 32  # each request failed at most once
    assert 300 < sum(time.slept) < 330  # one poll: sixteen would have slept sixteen times as long
    assert probes == len(time.slept)


def test_a_lasting_outage_ends_the_attempt_after_25_minutes(llm: LlmServer) -> None:
    llm.models = llm_reply = UNAVAILABLE
    llm.behave = lambda _number, _request: llm_reply
    time = FakeTime()

    results = run(llm, lambda client: ask_many(client, 4), time, SELDOM_POLLED)

    assert all(isinstance(result, LlmUnavailableError) for result in results)
    assert "was absent for 25 minutes" in str(results[0])
    assert TIMEOUTS.outage <= sum(time.slept) < TIMEOUTS.outage + 2 * SELDOM_POLLED.poll_interval
