"""The local load balancer over HTTP, in front of the fake vLLM and of real servers."""

import asyncio
import json
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import openai
import pytest

from local.fake_vllm.alb import LocalAlb, RealServer, Request, Response, json_response
from local.fake_vllm.server import MODEL, FakeVllm
from local.state import LocalError

PROMPT = """Name the topic of these sentences.
Keywords: for, example, only

Sentences:
- Free cash flow was 400 million dollars.
Keywords: cash flow, free cash, dividends, capital, buyback"""

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 60}, "summary": {"type": "string", "maxLength": 300}},
    "required": ["name", "summary"],
    "additionalProperties": False,
}


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Return a function that starts a load balancer in front of a target and returns its URL."""
    with ExitStack() as cleanup:

        def serve(target: Any, healthy: Callable[[], bool] = lambda: True) -> str:
            balancer = LocalAlb(target, healthy)
            balancer.start()
            cleanup.callback(balancer.stop)
            return f"http://{balancer.address}"

        yield serve


@pytest.fixture
def url(serve: Callable[..., str]) -> str:
    return serve(FakeVllm())


def client_of(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


def complete(url: str, prompt: str = PROMPT, schema: dict[str, Any] | None = None, **more: Any) -> Any:
    """Request a completion, with a schema if given, as the worker does."""
    asked: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": prompt}], **more}
    if schema:
        json_schema = {"name": "topic", "schema": schema, "strict": True}
        asked["response_format"] = {"type": "json_schema", "json_schema": json_schema}
    return client_of(url).chat.completions.create(**asked)


def content(answer: Any) -> Any:
    return json.loads(answer.choices[0].message.content)


def fetch(url: str, body: bytes | None = None, method: str | None = None) -> tuple[int, bytes]:
    request = urllib.request.Request(url, body, {"content-type": "application/json"}, method=method)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_a_topic_is_named_from_the_last_line_of_keywords(url: str):
    named = content(complete(url, schema=SCHEMA))
    assert named == {
        "name": "Cash flow and dividends",
        "summary": "The call discusses cash flow, free cash, dividends and capital.",
    }


def test_a_prompt_without_keywords_gets_a_name_that_says_so(url: str):
    assert content(complete(url, "Hello", schema=SCHEMA))["name"] == "Topic without keywords"


def test_the_answer_follows_the_schema(url: str):
    schema = {
        "type": "object",
        "properties": {
            "title": {"type": "string", "maxLength": 12},
            "description": {"type": ["string", "null"]},
            "kind": {"enum": ["cost", "growth"]},
            "version": {"const": 2},
            "score": {"type": "integer", "minimum": 1},
            "sure": {"type": "boolean"},
            "words": {"type": "array", "items": {"type": "string"}, "minItems": 2},
        },
    }
    assert content(complete(url, schema=schema)) == {
        "title": "Cash flow",
        "description": "The call discusses cash flow, free cash, dividends and capital.",
        "kind": "cost",
        "version": 2,
        "score": 1,
        "sure": True,
        "words": ["Cash flow and dividends"] * 2,
    }


def test_the_model_id_says_that_it_is_a_fake(url: str):
    models = client_of(url).models.list().data
    assert [model.id for model in models] == [MODEL]
    assert "fake" in MODEL


def test_usage_counts_the_shared_prefix_as_cached(url: str):
    instructions = "Name the topic in a few words, as an analyst of earnings calls would. " * 40
    first = complete(url, f"{instructions}\nKeywords: margins").usage
    second = complete(url, f"{instructions}\nKeywords: buyback").usage
    assert first.prompt_tokens_details.cached_tokens == 0
    assert 0.9 < second.prompt_tokens_details.cached_tokens / second.prompt_tokens < 1
    assert second.total_tokens == second.prompt_tokens + second.completion_tokens
    assert 500 < second.prompt_tokens < 1000


def test_an_answer_that_is_too_long_is_cut_with_finish_reason_length(url: str):
    answer = complete(url, schema=SCHEMA, max_tokens=3)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 3


def test_an_unknown_model_is_404(url: str):
    with pytest.raises(openai.NotFoundError, match="The model `gpt` does not exist"):
        complete(url, model="gpt")


def test_a_prompt_that_is_too_long_is_400(serve: Callable[..., str]):
    with pytest.raises(openai.BadRequestError) as error:
        complete(serve(FakeVllm(max_model_len=100)), "word " * 200)
    assert error.value.param == "input_tokens"
    assert "maximum context length is 100 tokens" in str(error.value)


@pytest.mark.parametrize("body", [b"{", b"[]", b"{}", b'{"messages": [{"role": "user"}]}', b'{"messages": "hi"}'])
def test_an_invalid_request_is_400(url: str, body: bytes):
    status, answer = fetch(f"{url}/v1/chat/completions", body)
    assert status == 400
    assert json.loads(answer)["error"]["code"] == 400


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/v1/chat/completions", 405),
        ("POST", "/metrics", 405),
        ("GET", "/health", 200),
    ],
)
def test_other_paths(url: str, method: str, path: str, status: int):
    assert fetch(url + path, method=method)[0] == status


def test_without_a_healthy_target_everything_is_503(serve: Callable[..., str]):
    targets: list[str] = []
    url = serve(FakeVllm(), lambda: bool(targets))
    assert fetch(f"{url}/health")[0] == 503
    with pytest.raises(openai.InternalServerError, match="503"):
        complete(url)
    targets.append("i-1")
    assert fetch(f"{url}/health") == (200, b"")
    targets.clear()
    assert fetch(f"{url}/health")[0] == 503


class Keyed:
    """A server that requires a key, has no /health, and is not vLLM."""

    model = "real-model"

    async def answer(self, request: Request) -> Response:
        if request.headers.get("authorization") != "Bearer right":
            return json_response(401, {"error": {"message": "wrong key", "code": 401}})
        if request.path == "/v1/models":
            return json_response(200, {"data": [{"id": "nomic-embed-text"}, {"id": "real-model:latest"}]})
        if request.path == "/v1/chat/completions":
            asked = json.loads(request.body)
            message = {"role": "assistant", "content": f"real answer to {asked['messages'][0]['content']}"}
            return json_response(200, {"id": "1", "choices": [{"index": 0, "message": message}]})
        return Response(404, b"nothing here", "text/plain")

    async def close(self) -> None:
        pass


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
def test_a_real_server_answers_through_the_load_balancer(
    serve: Callable[..., str], suffix: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("LLM_API_KEY", "right")
    real = RealServer(serve(Keyed()) + suffix)
    url = serve(real)
    assert real.model == "real-model:latest"
    assert fetch(f"{url}/health") == (200, b"")
    assert complete(url, "hello").choices[0].message.content == "real answer to hello"
    assert fetch(f"{url}/elsewhere") == (404, b"nothing here")


def test_an_invalid_key_is_reported_without_showing_it(serve: Callable[..., str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LLM_API_KEY", "k3y\n")
    with pytest.raises(LocalError, match="LLM_API_KEY holds a blank, a line break") as refusal:
        RealServer(serve(FakeVllm()))
    assert "k3y" not in str(refusal.value)


def test_a_real_server_answers_only_while_a_target_is_healthy(serve: Callable[..., str]):
    assert fetch(serve(RealServer(serve(FakeVllm())), lambda: False) + "/health")[0] == 503


def test_a_real_server_that_is_unreachable_is_502(serve: Callable[..., str]):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        answering = threading.Thread(target=answer_once, args=(listener, b'{"data": [{"id": "real-model"}]}'))
        answering.start()
        real = RealServer(f"http://127.0.0.1:{listener.getsockname()[1]}")
        answering.join()
    assert fetch(f"{serve(real)}/v1/models")[0] == 502


def answer_once(listener: socket.socket, body: bytes) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("http://127.0.0.1:9/v1", r"^the LLM server at http://127\.0\.0\.1:9/v1 does not answer: Cannot connect"),
        ("http://", "^the LLM server at http:// does not answer: "),
        ("127.0.0.1:9", "^'127.0.0.1:9' is not the base URL of an LLM server: write http://host:port/v1"),
    ],
)
def test_a_server_that_does_not_answer_is_reported_in_one_sentence(url: str, sentence: str):
    with pytest.raises(LocalError, match=sentence):
        RealServer(url)


class Silent:
    """A server that never answers a completion, and records which requests were cancelled."""

    model = "silent"

    def __init__(self) -> None:
        self.started = threading.Event()
        self.cancelled = threading.Event()

    async def answer(self, request: Request) -> Response:
        if request.path == "/v1/models":
            return json_response(200, {"data": [{"id": "silent"}]})
        self.started.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()
        raise AssertionError

    async def close(self) -> None:
        pass


def test_an_abandoned_request_is_cancelled_at_the_server(serve: Callable[..., str]):
    silent = Silent()
    url = serve(RealServer(serve(silent)))
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as client:
        client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}")
        assert silent.started.wait(10)
        assert not silent.cancelled.is_set()
    assert silent.cancelled.wait(10)


class Limited:
    """A server whose rate limit is used up."""

    model = "limited"

    async def answer(self, request: Request) -> Response:
        if request.path == "/v1/models":
            return json_response(200, {"data": [{"id": self.model}]})
        return Response(429, b"{}", headers={"retry-after": "7", "x-ratelimit-remaining-requests": "0", "x-other": "1"})

    async def close(self) -> None:
        pass


def test_the_rate_limit_headers_of_a_server_reach_the_client(serve: Callable[..., str]):
    url = serve(RealServer(serve(Limited())))
    with pytest.raises(openai.RateLimitError) as refusal:
        complete(url)
    headers = refusal.value.response.headers
    assert (headers["retry-after"], headers["x-ratelimit-remaining-requests"]) == ("7", "0")
    assert "x-other" not in headers


class Listing:
    """A server that lists the given models."""

    model = ""

    def __init__(self, *models: str) -> None:
        self._models = [{"id": model} for model in models]

    async def answer(self, request: Request) -> Response:
        del request
        return json_response(200, {"data": self._models})

    async def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("models", "wanted", "chosen"),
    [
        (["text-embedding-3-small", "qwen3-8b"], None, "qwen3-8b"),
        (["qwen3-8b", "llama3"], "llama3", "llama3"),
        (["nomic-embed-text:latest", "qwen3:latest", "llama3:latest"], "llama3", "llama3:latest"),
        (["/models/Qwen3-8B-Q4.gguf"], "qwen3-8b-q4", "/models/Qwen3-8B-Q4.gguf"),
        (["models/gemini-flash", "models/gemini-pro"], "gemini-pro", "models/gemini-pro"),
        (["qwen/qwen3-8b", "text-embedding-nomic"], "Qwen3-8B", "qwen/qwen3-8b"),
    ],
)
def test_the_model_is_the_requested_one_or_the_only_chat_model(
    serve: Callable[..., str], models: list[str], wanted: str | None, chosen: str
):
    assert RealServer(serve(Listing(*models)), wanted).model == chosen


@pytest.mark.parametrize(
    ("models", "wanted", "sentence"),
    [
        (["a", "b"], None, r"it serves several models \(a, b\): choose one with --llm-model"),
        (["a", "b"], "c", "it serves a, b, not c: set --llm-model to a model that it serves"),
        (["nomic-embed-text"], None, r"it serves no chat model \(nomic-embed-text\)"),
        ([], None, r"it serves no chat model \(none\)"),
    ],
)
def test_a_model_that_cannot_be_chosen_is_reported_in_one_sentence(
    serve: Callable[..., str], models: list[str], wanted: str | None, sentence: str
):
    with pytest.raises(LocalError, match=sentence):
        RealServer(serve(Listing(*models)), wanted)


def test_a_server_that_refuses_the_key_names_the_variable(serve: Callable[..., str], monkeypatch: pytest.MonkeyPatch):
    url = serve(Keyed())
    with pytest.raises(LocalError, match=r"without a key: set LLM_API_KEY \(HTTP 401: wrong key\)"):
        RealServer(url)
    monkeypatch.setenv("LLM_API_KEY", "wrong")
    with pytest.raises(LocalError, match=r"refuses the key in LLM_API_KEY \(HTTP 401: \*\*\* key\)") as error:
        RealServer(url)
    assert "wrong" not in str(error.value)


def test_a_server_that_is_not_an_llm_is_reported_in_one_sentence(serve: Callable[..., str]):
    with pytest.raises(LocalError, match=r"without a list of models \(HTTP 404: .*Not Found.*\): give the base URL"):
        RealServer(serve(FakeVllm()) + "/elsewhere")
