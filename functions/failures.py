"""Describes failures of the state machine's states."""

import json

from contract import ContractError
from contract.bucket import S3UnavailableError

MAX_TEXT = 500
"""Characters that are kept of a text from another service: a state has at most 256 KiB."""


def describe_failure(error: str, cause: str) -> str:
    """The error of a state as a sentence. The cause of a function's failure is JSON around what it raised."""
    try:
        text = json.loads(cause)["errorMessage"]
    except (ValueError, TypeError, KeyError):
        text = cause
    if error in (ContractError.__name__, S3UnavailableError.__name__):
        return str(text)[:MAX_TEXT]
    return f"{error}: {text}"[:MAX_TEXT]
