"""Parts of state machine definitions that several of them share, in the Amazon States Language (JSONPath)."""

from typing import Any

Document = dict[str, Any]


def retry(*errors: str, attempts: int = 10) -> Document:
    """Try again when a service is busy, after random delays of up to 60 seconds."""
    return {
        "ErrorEquals": list(errors),
        "IntervalSeconds": 2,
        "BackoffRate": 2.0,
        "MaxDelaySeconds": 60,
        "MaxAttempts": attempts,
        "JitterStrategy": "FULL",
    }


SUBMIT_JOB_RETRY = retry(
    "Batch.AWSBatchException",
    "Batch.ServerException",
    "Batch.TooManyRequestsException",
    "Batch.SdkClientException",
)
"""SubmitJob is limited to 50 calls a second. A job that ran and failed is States.TaskFailed; Batch tries it again."""


def catch(path: str, goto: str) -> list[Document]:
    """Continue at `goto` after any error, which is stored at `path`."""
    # States.ALL does not match States.DataLimitExceeded, and must be alone in its list.
    return [
        {"ErrorEquals": [error], "ResultPath": path, "Next": goto}
        for error in ("States.DataLimitExceeded", "States.ALL")
    ]


def choose(path: str, value: bool, goto: str, *, otherwise: str) -> Document:
    """Choose by a boolean. A missing value, a text or a number goes the other way."""
    return {"Type": "Choice", "Choices": [{**is_boolean(path, value), "Next": goto}], "Default": otherwise}


def is_boolean(path: str, value: bool) -> Document:
    """A rule that matches exactly this boolean."""
    return {
        "And": [
            {"Variable": path, "IsPresent": True},
            {"Variable": path, "IsBoolean": True},
            {"Variable": path, "BooleanEquals": value},
        ]
    }


def is_present(path: str) -> Document:
    """A rule that matches any value at `path`, including null."""
    return {"Variable": path, "IsPresent": True}


def negate(rule: Document) -> Document:
    """The opposite of a rule."""
    return {"Not": rule}
