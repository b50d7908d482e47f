"""Starting executions, each quarter's once: what runs is looked for, and two who start at once are told apart."""

import json
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from cli.errors import ConflictError, aws_code
from cli.services import executions
from cli.services.executions import Execution
from cli.stack import Stack
from contract import layout
from contract.run import QuarterInput

_STARTING = timedelta(minutes=1)
"""How long a claim counts whose execution is not to be seen: it is being started, or its starter was killed."""


def refuse_second(stack: Stack, quarter: str) -> None:
    """See that `quarter` is not being run, and is not waiting for its turn in a list of quarters.

    Raises:
        ConflictError: naming the execution that runs.
    """
    if execution := executions.running(stack, quarter):
        raise _already_running(stack, quarter, execution.name)
    for quarters in executions.running_quarters(stack):
        if quarter not in (item["quarter"] for item in quarters.input.get("quarters", [])):
            continue
        child = executions.find_child(stack, quarters, quarter)
        if child is None or child.status == "RUNNING":
            raise _already_running(stack, quarter, quarters.name)


def start(stack: Stack, request: QuarterInput, *, force: bool = False) -> Execution:
    """Start an execution, the only one of its quarter unless forced.

    Raises:
        ConflictError: when the quarter is being run, or another operator starts it at this very moment.
    """
    name = execution_name(request["quarter"])
    if force:
        return _start(stack, stack.output("state_machine_arn"), name, request)
    refuse_second(stack, request["quarter"])
    _claim(stack, request["quarter"], name)
    return _start(stack, stack.output("state_machine_arn"), name, request, claims=[request["quarter"]])


def start_quarters(stack: Stack, requests: Sequence[QuarterInput], at_once: int) -> Execution:
    """Start one execution that runs several quarters, each of them not being run yet.

    Raises:
        ConflictError: when one of them is.
    """
    name = execution_name("quarters")
    quarters = [request["quarter"] for request in requests]
    for quarter in quarters:
        refuse_second(stack, quarter)
    for quarter in quarters:
        _claim(stack, quarter, f"{name}-{quarter}")  # as the state machine will name its execution
    request = {"quarters": requests, "at_once": at_once}
    return _start(stack, stack.output("quarters_state_machine_arn"), name, request, claims=quarters)


def execution_name(what: str) -> str:
    """A name that a person can read and that sorts by time: `20230405_101500-2023Q1-3f9a`."""
    return f"{layout.run_id(datetime.now(UTC))}-{what}-{secrets.token_hex(2)}"


def _start(stack: Stack, machine: str, name: str, request: object, claims: Sequence[str] = ()) -> Execution:
    try:
        answer = stack.stepfunctions.start_execution(stateMachineArn=machine, name=name, input=json.dumps(request))
    except BaseException:
        for quarter in claims:
            stack.s3.delete_object(Bucket=stack.output("bucket"), Key=layout.claim_key(quarter))
        raise
    return executions.describe(stack, answer["executionArn"])


def _claim(stack: Stack, quarter: str, name: str) -> None:
    """Take the quarter for the execution `name`: of two operators at the same moment S3 lets one.

    Raises:
        ConflictError: when another execution holds the quarter.
    """
    bucket, key = stack.output("bucket"), layout.claim_key(quarter)
    body = json.dumps({"execution": name, "claimed_at": datetime.now(UTC).isoformat()}).encode()
    try:
        held = stack.s3.get_object(Bucket=bucket, Key=key)
    except stack.s3.exceptions.NoSuchKey:
        condition: dict[str, Any] = {"IfNoneMatch": "*"}
    else:
        _refuse_live_claim(stack, quarter, held["Body"].read())
        condition = {"IfMatch": held["ETag"]}
    try:
        stack.s3.put_object(Bucket=bucket, Key=key, Body=body, ContentType="application/json", **condition)
    except stack.s3.exceptions.ClientError as error:
        if aws_code(error) in ("PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey"):
            raise ConflictError(f"another operator starts {quarter} at this moment: snapshot in a minute") from error
        raise


def _refuse_live_claim(stack: Stack, quarter: str, body: bytes) -> None:
    claim = executions.json_object(body.decode())
    name, claimed_at = str(claim.get("execution", "")), str(claim.get("claimed_at", ""))
    try:
        execution = executions.describe(stack, executions.arn_of(stack, name))
    except stack.stepfunctions.exceptions.ExecutionDoesNotExist:
        if claimed_at and datetime.now(UTC) - datetime.fromisoformat(claimed_at) < _STARTING:
            raise ConflictError(f"another operator starts {quarter} at this moment, as {name}") from None
        return
    if execution.status == "RUNNING":
        raise _already_running(stack, quarter, name)


def _already_running(stack: Stack, quarter: str, name: str) -> ConflictError:
    return ConflictError(
        f"{quarter} is being run already, by {name}: `{stack.command} watch` shows it, --force starts another"
    )
