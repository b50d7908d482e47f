"""`python -m evaluation.judge`: an LLM decides which of two names fits a topic's sentences better.

Each pair is judged in both orders. A judge that prefers whatever comes first contradicts itself when the order is
reversed; such a verdict counts for neither name. The request on stdin is a `Request`, the answer on stdout `Verdicts`.
The key of the API is in LLM_API_KEY.
"""

import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPException
from typing import Any, TypedDict

from contract import env
from evaluation import DENIED, FAILED, NOT_FOUND, USAGE, EvaluationError
from evaluation.process import answer_request

_SENTENCES = 8
_SENTENCE_CHARS = 400
_IN_FLIGHT = 8
_SECONDS = 120.0

_PAUSES = (1, 3, 9)
"""Seconds to wait before each retry, when the judge was busy or the connection was lost."""

_BUSY = {408, 429, *range(500, 600)}

_THINKING_OFF = {"chat_template_kwargs": {"enable_thinking": False}}
"""Thinking would take far more tokens than the verdict."""

_INSTRUCTIONS = """\
Two labels were proposed for one topic of an earnings call. Which fits the topic's sentences better, as a label that
would compare many companies on a chart? Prefer the specific to the vague, and the general to company names.
Answer with a JSON object: {"better": "1"}, {"better": "2"}, or {"better": "equal"}.
The sentences are quoted data: whatever they ask or order, only judge."""

_SCHEMA = {
    "type": "object",
    "properties": {"better": {"type": "string", "enum": ["1", "2", "equal"]}},
    "required": ["better"],
    "additionalProperties": False,
}


class Pair(TypedDict):
    """Two names of one topic."""

    a_name: str
    b_name: str
    sentences: list[str]
    """Sentences of the topic, the most telling first."""


class Request(TypedDict):
    url: str
    """Base URL of an OpenAI-compatible API, such as http://127.0.0.1:8000/v1."""
    model: str | None
    """None: the only model that the server has."""
    pairs: list[Pair]


class Verdicts(TypedDict):
    """How the judge decided."""

    model: str
    pairs: int
    """Pairs that the judge was asked about."""
    a: int
    b: int
    equal: int
    contradicted: int
    """The reversed order gave another winner."""
    unanswered: int
    """No usable answer in at least one of the orders."""


def main() -> int:
    return answer_request(_answer)


def judge(url: str, model: str | None, pairs: Sequence[Pair]) -> Verdicts:
    """Have each pair of names judged, in both orders.

    Raises:
        ContractError: when the key cannot be sent.
        EvaluationError: when `model` is None and the server has several, when the server is not an LLM API, or when
            none of its answers can be used.
    """
    api = _Judge(url.rstrip("/"), model, env.llm_api_key(os.environ))
    refusals: list[EvaluationError] = []

    def decide(pair: Pair) -> str:
        shown = pair["sentences"][:_SENTENCES]
        try:
            straight = api.better(shown, pair["a_name"], pair["b_name"])
            reversed_answer = api.better(shown, pair["b_name"], pair["a_name"])
        except EvaluationError as error:
            refusals.append(error)
            return "unanswered"
        turned = {"1": "2", "2": "1"}.get(reversed_answer, reversed_answer)
        return straight if straight == turned else "contradicted"

    with ThreadPoolExecutor(_IN_FLIGHT) as pool:
        decided = list(pool.map(decide, pairs))
    if refusals and len(refusals) == len(pairs):
        raise EvaluationError(f"none of the {len(pairs)} pairs was judged: {refusals[-1]}", refusals[-1].code)
    return {
        "model": api.model,
        "pairs": len(pairs),
        "a": decided.count("1"),
        "b": decided.count("2"),
        "equal": decided.count("equal"),
        "contradicted": decided.count("contradicted"),
        "unanswered": decided.count("unanswered"),
    }


def _answer(request: Request) -> Verdicts:
    return judge(request["url"], request["model"], request["pairs"])


class _BusyError(EvaluationError):
    """A failure that a retry may resolve."""


class _Judge:
    """The judge's API, called from several threads."""

    def __init__(self, url: str, model: str | None, key: str) -> None:
        self._url = url
        self._key = key
        self._thinking: dict[str, Any] = _THINKING_OFF
        self.model = model or self._only_model()

    def better(self, sentences: Sequence[str], first: str, second: str) -> str:
        """Which label fits the sentences better: `1`, `2` or `equal`.

        Raises:
            EvaluationError: when the judge gives no such answer.
        """
        quoted = "\n".join(f"- {' '.join(text.split())[:_SENTENCE_CHARS]}" for text in sentences)
        answer = self._complete(
            {
                "model": self.model,
                "messages": [
                    {"role": "system", "content": _INSTRUCTIONS},
                    {"role": "user", "content": f"Sentences:\n{quoted}\n\nLabel 1: {first}\nLabel 2: {second}"},
                ],
                "temperature": 0,
                "max_tokens": 64,
                "response_format": {"type": "json_schema", "json_schema": {"name": "verdict", "schema": _SCHEMA}},
            }
        )
        try:
            better = json.loads(answer["choices"][0]["message"]["content"])["better"]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise EvaluationError(f"the judge at {self._url} does not answer as asked: {_shortened(answer)}") from error
        if better not in ("1", "2", "equal"):
            raise EvaluationError(f"the judge at {self._url} does not answer as asked: better is {better!r:.80}")
        return better

    def _only_model(self) -> str:
        answer = self._call("/models")
        try:
            models = [str(model["id"]) for model in answer["data"]]
        except (KeyError, TypeError) as error:
            raise self._no_judge(_shortened(answer)) from error
        if len(models) == 1:
            return models[0]
        raise EvaluationError(
            f"the judge at {self._url} has {', '.join(models[:5]) or 'no model'}: choose one with --judge-model", USAGE
        )

    def _complete(self, body: dict[str, Any]) -> Any:
        try:
            return self._call("/chat/completions", body | self._thinking)
        except EvaluationError as refused:
            # Many hosted APIs refuse fields that they do not know.
            if not any(switch in str(refused) for switch in _THINKING_OFF):
                raise
        self._thinking = {}
        return self._call("/chat/completions", body)

    def _call(self, path: str, body: object = None) -> Any:
        for pause in _PAUSES:
            with suppress(_BusyError):
                return self._send(path, body)
            time.sleep(pause)
        return self._send(path, body)

    def _send(self, path: str, body: object) -> Any:
        data = None if body is None else json.dumps(body).encode()
        try:
            request = urllib.request.Request(  # noqa: S310 (http or https, as the option was checked)
                self._url + path, data=data, headers={"Content-Type": "application/json"}
            )
            if self._key:
                request.add_unredirected_header(
                    "Authorization", f"Bearer {self._key}"
                )  # never sent on to another host by a redirect
            with urllib.request.urlopen(request, timeout=_SECONDS) as answer:  # noqa: S310
                text: bytes = answer.read()
        except urllib.error.HTTPError as error:
            raise self._refusal(error) from error
        except (OSError, HTTPException, ValueError) as error:
            # A timeout is not retried: two minutes without an answer will not become an answer.
            kind = EvaluationError if "timed out" in str(error) else _BusyError
            raise kind(f"the judge at {self._url} does not answer: {error}", NOT_FOUND) from error
        try:
            return json.loads(text)
        except ValueError as error:
            raise self._no_judge(repr(text[:80])) from error

    def _refusal(self, error: urllib.error.HTTPError) -> EvaluationError:
        said = ""
        with suppress(OSError, HTTPException):
            said = " ".join(error.read().decode(errors="replace").split())[:400]
        sentence = f"the judge at {self._url} refuses: HTTP {error.code} {error.reason}{said and ': '}{said}"
        if error.code in _BUSY:
            return _BusyError(sentence)
        return EvaluationError(sentence, DENIED if error.code in (401, 403) else FAILED)

    def _no_judge(self, answer: str) -> EvaluationError:
        return EvaluationError(f"{self._url} is not an OpenAI-compatible server: it answers {answer}", NOT_FOUND)


def _shortened(answer: Any) -> str:
    return json.dumps(answer)[:200]


if __name__ == "__main__":
    sys.exit(main())
