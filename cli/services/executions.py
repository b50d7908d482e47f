"""Executions of the quarter state machine: found, started once, stopped, and asked how they ended."""

import json
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar, cast

from cli.errors import ConflictError, NotFoundError, aws_code
from cli.stack import Stack
from contract import layout
from contract.run import BatchManifest, QuarterInput, Summary

if TYPE_CHECKING:
    from mypy_boto3_stepfunctions.type_defs import DescribeExecutionOutputTypeDef

Record = TypeVar("Record", bound=Mapping[str, Any])

_QUARTER_IN_NAME = re.compile(r"(?:^|-)((?:19|20)\d\dQ[1-4])(?:-|$)")

_STARTING = timedelta(minutes=1)
"""How long a claim counts whose execution is not to be seen: it is being started, or its starter was killed."""


@dataclass(frozen=True)
class Execution:
    arn: str
    name: str
    status: str
    """RUNNING, SUCCEEDED, FAILED, TIMED_OUT, ABORTED."""
    started_at: datetime
    stopped_at: datetime | None
    input: Mapping[str, Any]
    output: Mapping[str, Any]
    error: str
    cause: str

    @property
    def seconds(self) -> float:
        """From its start to its end, or to now."""
        return ((self.stopped_at or datetime.now(UTC)) - self.started_at).total_seconds()


def check_state_machine(stack: Stack) -> int:
    """See that the state machine is there; returns how many batches it runs at once.

    Raises:
        NotFoundError: when it is not.
    """
    arn = stack.output("state_machine_arn")
    machine = stack.stepfunctions.describe_state_machine(stateMachineArn=arn)
    states = json.loads(machine["definition"])["States"]
    return int(states["ProcessBatches"].get("MaxConcurrency", 0)) or 40  # an inline Map's own limit


def running(stack: Stack, quarter: str) -> Execution | None:
    """The execution of `quarter` that runs now, whoever started it."""
    pages = stack.stepfunctions.get_paginator("list_executions").paginate(
        stateMachineArn=stack.output("state_machine_arn"), statusFilter="RUNNING"
    )
    for item in (item for page in pages for item in page["executions"]):
        # One started by hand in the console carries a random name: only its input tells the quarter.
        named = _QUARTER_IN_NAME.search(item["name"])
        if named and named[1] != quarter:
            continue
        execution = describe(stack, item["executionArn"])
        if execution.input.get("quarter") == quarter and execution.status == "RUNNING":
            return execution
    return None


def refuse_second(stack: Stack, quarter: str) -> None:
    """See that no execution of `quarter` runs.

    Raises:
        ConflictError: naming the one that does.
    """
    if execution := running(stack, quarter):
        raise _already_running(stack, quarter, execution.name)


def start(stack: Stack, request: QuarterInput, *, force: bool = False) -> Execution:
    """Start an execution, the only one of its quarter unless forced.

    Raises:
        ConflictError: when the quarter is being run, or another operator starts it at this very moment.
    """
    quarter = request["quarter"]
    name = execution_name(quarter)
    if not force:
        refuse_second(stack, quarter)
        _claim(stack, quarter, name)
    try:
        answer = stack.stepfunctions.start_execution(
            stateMachineArn=stack.output("state_machine_arn"), name=name, input=json.dumps(request)
        )
    except BaseException:
        if not force:
            stack.s3.delete_object(Bucket=stack.output("bucket"), Key=layout.claim_key(quarter))
        raise
    return describe(stack, answer["executionArn"])


def execution_name(quarter: str) -> str:
    """A name that a person can read and that sorts by time: `20230405_101500-2023Q1-3f9a`."""
    return f"{layout.run_id(datetime.now(UTC))}-{quarter}-{secrets.token_hex(2)}"


def stop(stack: Stack, execution: Execution) -> None:
    """Stop an execution, and with it the jobs that it waits for; what is in the bucket stays."""
    stack.stepfunctions.stop_execution(executionArn=execution.arn, error="Stopped", cause="an operator stopped it")


def describe(stack: Stack, arn: str) -> Execution:
    """One execution as it is now.

    Raises:
        NotFoundError: when there is none of that ARN.
    """
    answer = stack.stepfunctions.describe_execution(executionArn=arn)
    return Execution(
        arn=arn,
        name=answer["name"],
        status=answer["status"],
        started_at=answer["startDate"].astimezone(UTC),
        stopped_at=_stopped_at(answer),
        input=_json_object(answer.get("input")),
        output=_json_object(answer.get("output")),
        error=answer.get("error", ""),
        cause=answer.get("cause", ""),
    )


def manifest_of(stack: Stack, arn: str) -> BatchManifest | None:
    """What CreateBatchManifest answered in that execution; None as long as it has not."""
    manifest = _first_exit(stack, arn, "CreateBatchManifest").get("manifest", {})
    # A function that failed leaves an error in the manifest's place.
    return cast(BatchManifest, manifest) if "batch_ids" in manifest else None


def summary_of(stack: Stack, execution: Execution) -> Summary | None:
    """What SummarizeResults counted; None when the execution did not come that far."""
    summary = execution.output.get("summary")
    if not summary and execution.status != "RUNNING":
        # An execution that fails has no output: its history has.
        summary = _first_exit(stack, execution.arn, "SummarizeResults", newest_first=True).get("summary")
    return cast(Summary, summary) if summary else None


def reason(execution: Execution) -> str:
    """Why an execution did not succeed, as a sentence."""
    if execution.status == "TIMED_OUT":
        return "the execution ran out of its time"
    if execution.status == "ABORTED":
        return f"the execution was stopped{f': {execution.cause}' if execution.cause else ''}"
    return f"{execution.error or 'the execution failed'}: {_cause(execution.cause) or 'no cause given'}"


def _cause(cause: str) -> str:
    """A function's failure is JSON in the cause; its message is the sentence."""
    told = _json_object(cause)
    return " ".join(str(told.get("errorMessage") or told.get("Cause") or cause).split())


def _first_exit(stack: Stack, arn: str, state: str, *, newest_first: bool = False) -> dict[str, Any]:
    """What the state put out when it was left first, or last; empty when it was not left."""
    return next(_exits(stack, arn, state, newest_first), dict[str, Any]())


def _exits(stack: Stack, arn: str, state: str, newest_first: bool) -> Iterator[dict[str, Any]]:
    pages = stack.stepfunctions.get_paginator("get_execution_history").paginate(
        executionArn=arn, reverseOrder=newest_first, includeExecutionData=True
    )
    for event in (event for page in pages for event in page["events"]):
        details = event.get("stateExitedEventDetails", {})
        if details.get("name") == state:
            yield _json_object(details.get("output"))


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
            raise ConflictError(f"another operator starts {quarter} at this moment: look in a minute") from error
        raise


def _refuse_live_claim(stack: Stack, quarter: str, body: bytes) -> None:
    claim = _json_object(body.decode())
    name, claimed_at = str(claim.get("execution", "")), str(claim.get("claimed_at", ""))
    machine = stack.output("state_machine_arn")
    try:
        execution = describe(stack, f"{machine.replace(':stateMachine:', ':execution:')}:{name}")
    except stack.stepfunctions.exceptions.ExecutionDoesNotExist:
        fresh = claimed_at and datetime.now(UTC) - datetime.fromisoformat(claimed_at) < _STARTING
        if fresh:
            raise ConflictError(f"another operator starts {quarter} at this moment, as {name}") from None
        return
    if execution.status == "RUNNING":
        raise _already_running(stack, quarter, name)


def _already_running(stack: Stack, quarter: str, name: str) -> ConflictError:
    return ConflictError(
        f"{quarter} is being run already, as {name}: `{stack.command} watch {quarter}` shows it, --force starts another"
    )


def find_running(stack: Stack, quarter: str) -> Execution:
    """The execution of `quarter` that runs now.

    Raises:
        NotFoundError: when there is none.
    """
    execution = running(stack, quarter)
    if execution is None:
        raise NotFoundError(f"no execution of {quarter} runs: `{stack.command} run-quarter {quarter}` starts one")
    return execution


def _stopped_at(answer: "DescribeExecutionOutputTypeDef") -> datetime | None:
    moment = answer.get("stopDate")
    return moment.astimezone(UTC) if moment and answer["status"] != "RUNNING" else None


def _json_object(text: str | None) -> dict[str, Any]:
    try:
        record = json.loads(text or "{}")
    except ValueError:
        return {}
    return cast(dict[str, Any], record) if isinstance(record, dict) else {}
