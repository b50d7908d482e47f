"""The first step of a run: checks the input and that the quarter has a prefetch.

An execution may be started by hand in the console, so the input is checked here although the CLI has checked it.
"""

import re
from typing import Any, cast

from botocore.exceptions import ClientError

from contract import ContractError
from contract.layout import check_run, prefetch_manifest_key
from contract.quarter import check_quarter
from contract.run import MAX_BATCH_SIZE, MAX_LLM_CONCURRENCY, PrefetchCheck, QuarterInput
from functions.storage import open_bucket

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")

# The key under which Step Functions' console finds the execution that started this one.
_STARTED_BY = "AWS_STEP_FUNCTIONS_STARTED_BY_EXECUTION_ID"
_MAX_ARN = 300


class InvalidInput(Exception):  # noqa: N818 - the name is what an operator reads as the error
    """The input is not an object, so that the result cannot be added to it: the execution fails with this error."""


def handler(event: object, _context: object) -> PrefetchCheck:
    """Decide with one HEAD request whether the run may start; if not, return the error and cause of the Fail state.

    Raises:
        S3UnavailableError: when S3 fails; the state machine tries again.
    """
    if not isinstance(event, dict):
        raise InvalidInput(f'the input is {event!r:.80}, not an object: write {{"quarter": "2023Q1", "bucket": "..."}}')
    try:
        run_input = check_input(cast(dict[str, Any], event))
    except ContractError as error:
        return {"exists": False, "error": "InvalidInput", "cause": str(error)}

    quarter, bucket = run_input["quarter"], open_bucket(run_input["bucket"])
    key = prefetch_manifest_key(quarter)
    try:
        found = bucket.describe(key)
    except ClientError as error:
        return {"exists": False, "error": "PrefetchRequired", "cause": _explain(error, quarter, bucket.url(key))}
    if not found:
        cause = (
            f"{quarter} has no prefetch: {bucket.url(key)} does not exist. "
            f"Upload one with `ftm prefetch put {quarter} DIR`."
        )
        return {"exists": False, "error": "PrefetchRequired", "cause": cause}
    return {"exists": True}


def check_input(event: dict[str, Any]) -> QuarterInput:
    """Return `event` if it is a valid input of the state machine.

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
        _check_number("batch_size", event["batch_size"], MAX_BATCH_SIZE, " firms")
    if "llm_concurrency" in event:
        _check_number("llm_concurrency", event["llm_concurrency"], MAX_LLM_CONCURRENCY, "")
    if "resume" in event:
        check_run(event["resume"])
    return cast(QuarterInput, event)


def _check_number(field: str, number: object, most: int, unit: str) -> None:
    # bool is a subclass of int.
    if not isinstance(number, int) or isinstance(number, bool):
        raise ContractError(f"{field} is {number!r:.80}: write a whole number, without quotes")
    if not 1 <= number <= most:
        raise ContractError(f"{field} is {number}: it can be 1 to {most}{unit}")


def _explain(error: ClientError, quarter: str, url: str) -> str:
    # An answer to HEAD has no body: its code is the HTTP status.
    match error.response.get("Error", {}).get("Code"):
        case "403" | "AccessDenied":
            return f"{quarter} cannot be read: this stack's functions may not read {url}. Is it this stack's bucket?"
        case code:
            return f"{quarter} cannot be read: S3 answered {code} for {url}."
