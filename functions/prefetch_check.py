"""The first step of a run: is the input sound, and is there a prefetch to work on?

An execution may be started by hand in the console, so the input is checked here, whatever the CLI checked before.
"""

# boto3-stubs overloads boto3.client with every service, and only the installed ones are known.
# pyright: reportUnknownMemberType=false

import re
from typing import Any, cast

import boto3
from botocore.exceptions import ClientError

from contract import ContractError
from contract.layout import check_run, prefetch_manifest_key
from contract.quarter import check_quarter
from contract.run import MAX_BATCH_SIZE, PrefetchCheck, QuarterInput

s3 = boto3.client("s3")

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")

# Step Functions' own key for an execution that another one started; its console links the two by it.
_STARTED_BY = "AWS_STEP_FUNCTIONS_STARTED_BY_EXECUTION_ID"
_MAX_ARN = 300


class InvalidInput(Exception):  # noqa: N818 - the name is what an operator reads as the error
    """The input is not even an object, so no answer can be put into it: the execution fails under this name."""


def handler(event: object, _context: object) -> PrefetchCheck:
    """Say whether the run may go on, with one HEAD request; if not, with the error and cause of the Fail state."""
    if not isinstance(event, dict):
        raise InvalidInput(f'the input is {event!r:.80}, not an object: write {{"quarter": "2023Q1", "bucket": "..."}}')
    try:
        run_input = check_input(cast(dict[str, Any], event))
    except ContractError as error:
        return {"exists": False, "error": "InvalidInput", "cause": str(error)}

    quarter, bucket = run_input["quarter"], run_input["bucket"]
    key = prefetch_manifest_key(quarter)
    try:
        s3.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        return {"exists": False, "error": "PrefetchRequired", "cause": _explain(error, quarter, f"s3://{bucket}/{key}")}
    return {"exists": True}


def check_input(event: dict[str, Any]) -> QuarterInput:
    """Return `event` if it is an input of the state machine.

    Raises:
        ContractError: with a sentence that names the first field that is wrong.
    """
    allowed = QuarterInput.__required_keys__ | QuarterInput.__optional_keys__
    for key in event:
        if key not in allowed and key != _STARTED_BY:
            raise ContractError(f"the input has an unknown field {key!r:.80}: it takes {', '.join(sorted(allowed))}")
    for key in sorted(QuarterInput.__required_keys__):
        if key not in event:
            raise ContractError(f"the input lacks {key!r}")

    if len(str(event.get(_STARTED_BY, ""))) > _MAX_ARN:
        raise ContractError(f"{_STARTED_BY} is longer than an ARN: the input must leave room for the run's own data")
    check_quarter(event["quarter"])
    bucket = event["bucket"]
    if not isinstance(bucket, str) or not _BUCKET.fullmatch(bucket):
        raise ContractError(f"{bucket!r:.80} is not the name of a bucket")
    if "batch_size" in event:
        _check_batch_size(event["batch_size"])
    if "resume" in event:
        check_run(event["resume"])
    return cast(QuarterInput, event)


def _check_batch_size(size: object) -> None:
    # In Python true is 1.
    if not isinstance(size, int) or isinstance(size, bool):
        raise ContractError(f"batch_size is {size!r:.80}: write a whole number, without quotes")
    if not 1 <= size <= MAX_BATCH_SIZE:
        raise ContractError(f"batch_size is {size}: it can be 1 to {MAX_BATCH_SIZE} firms")


def _explain(error: ClientError, quarter: str, url: str) -> str:
    # An answer to HEAD has no body: its code is the HTTP status.
    match error.response.get("Error", {}).get("Code"):
        case "404" | "NoSuchKey" | "NoSuchBucket":
            return f"{quarter} has no prefetch: {url} does not exist. Upload one with `ftm prefetch put {quarter} DIR`."
        case "403" | "AccessDenied":
            return f"{quarter} cannot be read: this stack's functions may not read {url}. Is it this stack's bucket?"
        case code:
            return f"{quarter} cannot be read: S3 answered {code} for {url}."
