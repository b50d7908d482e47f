"""Executions of the state machines: finding, describing and stopping them, and how they ended."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from cli.errors import NotFoundError
from cli.stack import Stack
from contract.run import BatchManifest, Summary

if TYPE_CHECKING:
    from mypy_boto3_stepfunctions.type_defs import DescribeExecutionOutputTypeDef, ExecutionListItemTypeDef

_LISTED_EXECUTIONS = 1000
"""How many of the newest executions are searched for the last one of a quarter."""

_QUARTER_IN_NAME = re.compile(r"(?:^|-)((?:19|20)\d\dQ[1-4])(?:-|$)")

_UNCOUNTED = re.compile(r"\{Error=[^,]*, Cause=(?P<cause>.*)\}", re.DOTALL)
"""The cause of a run whose SummarizeResults and NotifyCompletion both failed: an error as Step Functions formats it."""


@dataclass(frozen=True)
class Execution:
    """A run of a quarter, or of a list of quarters."""

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
    """Check that the state machine exists; returns how many batches it runs at once.

    Raises:
        StateMachineDoesNotExist: botocore's, when it is not.
    """
    arn = stack.output("state_machine_arn")
    machine = stack.stepfunctions.describe_state_machine(stateMachineArn=arn)
    states = json.loads(machine["definition"])["States"]
    return int(states["ProcessBatches"].get("MaxConcurrency", 0)) or 40  # an inline Map's own limit


def running_items(stack: Stack) -> Iterator[tuple[str, str]]:
    """ARN and name of each running execution of a quarter."""
    return _running(stack, stack.output("state_machine_arn"))


def running(stack: Stack, quarter: str) -> Execution | None:
    """The running execution of `quarter`, whoever started it."""
    for arn, name in _running(stack, stack.output("state_machine_arn")):
        # An execution started in the console has a random name: only its input has the quarter.
        named = _QUARTER_IN_NAME.search(name)
        if named and named[1] != quarter:
            continue
        execution = describe(stack, arn)
        if execution.input.get("quarter") == quarter and execution.status == "RUNNING":
            return execution
    return None


def last_success(stack: Stack) -> datetime | None:
    """When the newest run of any quarter that has succeeded began; None if there is none in the last 90 days."""
    listed = stack.stepfunctions.list_executions(
        stateMachineArn=stack.output("state_machine_arn"), statusFilter="SUCCEEDED", maxResults=1
    )["executions"]
    return listed[0]["startDate"] if listed else None


def any_running(stack: Stack) -> str | None:
    """The name of a running execution of any quarter."""
    return next((name for _, name in _running(stack, stack.output("state_machine_arn"))), None)


def running_quarters(stack: Stack) -> list[Execution]:
    """The running executions of lists of quarters."""
    machine = stack.outputs.get("quarters_state_machine_arn")
    if not machine:  # the stack is older than that state machine
        return []
    described = (describe(stack, arn) for arn, _ in _running(stack, str(machine)))
    # An execution that only cleans up after another one has no quarters.
    return [execution for execution in described if "quarters" in execution.input]


def running_for(stack: Stack, quarter: str) -> Execution | None:
    """The running list that `quarter` is the only one of: it switches vLLM on and off around the quarter's own run."""
    for execution in running_quarters(stack):
        if [item.get("quarter") for item in execution.input["quarters"]] == [quarter]:
            return execution
    return None


def switches_vllm_off(execution: Execution) -> bool:
    """Whether AWS switches vLLM off when the execution ends."""
    vllm = execution.input.get("vllm")
    return bool(vllm) and not vllm.get("keep")


def find_running(stack: Stack, quarter: str | None) -> Execution:
    """The running execution of `quarter`, or, without a quarter, that of a list of quarters.

    Raises:
        NotFoundError: when there is none.
    """
    if quarter is None:
        found = next(iter(running_quarters(stack)), None)
    else:
        found = running(stack, quarter) or running_for(stack, quarter)
    if found is None:
        raise nothing_runs(stack, quarter)
    return found


def newest(stack: Stack, quarter: str | None) -> Execution | None:
    """The running execution of `quarter`, or else its last one; without a quarter, that of a list of quarters."""
    if quarter is None:
        described = (describe(stack, item["executionArn"]) for item in _newest_of(stack, "quarters_state_machine_arn"))
        lists = (execution for execution in described if "quarters" in execution.input)
        return next(iter(running_quarters(stack)), None) or next(lists, None)
    if execution := running_for(stack, quarter) or running(stack, quarter):
        return execution
    last = last_by_quarter(stack).get(quarter)
    return describe(stack, last["executionArn"]) if last else None


def last_by_quarter(stack: Stack) -> "dict[str, ExecutionListItemTypeDef]":
    """The last execution of each quarter. A list that has only this quarter counts, until it starts the quarter's own.

    Step Functions keeps executions for 90 days.
    """
    found: dict[str, ExecutionListItemTypeDef] = {}
    for item in (*_newest_of(stack, "state_machine_arn"), *_newest_of(stack, "quarters_state_machine_arn")):
        match = _QUARTER_IN_NAME.search(item["name"])
        if match and (match[1] not in found or found[match[1]]["startDate"] < item["startDate"]):
            found[match[1]] = item
    return found


def nothing_runs(stack: Stack, quarter: str | None) -> NotFoundError:
    if quarter is None:
        return NotFoundError("no list of quarters is running: name a quarter")
    return NotFoundError(f"{quarter} is not running: `{stack.command} status {quarter}` shows how its last run ended")


def find_child(stack: Stack, quarters: Execution, quarter: str) -> Execution | None:
    """The execution of one quarter of a list; None before its turn."""
    try:
        return describe(stack, arn_of(stack, f"{quarters.name}-{quarter}"))
    except stack.stepfunctions.exceptions.ExecutionDoesNotExist:
        return None


def arn_of(stack: Stack, name: str) -> str:
    """The ARN of an execution of the quarter state machine."""
    return f"{stack.output('state_machine_arn').replace(':stateMachine:', ':execution:')}:{name}"


def stop(stack: Stack, execution: Execution) -> None:
    """Stop an execution, and with it the jobs that it waits for; what is in the bucket stays."""
    stack.stepfunctions.stop_execution(executionArn=execution.arn, error="Stopped", cause="an operator stopped it")


def describe(stack: Stack, arn: str) -> Execution:
    """One execution as it is now.

    Raises:
        ExecutionDoesNotExist: botocore's, when there is none of that ARN.
    """
    answer = stack.stepfunctions.describe_execution(executionArn=arn)
    return Execution(
        arn=arn,
        name=answer["name"],
        status=answer["status"],
        started_at=answer["startDate"].astimezone(UTC),
        stopped_at=_stopped_at(answer),
        input=json_object(answer.get("input")),
        output=json_object(answer.get("output")),
        error=answer.get("error", ""),
        cause=answer.get("cause", ""),
    )


def manifest_of(stack: Stack, arn: str) -> BatchManifest | None:
    """The output of CreateBatchManifest in that execution; None before that state has ended."""
    manifest = _first_exit(stack, arn, "CreateBatchManifest").get("manifest", {})
    # A function that failed leaves an error in place of the manifest.
    return cast(BatchManifest, manifest) if "batch_ids" in manifest else None


def summary_of(stack: Stack, execution: Execution) -> Summary | None:
    """What SummarizeResults counted; None when the execution did not get that far."""
    summary = execution.output.get("summary")
    if not summary and execution.status != "RUNNING":
        # A failed execution has no output, but its history does.
        summary = _first_exit(stack, execution.arn, "SummarizeResults", newest_first=True).get("summary")
    # Where SummarizeResults failed, its error is in the place of the message.
    return cast(Summary, summary) if summary and isinstance(summary.get("message"), str) else None


def reason(execution: Execution) -> str:
    """Why an execution did not succeed, as a sentence."""
    if execution.status == "TIMED_OUT":
        return "the execution exceeded its time limit"
    if execution.status == "ABORTED":
        return f"the execution was stopped{f': {execution.cause}' if execution.cause else ''}"
    return f"{execution.error or 'the execution failed'}: {_cause(execution.cause) or 'no cause given'}"


def _running(stack: Stack, machine: str) -> Iterator[tuple[str, str]]:
    """ARN and name of each running execution of the machine."""
    pages = stack.stepfunctions.get_paginator("list_executions").paginate(
        stateMachineArn=machine, statusFilter="RUNNING"
    )
    return ((item["executionArn"], item["name"]) for page in pages for item in page["executions"])


def _newest_of(stack: Stack, output: str) -> "Iterator[ExecutionListItemTypeDef]":
    """The newest executions of the state machine in that output, the last one first; none if the stack is older than
    that state machine."""
    if machine := stack.outputs.get(output):
        pages = stack.stepfunctions.get_paginator("list_executions").paginate(
            stateMachineArn=machine, PaginationConfig={"MaxItems": _LISTED_EXECUTIONS, "PageSize": _LISTED_EXECUTIONS}
        )
        yield from (item for page in pages for item in page["executions"])


def _cause(cause: str) -> str:
    """The sentence in a cause; a function's failure is JSON with the sentence in `errorMessage`."""
    if uncounted := _UNCOUNTED.fullmatch(cause):
        return f"its results could not be counted, and its end could not be reported: {_cause(uncounted['cause'])}"
    record = json_object(cause)
    return " ".join(str(record.get("errorMessage") or record.get("Cause") or cause).split())


def _first_exit(stack: Stack, arn: str, state: str, *, newest_first: bool = False) -> dict[str, Any]:
    """The output of the state's first exit, or of its last one; empty when it was never left."""
    return next(_exits(stack, arn, state, newest_first), dict[str, Any]())


def _exits(stack: Stack, arn: str, state: str, newest_first: bool) -> Iterator[dict[str, Any]]:
    pages = stack.stepfunctions.get_paginator("get_execution_history").paginate(
        executionArn=arn, reverseOrder=newest_first, includeExecutionData=True
    )
    for event in (event for page in pages for event in page["events"]):
        details = event.get("stateExitedEventDetails", {})
        if details.get("name") == state:
            yield json_object(details.get("output"))


def _stopped_at(answer: "DescribeExecutionOutputTypeDef") -> datetime | None:
    moment = answer.get("stopDate")
    return moment.astimezone(UTC) if moment and answer["status"] != "RUNNING" else None


def json_object(text: str | None) -> dict[str, Any]:
    """The JSON object in `text`; empty for anything else."""
    try:
        record = json.loads(text or "{}")
    except ValueError:
        return {}
    return cast(dict[str, Any], record) if isinstance(record, dict) else {}
