"""Reads the answer of an LLM from any common format: pure functions from JSON to text and objects.

Servers put the text in different places (a string, a list of parts, a tool call, the field for reasoning), and models
put different text around the JSON object (thinking, code fences, a sentence, another object, a list).
"""

import ast
import html
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from contract.fallbacks import FallbackKind


@dataclass(frozen=True)
class Unreadable:
    """An answer that cannot be used."""

    kind: FallbackKind
    reason: str
    """A phrase without a full stop that completes "The answer cannot be used: "."""


@dataclass(frozen=True)
class Usage:
    """The server's count of tokens; 0 if it gives none."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0


_THINKING_ENDS = re.compile(
    r"</\s*(?:[\w.-]+:)?(?:think|thinking|thought|thoughts|reasoning|reflection|analysis|scratchpad)\s*>"
    r"|\[/THINK\]|◁/think▷|<\|(?:end_of_thought|eot_thought|/think)\|>|<\|end_of_thinking\|>"
    r"|<\|channel\|>\s*final\b[^{\[]*?<\|message\|>",
    re.IGNORECASE,
)
_THINKING_BEGINS = re.compile(
    r"\s*(?:<\s*(?:[\w.-]+:)?(?:think|thinking|thought|thoughts|reasoning|reflection|analysis|scratchpad)\s*>"
    r"|\[THINK\]|◁think▷|<\|(?:begin_of_thought|begin_of_thinking|think)\|>|<\|channel\|>\s*analysis)",
    re.IGNORECASE,
)
_NOT_JSON = re.compile(r"\{[^{}]*\}")
"""An object without inner ones that may be written as Python writes it."""
_CONSTANT = re.compile(r"(?<=:)\s*(true|false|null)(?=\s*[,}])")
_INVALID_ESCAPE = re.compile(r"\\(?![\"'\\/bfnrtu])")
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_MAX_DEPTH = 6
_MAX_STARTS = 200
"""The maximum number of opening brackets that are tried as the beginning of JSON."""
_DECODER = json.JSONDecoder(strict=False)


def text_of(response: Any) -> str | Unreadable:
    """The text of the first choice of a chat completion.

    Args:
        response: the body of the server's answer, parsed from JSON.
    """
    choice = _first_choice(response)
    if choice is None:
        return Unreadable(FallbackKind.UNREADABLE, "the server's answer has no choices")
    message = _object(choice.get("message")) or _object(choice.get("delta"))
    candidates = [
        _text(message.get("content")),
        *(_text(_object(_object(call).get("function")).get("arguments")) for call in _list(message.get("tool_calls"))),
        _text(_object(message.get("function_call")).get("arguments")),
        _text(message.get("parsed")),
        _text(choice.get("text")),
        _text(message.get("reasoning")),
        _text(message.get("reasoning_content")),
        _text(message.get("thinking")),
    ]
    if text := next((text for text in candidates if text.strip()), ""):
        return text
    if refusal := _text(message.get("refusal")).strip():
        return Unreadable(FallbackKind.CONTENT_FILTER, f"the model refuses: {' '.join(refusal.split())[:150]}")
    if is_cut_off(response):
        return Unreadable(FallbackKind.CUT_OFF, "the answer was cut off before it began")
    if _text(choice.get("finish_reason")) == "content_filter":
        return Unreadable(FallbackKind.CONTENT_FILTER, "the server's content filter removed the answer")
    return Unreadable(FallbackKind.UNREADABLE, "the answer is empty")


def is_cut_off(response: Any) -> bool:
    """Whether the answer ended because it reached its maximum of tokens."""
    choice = _first_choice(response) or {}
    reasons = (choice.get("finish_reason"), choice.get("native_finish_reason"))
    return any(str(reason).lower() in ("length", "max_tokens", "max_output_tokens") for reason in reasons)


def usage_of(response: Any) -> Usage:
    """The token counts of an answer, which some servers send as text."""
    usage = _object(_object(response).get("usage"))
    details = _object(usage.get("prompt_tokens_details")) or _object(usage.get("input_tokens_details"))
    return Usage(
        prompt_tokens=_count(usage.get("prompt_tokens", usage.get("input_tokens"))),
        cached_tokens=_count(details.get("cached_tokens")),
        completion_tokens=_count(usage.get("completion_tokens", usage.get("output_tokens"))),
    )


def read_object(text: str, keys: Sequence[str], optional: Sequence[str] = ()) -> dict[str, Any] | Unreadable:
    """The first JSON object in the text that has a string at each of `keys`.

    The object may be after thinking, in a code fence, between sentences, inside another object or a list, or inside
    a JSON string; its keys may be in another case. HTML entities are decoded. Raw control characters, single quotes,
    trailing commas and Python's constants are accepted.

    Returns:
        The `keys`, as given, with their strings, and those of `optional` that the object has, with any values; or why
        there is no such object.
    """
    answer = _after_thinking(text)
    if not answer.strip() and _THINKING_BEGINS.match(text):
        # The whole answer is in the model's thinking; use it only if it is just the object.
        answer = _THINKING_ENDS.sub("", _THINKING_BEGINS.sub("", text, count=1)).strip()
        if not answer.startswith(("{", "[", "```")):
            return Unreadable(FallbackKind.UNREADABLE, "it contains thinking and no answer after it")
    for readable in dict.fromkeys((answer, _without_entities(answer))):
        for value in _json_values(readable):
            if found := _find(value, keys, _MAX_DEPTH):
                values = _values(found, keys) | _values(found, optional)
                return {key: _without_entities(one) if isinstance(one, str) else one for key, one in values.items()}
    return Unreadable(FallbackKind.UNREADABLE, _why_unread(answer, keys))


def _first_choice(response: Any) -> dict[str, Any] | None:
    choices = _list(_object(response).get("choices"))
    return next((choice for choice in choices if isinstance(choice, dict)), None)


def _text(content: Any) -> str:
    """The text of a message's content: a string, a part, a list of parts, or the object itself."""
    match content:
        case str():
            return content
        case [*parts]:
            return "".join(_text(part) for part in parts)
        case {"type": "thinking" | "reasoning" | "redacted_thinking"}:
            return ""
        case {"text": text} | {"content": text} | {"output_text": text}:
            return _text(text)
        case dict() if content:
            return json.dumps(content, ensure_ascii=False)
        case _:
            return ""


def _after_thinking(text: str) -> str:
    """The text after the end of the last thinking; empty if the thinking does not end."""
    ends = [found.end() for found in _THINKING_ENDS.finditer(text)]
    if ends:
        return text[ends[-1] :]
    return "" if _THINKING_BEGINS.match(text) else text


def _json_values(text: str) -> Iterator[Any]:
    """The JSON values in the text, from left to right, without those inside another one."""
    whole = text.strip()
    if whole.startswith('"'):
        yield from _decoded(whole, 0)
    position, tried = 0, 0
    while (found := re.compile(r"[{\[]").search(text, position)) and tried < _MAX_STARTS:
        tried += 1
        try:
            value, position = _DECODER.raw_decode(text, found.start())
        except (ValueError, RecursionError):
            position = found.start() + 1
            if (value := _python_object(text, found.start())) is None:
                continue
        yield value


def _python_object(text: str, position: int) -> dict[Any, Any] | None:
    """An object with single quotes, a trailing comma, `True` or escapes that JSON lacks; None for anything else."""
    found = _NOT_JSON.match(text, position)
    if not found:
        return None
    python = {"true": "True", "false": "False", "null": "None"}
    literal = _CONSTANT.sub(lambda constant: python[constant[1]], _INVALID_ESCAPE.sub("", found[0]))
    try:
        value = ast.literal_eval(literal)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _decoded(text: str, position: int) -> Iterator[Any]:
    try:
        yield _DECODER.raw_decode(text, position)[0]
    except (ValueError, RecursionError):
        return


def _find(value: Any, keys: Sequence[str], depth: int) -> dict[str, Any] | None:
    """The first object with all of `keys`, in the value, what it contains, or the JSON in its strings."""
    if depth == 0:
        return None
    inner: Iterable[Any] = ()
    match value:
        case dict():
            found = _values(value, keys)
            if len(found) == len(keys) and all(isinstance(one, str) for one in found.values()):
                return value
            inner = value.values()
        case list():
            inner = value
        case str() if "{" in value:
            inner = _json_values(value)
        case _:
            pass
    return next((found for one in inner if (found := _find(one, keys, depth - 1))), None)


def _values(record: dict[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """The values at those of `keys` that the record has, exactly or in another case."""
    folded = {_folded(str(key)): value for key, value in reversed(record.items())}
    known = {key: record.get(key, folded.get(_folded(key))) for key in keys}
    return {key: value for key, value in known.items() if value is not None}


def _folded(key: str) -> str:
    return re.sub(r"[\W_]+", "", key).lower()


def _without_entities(text: str) -> str:
    """The text with HTML entities decoded; twice where they were encoded twice."""
    for _ in range(2):
        text = _ENTITY.sub(lambda found: html.unescape(found[0]), text)
    return text


def _why_unread(answer: str, keys: Sequence[str]) -> str:
    wanted = " and ".join(f'"{key}"' for key in keys)
    if not answer.strip():
        return "it is not a JSON object: it is empty"
    if any(isinstance(value, dict | list) for value in _json_values(answer)):
        return f"it is not a JSON object with the strings {wanted}" if len(keys) > 1 else f"it has no string {wanted}"
    if "{" in answer:
        return "it is not a JSON object: the object is broken or not closed"
    return "it is not a JSON object"


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _count(value: Any) -> int:
    """A whole number of tokens, which may be text; 0 for anything else."""
    try:
        return max(0, int(float(value)))
    except (TypeError, ValueError, OverflowError):
        return 0
