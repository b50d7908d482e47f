"""The fake vLLM: an OpenAI-compatible server without a model, which names topics from their keywords.

It reads the line `Keywords: a, b, c` that the worker writes into each prompt, and fills the request's JSON schema with
a noun phrase and a sentence made of those keywords; its model id says so. Errors, limits, usage and the prompt's share
in the prefix cache are like vLLM's (0.32).
"""

import itertools
import json
import re
import time
from http import HTTPStatus
from typing import Any

from local.fake_vllm.alb import Request, Response, json_response

MODEL = "ftm-fake-vllm-names-from-keywords"
MAX_MODEL_LEN = 8192
"""Default limit of prompt and answer together, in tokens."""

_KEYWORDS = re.compile(r"^\s*Keywords:[ \t]*(\S.*)$", re.MULTILINE | re.IGNORECASE)
_TOKEN = re.compile(r"\w{1,6}|[^\w\s]")
_BLOCK = 16
"""Size of a block of vLLM's prefix cache, in tokens."""
_MAX_BLOCKS = 200_000
_TEMPLATE_TOKENS = 4
"""Tokens that the chat template adds to each message."""
_METRICS = "".join(
    f'# TYPE {name} gauge\n{name}{{engine="0",model_name="{MODEL}"}} 0.0\n'
    for name in ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc")
)
"""Requests are answered at once, so none is ever running or waiting."""


class FakeVllm:
    """One server, as a target of the local load balancer."""

    def __init__(self, max_model_len: int = MAX_MODEL_LEN) -> None:
        self.model = MODEL
        self._max_model_len = max_model_len
        self._blocks: set[int] = set()
        self._numbers = itertools.count(1)

    async def answer(self, request: Request) -> Response:
        """Answer one HTTP request."""
        match request.method, request.path:
            case "GET", "/health":
                return Response(HTTPStatus.OK, b"")
            case "GET", "/v1/models":
                return json_response(HTTPStatus.OK, {"object": "list", "data": [self._model_card()]})
            case "GET", "/metrics":
                return Response(HTTPStatus.OK, _METRICS.encode(), "text/plain; version=0.0.4")
            case "POST", "/v1/chat/completions":
                return self._complete(request.body)
            case _, "/health" | "/metrics" | "/v1/models" | "/v1/chat/completions":
                return json_response(HTTPStatus.METHOD_NOT_ALLOWED, {"detail": "Method Not Allowed"})
            case _:
                return json_response(HTTPStatus.NOT_FOUND, {"detail": "Not Found"})

    async def close(self) -> None:
        """Nothing to release."""

    def _model_card(self) -> dict[str, Any]:
        return {
            "id": self.model,
            "object": "model",
            "created": 0,
            "owned_by": "ftm",
            "root": self.model,
            "parent": None,
            "max_model_len": self._max_model_len,
        }

    def _complete(self, body: bytes) -> Response:
        try:
            asked = json.loads(body)
        except ValueError as error:
            return _error(HTTPStatus.BAD_REQUEST, f"the request is not JSON: {error}")
        if not isinstance(asked, dict) or not (messages := _messages(asked)):
            return _error(HTTPStatus.BAD_REQUEST, "messages must be a list of {role, content}", param="messages")
        if asked.get("model", self.model) != self.model:
            message = f"The model `{asked['model']}` does not exist."
            return _error(HTTPStatus.NOT_FOUND, message, kind="NotFoundError", param="model")
        if asked.get("stream"):
            return _error(HTTPStatus.BAD_REQUEST, "the fake vLLM does not stream", param="stream")

        tokens = _TOKEN.findall("\n".join(messages))
        prompt = len(tokens) + _TEMPLATE_TOKENS * len(messages)
        if prompt >= self._max_model_len:
            message = (
                f"This model's maximum context length is {self._max_model_len} tokens. However, your request has "
                f"{prompt} input tokens. Please reduce the length of the input messages."
            )
            return _error(HTTPStatus.BAD_REQUEST, message, param="input_tokens")
        return self._answer(asked, messages, prompt, self._cached(tokens))

    def _answer(self, asked: dict[str, Any], messages: list[str], prompt: int, cached: int) -> Response:
        content = _write(asked.get("response_format") or {}, _keywords(messages))
        pieces = [match.end() for match in _TOKEN.finditer(content)]
        limit = asked.get("max_completion_tokens") or asked.get("max_tokens") or self._max_model_len
        allowed = min(limit, self._max_model_len - prompt)  # vLLM clamps silently
        cut = len(pieces) > allowed
        if cut:
            content = content[: pieces[allowed - 1]]
        completion = min(len(pieces), allowed)
        message = {"role": "assistant", "content": content, "reasoning": None, "refusal": None, "tool_calls": []}
        return json_response(
            HTTPStatus.OK,
            {
                "id": f"chatcmpl-{next(self._numbers):08x}",
                "object": "chat.completion",
                "created": int(time.time()),
                "model": self.model,
                "choices": [
                    {
                        "index": 0,
                        "message": message,
                        "logprobs": None,
                        "finish_reason": "length" if cut else "stop",
                    }
                ],
                "usage": {
                    "prompt_tokens": prompt,
                    "completion_tokens": completion,
                    "total_tokens": prompt + completion,
                    "prompt_tokens_details": {"cached_tokens": cached},
                },
            },
        )

    def _cached(self, tokens: list[str]) -> int:
        """The number of leading tokens, in whole blocks, that are in the cache; adds this prompt to it."""
        if len(self._blocks) > _MAX_BLOCKS:
            self._blocks.clear()
        cached, block, hit = 0, 0, True
        for end in range(_BLOCK, len(tokens) + 1, _BLOCK):
            block = hash((block, *tokens[end - _BLOCK : end]))
            hit = hit and block in self._blocks
            if hit:
                cached = end
            self._blocks.add(block)
        return cached


def _messages(asked: dict[str, Any]) -> list[str]:
    """The text of each message; content may be a string or a list of text parts."""
    texts: list[str] = []
    for message in asked.get("messages") or []:
        match message:
            case {"content": str(text)}:
                texts.append(text)
            case {"content": [*parts]}:
                texts.append("\n".join(part.get("text", "") for part in parts if isinstance(part, dict)))
            case _:
                return []
    return texts


def _keywords(messages: list[str]) -> list[str]:
    """The keywords of the prompt's last `Keywords:` line; earlier ones may be examples."""
    lines = _KEYWORDS.findall("\n".join(messages))
    return [word.strip() for word in lines[-1].split(",") if word.strip()] if lines else []


def _write(response_format: dict[str, Any], keywords: list[str]) -> str:
    name, summary = _name(keywords), _summary(keywords)
    match response_format:
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
            return json.dumps(_fill(schema, "", name, summary), ensure_ascii=False)
        case {"type": "json_object"}:
            return json.dumps({"name": name, "summary": summary}, ensure_ascii=False)
        case _:
            return f"{name}: {summary}"


def _name(keywords: list[str]) -> str:
    """A noun phrase of the first two keywords that have no word in common; the strongest come first."""
    chosen: list[str] = []
    for keyword in keywords:
        if not any(set(keyword.lower().split()) & set(other.lower().split()) for other in chosen):
            chosen.append(keyword)
    return _sentence_case(" and ".join(chosen[:2])) or "Topic without keywords"


def _summary(keywords: list[str]) -> str:
    if not keywords:
        return "The prompt had no keywords to name this topic from."
    *others, last = keywords[:4]
    return f"The call discusses {', '.join(others)} and {last}." if others else f"The call discusses {last}."


def _sentence_case(text: str) -> str:
    return text[:1].upper() + text[1:]


def _fill(schema: dict[str, Any], field: str, name: str, summary: str) -> Any:
    """The smallest value that `schema` allows; its texts are the name or the summary."""
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    kind = schema.get("type", "string")
    match kind[0] if isinstance(kind, list) else kind:
        case "object":
            properties: dict[str, Any] = schema.get("properties") or {}
            return {key: _fill(inner, key, name, summary) for key, inner in properties.items()}
        case "array":
            return [_fill(schema.get("items") or {}, field, name, summary)] * max(schema.get("minItems", 0), 0)
        case "integer" | "number":
            return schema.get("minimum", 0)
        case "boolean":
            return True
        case "null":
            return None
        case _:
            text = summary if any(word in field.lower() for word in ("summary", "description")) else name
            return _shorten(text, schema.get("maxLength", len(text))).ljust(schema.get("minLength", 0), ".")


def _shorten(text: str, limit: int) -> str:
    """Cut `text` to at most `limit` characters, between words if possible."""
    return text if len(text) <= limit else text[: limit + 1].rpartition(" ")[0] or text[:limit]


def _error(status: HTTPStatus, message: str, kind: str = "BadRequestError", param: str | None = None) -> Response:
    """An error in vLLM's format."""
    error = {"message": message, "type": kind, "param": param, "code": status.value}
    return json_response(status, {"error": error})
