"""How much of the OpenAI API a server supports: the fields of a request, and which to leave out if the server rejects
it.

Servers reject unknown fields with 400, 422 or 500 and a text of their own.
"""

import re
from dataclasses import dataclass, replace
from typing import Any

_FORMATS = ("json_schema", "json_object with schema", "json_object", "plain")
_LENGTH_FIELDS = ("max_tokens", "max_completion_tokens", "none")

_UNKNOWN_FIELD = re.compile(
    r"unsupported|not supported|does ?n[o']t support|unrecogni[sz]ed|unknown|unexpected|extra (?:inputs|fields)"
    r"|not (?:permitted|allowed|available|accepted|valid)|deprecated|forbidden|invalid (?:parameter|argument|field)"
    r"|additional propert|use '?max_",
)
_FORMAT_WORDS = re.compile(
    r"response_?format|json[_ -]?schema|json[_ -]?object|\bschema\b|grammar|structured[_ -]?outputs?|guided"
    r"|additionalproperties|json mode"
)
_SYSTEM_WORDS = re.compile(r"system (?:role|message|prompt|instruction)|developer instruction|roles must alternate")
_EXTRA_WORDS = re.compile(r"chat_template_kwargs|enable_thinking|template[_ ]kwargs|maxlength|max_length")
"""A server that rejects one of vLLM's extensions usually rejects both, and names one."""


@dataclass(frozen=True)
class Dialect:
    """The fields of a request to this server besides the model and the messages."""

    response_format: str = _FORMATS[0]
    length_field: str = _LENGTH_FIELDS[0]
    """The field that limits the tokens of the answer."""
    temperature: bool = True
    thinking_switch: bool = True
    """Qwen3 thinks by default, which costs several times more, and the schema does not constrain a thinking answer."""
    length_bounds: bool = True
    """Whether the schema limits the length of its strings."""
    system_message: bool = True
    """If false, the instructions begin the user's message: Gemma's chat template has no system role."""

    def request(self, messages: list[dict[str, Any]], max_tokens: int, response_format: Any) -> dict[str, Any]:
        """The fields of a chat completion.

        Args:
            messages: as in OpenAI's API.
            max_tokens: upper bound for the answer.
            response_format: of type json_schema, in OpenAI's form; None for a plain answer.
        """
        request: dict[str, Any] = {"messages": messages if self.system_message else _without_system(messages)}
        if self.length_field != "none":
            request[self.length_field] = max_tokens
        if self.temperature:
            request["temperature"] = 0
        if self.thinking_switch:
            request["chat_template_kwargs"] = {"enable_thinking": False}
        if response_format and (wanted := self._response_format(response_format)):
            request["response_format"] = wanted
        return request

    def _response_format(self, response_format: dict[str, Any]) -> dict[str, Any] | None:
        bounded = response_format if self.length_bounds else _without_lengths(response_format)
        match self.response_format:
            case "json_schema":
                return bounded
            case "json_object with schema":
                return {"type": "json_object", "schema": bounded["json_schema"]["schema"]}
            case "json_object":
                return {"type": "json_object"}
            case _:
                return None

    def without_what_is_named(self, words: str) -> "Dialect | None":
        """The dialect without the fields that the server names in its error; None if it names none of them.

        Args:
            words: the whole body of the answer.
        """
        words = words.lower()
        if (self.thinking_switch or self.length_bounds) and _EXTRA_WORDS.search(words):
            return replace(self, thinking_switch=False, length_bounds=False)
        if self.length_field == "max_tokens" and "max_completion_tokens" in words:
            return replace(self, length_field="max_completion_tokens")
        if self.system_message and _SYSTEM_WORDS.search(words):
            return replace(self, system_message=False)
        if self.length_field != "none" and self.length_field in words and _UNKNOWN_FIELD.search(words):
            return replace(self, length_field=_after(_LENGTH_FIELDS, self.length_field))
        if self.temperature and "temperature" in words:
            return replace(self, temperature=False)
        if self.response_format != "plain" and _FORMAT_WORDS.search(words):
            return replace(self, response_format=_after(_FORMATS, self.response_format))
        return None

    def smaller(self) -> "Dialect | None":
        """The next dialect to try if a server rejects a request without naming a field; None if all were tried."""
        if self.thinking_switch or self.length_bounds:
            return replace(self, thinking_switch=False, length_bounds=False)
        if self.response_format != "plain":
            return replace(self, response_format=_after(_FORMATS, self.response_format))
        if self.temperature or self.length_field == "max_tokens":
            return replace(self, temperature=False, length_field="max_completion_tokens")
        if self.length_field != "none":
            return replace(self, length_field="none")
        return None

    def __str__(self) -> str:
        left_out = [
            *([] if self.thinking_switch else ["chat_template_kwargs"]),
            *([] if self.length_bounds else ["maxLength"]),
            *([] if self.temperature else ["temperature"]),
            *([] if self.system_message else ["system message"]),
        ]
        without = f", without {', '.join(left_out)}" if left_out else ""
        limit = "" if self.length_field == "max_tokens" else f", answer length by {self.length_field}"
        return f"response format {self.response_format}{limit}{without}"


OPENAI_ONLY = Dialect(thinking_switch=False, length_bounds=False)
"""The dialect for servers that are known to reject vLLM's extensions of the OpenAI API."""


def _after(steps: tuple[str, ...], step: str) -> str:
    return steps[steps.index(step) + 1]


def _without_system(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages with the text of the system message at the beginning of the one after it."""
    match messages:
        case [{"role": "system", "content": instructions}, first, *others]:
            return [{**first, "content": f"{instructions}\n\n{first['content']}"}, *others]
        case _:
            return messages


def _without_lengths(part: Any) -> Any:
    """A request, or part of one, without limits for strings in the schema."""
    if not isinstance(part, dict):
        return part
    return {name: _without_lengths(value) for name, value in part.items() if name != "maxLength"}
