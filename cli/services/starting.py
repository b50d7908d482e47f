"""Starting executions so that each quarter runs once, even if two operators start it at the same moment."""

import getpass
import json
import re
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from cli.errors import ConflictError
from cli.services import executions
from cli.services.executions import Execution
from cli.stack import Stack
from contract import layout
from contract.bucket import JSON, ChangedError
from contract.run import QuarterInput, QuartersInput

_NAME = re.compile(r"\d{8}_\d{6}-\w+-([a-z0-9]+)-[0-9a-f]{4}(?:-\w+)?$")

_MAX_USER = 16
"""A name of an execution has 80 characters at most."""

_STARTING = timedelta(minutes=1)
"""How long a claim counts before its execution exists: it is being started, or its starter was killed."""


def refuse_second(stack: Stack, quarter: str) -> None:
    """Check that `quarter` is not running, and is not waiting for its turn in a list of quarters.

    Raises:
        ConflictError: with the running execution, and the commands to watch and to stop it.
    """
    if execution := executions.running(stack, quarter):
        raise _already_running(stack, quarter, execution.name)
    for quarters in executions.running_quarters(stack):
        if quarter not in (item["quarter"] for item in quarters.input.get("quarters", [])):
            continue
        child = executions.find_child(stack, quarters, quarter)
        if child is None or child.status == "RUNNING":
            raise _already_running(stack, quarter, quarters.name, in_list=True)


def start(stack: Stack, request: QuarterInput, *, force: bool = False) -> Execution:
    """Start an execution, the only one of its quarter unless forced.

    Raises:
        ConflictError: when the quarter is running, or another operator is starting it at this moment.
    """
    name = execution_name(request["quarter"])
    if force:
        return _start(stack, stack.output("state_machine_arn"), name, request)
    refuse_second(stack, request["quarter"])
    _claim(stack, request["quarter"], name)
    return _start(stack, stack.output("state_machine_arn"), name, request, claims=[request["quarter"]])


def start_quarters(stack: Stack, request: QuartersInput, *, force: bool = False) -> Execution:
    """Start one execution that runs several quarters, none of which may be running yet unless forced.

    Raises:
        ConflictError: when one of them is.
    """
    quarters = [item["quarter"] for item in request["quarters"]]
    name = execution_name(quarters[0] if len(quarters) == 1 else "quarters")
    machine = stack.output("quarters_state_machine_arn")
    if force:
        return _start(stack, machine, name, request)
    for quarter in quarters:
        refuse_second(stack, quarter)
    for quarter in quarters:
        _claim(stack, quarter, f"{name}-{quarter}")  # as the state machine will name its execution
    return _start(stack, machine, name, request, claims=quarters)


def execution_name(what: str) -> str:
    """A readable name that sorts by time: `20230405_101500-2023Q1-alice-3f9a`."""
    return f"{layout.run_id(datetime.now(UTC))}-{what}-{_user()}-{secrets.token_hex(2)}"


def user_in(name: str) -> str:
    """The operator in the name of an execution that ftm started; empty for any other."""
    match = _NAME.match(name)
    return match[1] if match else ""


def _user() -> str:
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # no such user, as in some containers
        user = "unknown"
    return re.sub(r"[^a-z0-9]", "", user.lower())[:_MAX_USER] or "unknown"


def _start(stack: Stack, machine: str, name: str, request: object, claims: Sequence[str] = ()) -> Execution:
    try:
        answer = stack.stepfunctions.start_execution(stateMachineArn=machine, name=name, input=json.dumps(request))
    except BaseException:
        for quarter in claims:
            stack.bucket.delete([layout.claim_key(quarter)])
        raise
    return executions.describe(stack, answer["executionArn"])


def _claim(stack: Stack, quarter: str, name: str) -> None:
    """Claim the quarter for the execution `name`: of two operators at the same moment, S3 lets one succeed.

    Raises:
        ConflictError: when another execution holds the quarter.
    """
    key = layout.claim_key(quarter)
    body = json.dumps({"execution": name, "claimed_at": datetime.now(UTC).isoformat()}).encode()
    held = stack.bucket.get(key)
    if held:
        _refuse_live_claim(stack, quarter, held.body)
    try:
        stack.bucket.put_if(key, body, JSON, etag=held.etag if held else None, writer=name)
    except ChangedError as error:
        raise ConflictError(f"another operator is starting {quarter} at this moment: try again in a minute") from error


def _refuse_live_claim(stack: Stack, quarter: str, body: bytes) -> None:
    claim = executions.json_object(body.decode())
    name, claimed_at = str(claim.get("execution", "")), str(claim.get("claimed_at", ""))
    try:
        execution = executions.describe(stack, executions.arn_of(stack, name))
    except stack.stepfunctions.exceptions.ExecutionDoesNotExist:
        if claimed_at and datetime.now(UTC) - datetime.fromisoformat(claimed_at) < _STARTING:
            raise ConflictError(
                f"{quarter} was claimed for {name} less than a minute ago, and no such execution runs yet: another "
                "operator is starting it, or that start has failed; try again in a minute"
            ) from None
        return
    if execution.status == "RUNNING":
        raise _already_running(stack, quarter, name)


def _already_running(stack: Stack, quarter: str, name: str, *, in_list: bool = False) -> ConflictError:
    what = "" if in_list else f" {quarter}"
    return ConflictError(
        f"{quarter} is already running, as {name}: watch it with `{stack.command} watch{what}`, "
        f"or stop it with `{stack.command} stop{what}`"
    )
