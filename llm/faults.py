"""Classifies the errors of a server: their cause, whether they are temporary, and how long to wait.

The status alone is not enough: LiteLLM answers 400 for an invalid key and for an unknown model, llama-cpp-python 500
for a response format, OpenAI 429 for an account without credit, and gateways 200 with an error inside.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum, auto
from typing import Any

MAX_WORDS = 200
"""The maximum number of characters of the server's text in a message."""


class Fault(Enum):
    """The cause of a missing completion."""

    KEY = auto()
    QUOTA = auto()
    """The account has no credit left."""
    MODEL = auto()
    """The server does not have the model, or the path."""
    MOVED = auto()
    """A redirect, which would turn a POST into a GET."""
    NOT_AN_API = auto()
    """A success that is not JSON."""
    CONTEXT = auto()
    """The prompt, or prompt and answer, exceed the model's context."""
    FILTER = auto()
    REFUSED = auto()
    """The request is rejected for another reason, and would be rejected again."""
    RATE = auto()
    BUSY = auto()
    """The server is running and asks to repeat the request later."""
    FAILING = auto()
    """The server fails, or is absent."""


@dataclass(frozen=True)
class Refusal:
    """A response that is not a completion."""

    fault: Fault
    status: int
    words: str
    """The status and the server's text, on one line."""
    body: str
    retry_after: float | None = None
    """Seconds that the server asks to wait."""
    is_text: bool = False
    """Whether the body is plain text, which neither an API nor a load balancer sends as an error."""
    is_time_out: bool = False
    """Whether the request timed out."""

    def __str__(self) -> str:
        return self.words


_KEY = re.compile(
    r"no_db_connection|no connected db|invalid[_ ]api[_ ]key|incorrect api key|api[_ ]key (?:not valid|is missing)"
    r"|missing api key|no api key|api key not|authentication[_ ]?error|authentication failed|unauthorized"
    r"|invalid (?:auth|bearer|token)|(?:virtual|proxy|master)[_ ]key (?:not|expected|is)"
)
_QUOTA = re.compile(
    r"insufficient[_ ]quota|insufficient[_ ](?:balance|credit|funds)|billing_(?:hard_limit|not_active)"
    r"|credit balance is too low|payment required|out of credits|exceeded_budget|budget has been exceeded"
)
_CONTEXT = re.compile(
    r"context[_ -]?(?:length|size|window|limit)|exceed_context|input_tokens|n_ctx|prompt is too long|input is too long"
    r"|too many (?:input )?tokens|maximum (?:prompt|input|sequence) length|max_model_len|string_above_max_length"
    r"|reduce the length|requested tokens .* exceed|request too large|too long"
)
_FILTER = re.compile(
    r"content[_ ](?:filter|management|policy)|responsible ?ai|moderation|safety (?:system|filter|setting|reason)"
    r"|blocked by (?:safety|policy)|prohibited[_ ]content"
)
_MODEL = re.compile(
    r"model_?not_?found|no such model|unknown model|invalid model|not a (?:valid )?(?:chat|generative) model"
    r"|model\b.{0,120}\b(?:does not exist|not found|is not available|isn't available|is not supported)"
    r"|not (?:support|allow)\w* (?:chat|generat)|no healthy deployments? for this model"
)
_RATE = re.compile(r"rate[_ ]?limit|too many requests|throttl|resource_?exhausted|tokens per min|requests per min")
_BEHIND = "llm_provider-"
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")


def read_refusal(status: int, headers: Mapping[str, str], body: str, key: str, now: datetime | None = None) -> Refusal:
    """Classify a response that is not a completion.

    Args:
        status: HTTP status, also of a success that contains an error or is not JSON.
        headers: with lower-case names, or case-insensitive.
        body: as text.
        key: the API key, which is removed from the server's text.
        now: the current time, for dates in headers.
    """
    body = body.replace(key, "***") if key else body
    document = _json(body)
    inner = _inner_status(document)
    effective = inner if status < 300 and inner else status
    if 300 <= status < 400:
        words = f"HTTP {status}, it sends its callers to {headers.get('location', 'nowhere')[:MAX_WORDS]}"
    else:
        said = " ".join(_message(document, body).split())[:MAX_WORDS]
        words = f"HTTP {status}: {said}" if said else f"HTTP {status}"
    fault, retry_after = _fault(effective, document, body.lower()), seconds_to_wait(headers, now)
    if retry_after and fault in (Fault.BUSY, Fault.FAILING):
        fault = Fault.RATE  # a server that sends a retry delay has not failed
    return Refusal(
        fault=fault,
        status=effective,
        words=words,
        body=body,
        retry_after=retry_after,
        is_text=document is None and bool(body.strip()) and not body.lstrip().startswith("<"),
    )


def seconds_to_wait(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """The delay that the headers request: `Retry-After`, or the reset of an exhausted rate limit.

    LiteLLM passes on the headers of the server behind it with the prefix `llm_provider-`.
    """
    lower = {name.lower(): value for name, value in headers.items()}
    behind = {name.removeprefix(_BEHIND): value for name, value in lower.items() if name.startswith(_BEHIND)}
    headers = behind | lower
    if milliseconds := _number(headers.get("retry-after-ms", "")):
        return milliseconds / 1000
    if after := headers.get("retry-after", "").strip():
        waiting = _number(after)
        return max(0.0, waiting) if waiting is not None else _seconds_until(after, now)
    resets = [
        seconds
        for prefix in ("x-ratelimit-", "ratelimit-", "x-rate-limit-")
        for what in ("-requests", "-tokens", "")
        if (left := _number(headers.get(f"{prefix}remaining{what}", ""))) is not None
        and left <= 0
        and (seconds := _reset(headers.get(f"{prefix}reset{what}", ""), now)) is not None
    ]
    return max(resets, default=None)


def _fault(status: int, document: Any, body: str) -> Fault:
    """The fault by the server's text, which is more precise than its status; otherwise by the status."""
    if 300 <= status < 400:
        return Fault.MOVED
    if status == 402 or _QUOTA.search(body):
        return Fault.QUOTA
    if status in (401, 403) or (status in (400, 500) and _KEY.search(body)):
        return Fault.FILTER if status == 403 and _FILTER.search(body) else Fault.KEY
    if status == 429:
        return Fault.RATE
    if status in (400, 413, 422, 500):
        for words, fault in ((_CONTEXT, Fault.CONTEXT), (_FILTER, Fault.FILTER)):
            if words.search(body) and (status != 500 or fault is Fault.CONTEXT):
                return fault
    if status == 404 or (status in (400, 422) and _MODEL.search(body)):
        return Fault.MODEL
    if status in (408, 409, 425, 529) or (status in (400, 503) and _RATE.search(body)):
        return Fault.RATE if _RATE.search(body) else Fault.BUSY
    if status in (501, 505):
        return Fault.REFUSED
    if status >= 500:
        return Fault.FAILING
    if status >= 400:
        return Fault.REFUSED
    return Fault.NOT_AN_API if document is None else Fault.FAILING


def _inner_status(document: Any) -> int:
    """The status named by an error inside a successful response; 0 if it names none."""
    error = document.get("error") if isinstance(document, dict) else None
    records = [record for record in (error, document) if isinstance(record, dict)]
    for record in records:
        for name in ("code", "status", "status_code", "statusCode"):
            number = _number(record.get(name))
            if number and 400 <= number < 600:
                return int(number)
    return 0


def _message(document: Any, body: str) -> str:
    """The server's text in an error: from the usual formats, otherwise the whole body without HTML tags."""
    match document:
        case {"error": {"message": str(message)}} | {"error": str(message)} | {"message": str(message)}:
            return message
        case (
            {"detail": str(message)} | {"error": {"detail": str(message)}} | {"errors": [{"message": str(message)}, *_]}
        ):
            return message
        case [{"error": {"message": str(message)}}, *_]:  # Gemini
            return message
        case _:
            return re.sub(r"<style.*?</style>|<[^>]*>", " ", body, flags=re.DOTALL) if "<" in body else body


def _json(body: str) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _reset(text: str, now: datetime | None) -> float | None:
    """Seconds until a reset given as a duration (`6m0s`), as seconds, as a Unix time, or as a date."""
    text = text.strip()
    number = _number(text)
    if number is not None:
        at = (now or datetime.now(UTC)).timestamp()
        since_epoch = number / 1000 if number > 1e11 else number
        return max(0.0, since_epoch - at) if since_epoch > 1e9 else max(0.0, number)
    if text and (found := _DURATION.fullmatch(text)):
        days, hours, minutes, seconds, milliseconds = (float(part or 0) for part in found.groups())
        return 86400 * days + 3600 * hours + 60 * minutes + seconds + milliseconds / 1000
    return _seconds_until(text, now)


def _seconds_until(text: str, now: datetime | None) -> float | None:
    for parse in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            moment = parse(text)
        except (TypeError, ValueError):
            continue
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return max(0.0, (moment - (now or datetime.now(UTC))).total_seconds())
    return None
