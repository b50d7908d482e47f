"""`evaluation.judge` against an LLM server that fails in many ways; no time passes."""

import io
import json
import socket
from collections.abc import Callable
from typing import Any

import pytest

from contract import env
from evaluation import EvaluationError
from evaluation.judge import Pair, judge
from evaluation.process import answer_request
from llm import LlmAddressError, LlmUnavailableError
from testing.worker import MODEL, FakeTime, LlmServer, Reply, completion

PAIRS: list[Pair] = [
    {"a_name": "Margins", "b_name": "Rates", "sentences": ["Sentence number 1."]},
    {"a_name": "Stores", "b_name": "Margins grow", "sentences": ["Sentence number 2."]},
    {"a_name": "Hiring", "b_name": "Wages", "sentences": ["Sentence number 3."]},
]
DECIDED = {"model": MODEL, "pairs": 3, "a": 1, "b": 1, "equal": 0, "contradicted": 1, "unanswered": 0}


def verdict(request: dict[str, Any]) -> Reply:
    """Prefers the label that mentions margins, otherwise the first one."""
    better = "2" if "Margins" in prompt_of(request).split("Label 2: ")[1] else "1"
    return Reply(body=completion(json.dumps({"better": better})))


def prompt_of(request: dict[str, Any]) -> str:
    return request["messages"][-1]["content"]


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(env.LLM_API_KEY, raising=False)


def test_a_judge_is_asked_in_both_orders_and_its_contradictions_do_not_count(llm: LlmServer) -> None:
    llm.behave = lambda _number, request: verdict(request)

    assert judge(llm.url, None, PAIRS) == DECIDED

    asked = [prompt_of(request).split("\n\n")[1] for request in llm.requests]
    assert {"Label 1: Margins\nLabel 2: Rates", "Label 1: Rates\nLabel 2: Margins"} < set(asked)
    assert len(asked) == 6


@pytest.mark.parametrize(
    "answer",
    ['<think>\n\n</think>\n\n{"better": "equal"}', '```json\n{"better": "equal"}\n```', '{"Better": "equal"}'],
)
def test_verdicts_are_read_from_any_form_of_answer(llm: LlmServer, answer: str) -> None:
    llm.behave = lambda _number, _request: Reply(body=completion(answer))

    assert judge(llm.url, None, PAIRS)["equal"] == 3


@pytest.mark.parametrize(
    "faults",
    [
        [Reply(status=429)],
        [Reply(status=503), Reply(status=408)],
        [Reply(close=True)],
        [Reply(status=500), Reply(close=True), Reply(status=429)],
    ],
)
def test_requests_to_a_busy_judge_are_repeated(llm: LlmServer, faults: list[Reply]) -> None:
    llm.behave = lambda number, request: faults[number] if number < len(faults) else verdict(request)

    assert judge(llm.url, None, PAIRS, FakeTime().clock) == DECIDED
    assert len(llm.requests) == 6 + len(faults)


def test_a_pair_without_a_verdict_is_counted_and_the_others_are_kept(llm: LlmServer) -> None:
    def behave(_number: int, request: dict[str, Any]) -> Reply:
        if "number 1." in prompt_of(request):
            return Reply(status=413, body={"error": {"message": "the prompt is too long"}})
        if "number 2." in prompt_of(request):
            return Reply(body=completion("I like both."))
        return verdict(request)

    llm.behave = behave

    assert judge(llm.url, None, PAIRS) == DECIDED | {"a": 0, "b": 0, "unanswered": 2}


def test_verdicts_from_before_a_failure_of_the_judge_are_kept(
    llm: LlmServer, capsys: pytest.CaptureFixture[str]
) -> None:
    failing = Reply(status=500, body={"error": {"message": "EngineCore encountered an issue"}})
    llm.behave = lambda _number, request: verdict(request) if "number 1." in prompt_of(request) else failing

    assert judge(llm.url, None, PAIRS, FakeTime().clock) == DECIDED | {"b": 0, "contradicted": 0, "unanswered": 2}

    (line,) = capsys.readouterr().err.splitlines()
    assert "the pairs that were left are unanswered: the LLM at" in line
    assert "fails at every request (HTTP 500: EngineCore" in line


@pytest.mark.parametrize(
    ("reply", "sentence"),
    [
        (Reply(body=completion("I like both.")), "the judge's answer cannot be used: it is not a JSON object"),
        (Reply(body=completion('{"better": "3"}')), "the judge's answer cannot be used: better is '3'"),
        (Reply(body=completion("{", "length")), "the judge's answer cannot be used: it is too long"),
        (Reply(status=400, body={"error": {"message": "prompt is too long"}}), "HTTP 400: prompt is too long"),
    ],
)
def test_a_judge_that_gives_no_verdict_is_an_error(llm: LlmServer, reply: Reply, sentence: str) -> None:
    llm.behave = lambda _number, _request: reply

    with pytest.raises(EvaluationError, match="none of the 3 pairs was judged: ") as error:
        judge(llm.url, None, PAIRS, FakeTime().clock)

    assert sentence in str(error.value)


@pytest.mark.parametrize(
    "models", [b"<html>Log in</html>", {"data": None}, {"models": []}, b"null", b"", b"\xff"], ids=repr
)
def test_an_unusable_judge_is_reported(llm: LlmServer, models: Any) -> None:
    llm.models = Reply(body=models)

    with pytest.raises(LlmAddressError, match=r"is not an OpenAI-compatible server .*: check --judge$"):
        judge(llm.url, None, PAIRS, FakeTime().clock)


def test_a_judge_that_keeps_failing_is_abandoned(llm: LlmServer) -> None:
    llm.behave = lambda _number, _request: Reply(status=503, body={"error": {"message": "the queue is full"}})
    time = FakeTime()

    with pytest.raises(LlmUnavailableError, match=r"fails at every request \(HTTP 503: the queue is full\)"):
        judge(llm.url, None, PAIRS, time.clock)

    assert sum(time.slept) < 120  # three requests back off one after another


def test_an_absent_judge_is_abandoned_within_half_a_minute() -> None:
    time = FakeTime()

    with pytest.raises(LlmUnavailableError, match="was absent for 20 seconds"):
        judge(nobody(), None, PAIRS, time.clock)

    assert 20 <= sum(time.slept) < 30


@pytest.mark.parametrize(
    ("models", "reply", "sentence", "exit_code"),
    [
        ([MODEL, "large"], Reply(), "choose one with --judge-model", 2),
        (["embeddings"], Reply(), "it serves no chat model", 2),
        ([MODEL], Reply(status=404), "check --judge-model, and --judge", 2),
        (None, Reply(), "is not an OpenAI-compatible server", 3),
        ([MODEL], Reply(status=401), "wants a key (HTTP 401", 4),
        ([MODEL], Reply(body=completion("?")), "none of the 3 pairs was judged", 1),
    ],
)
def test_the_exit_codes_of_the_process(
    llm: LlmServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    models: list[str] | None,
    reply: Reply,
    sentence: str,
    exit_code: int,
) -> None:
    llm.models = Reply(body={"data": [{"id": model} for model in models]} if models else b"<html></html>")
    llm.behave = lambda _number, _request: reply

    assert answered(monkeypatch, lambda: judge(llm.url, None, PAIRS, FakeTime().clock)) == exit_code
    assert sentence in json.loads(capsys.readouterr().out)["error"]


def test_the_exit_code_for_an_absent_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    assert answered(monkeypatch, lambda: judge(nobody(), None, PAIRS, FakeTime().clock)) == 3


def test_a_key_that_cannot_be_sent_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(env.LLM_API_KEY, "k3y\n")

    assert answered(monkeypatch, lambda: judge(nobody(), None, PAIRS, FakeTime().clock)) == 2
    output = capsys.readouterr().out
    assert "LLM_API_KEY holds a blank, a line break" in output
    assert "k3y" not in output


def answered(monkeypatch: pytest.MonkeyPatch, work: Callable[[], object]) -> int:
    monkeypatch.setattr("sys.stdin", io.StringIO("{}"))
    return answer_request(lambda _request: work())


def nobody() -> str:
    """The address of a port on which nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
