"""Lists of quarters, run by one execution that starts each quarter's own."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypedDict

from cli.services import executions, runs, vllm
from cli.services.executions import Execution
from cli.services.retries import Retries
from cli.services.runs import Report, RunSnapshot, Watcher
from cli.stack import Stack

_NOT_FAILED = ("SUCCEEDED", "RUNNING", "UNKNOWN")


class QuartersReport(TypedDict):
    """The state of a list of quarters; `ftm run-quarters --json` prints it, docs/json.md documents it."""

    execution_arn: str
    status: str
    quarters: list[Report]
    """Those that have started."""
    failed: list[str]
    seconds: float


@dataclass(frozen=True)
class QuartersSnapshot:
    """A list of quarters at one moment."""

    execution: Execution
    quarters: Sequence[str]
    snapshots: Mapping[str, RunSnapshot]
    """Those that have started."""
    cause: str = ""
    """Why no quarter has started yet; empty once one has."""


def watch(stack: Stack, execution: Execution, retries: Retries) -> Iterator[QuartersSnapshot]:
    """Yield snapshots of the list's execution, and of those of its quarters, until it has ended.

    Raises:
        LostConnectionError: when AWS cannot be reached any more.
    """
    quarters = [str(item["quarter"]) for item in execution.input.get("quarters", [])]
    watchers: dict[str, Watcher] = {}
    snapshots: dict[str, RunSnapshot] = {}

    def take() -> QuartersSnapshot:
        now = executions.describe(stack, execution.arn)
        for quarter in quarters:
            ended = quarter in snapshots and snapshots[quarter].execution.status != "RUNNING"
            if not ended and (watcher := _watcher(stack, now, quarter, watchers)):
                snapshots[quarter] = watcher.snapshot()
        return QuartersSnapshot(now, quarters, dict(snapshots), "" if snapshots else waiting_for_vllm(stack, now))

    while True:
        snapshot = retries.call(take)
        yield snapshot
        if snapshot.execution.status != "RUNNING":
            return
        time.sleep(stack.poll_interval)


def watch_only(stack: Stack, execution: Execution, retries: Retries) -> Iterator[RunSnapshot]:
    """Yield snapshots of a list's only quarter until the list has ended.

    Until the quarter has its own execution, and if it never gets one, the snapshots show the list's.

    Raises:
        LostConnectionError: when AWS cannot be reached any more.
    """
    (item,) = execution.input["quarters"]
    watchers: dict[str, Watcher] = {}

    def take() -> tuple[Execution, RunSnapshot]:
        now = executions.describe(stack, execution.arn)
        if watcher := _watcher(stack, now, item["quarter"], watchers):
            snapshot = watcher.snapshot()
            if snapshot.execution.status != "RUNNING" and executions.switches_vllm_off(now):
                snapshot = replace(snapshot, cause="AWS switches vLLM off")
            return now, snapshot
        return now, RunSnapshot(replace(now, input=item), cause=waiting_for_vllm(stack, now))

    while True:
        now, snapshot = retries.call(take)
        yield snapshot
        if now.status != "RUNNING":
            return
        time.sleep(stack.poll_interval)


def waiting_for_vllm(stack: Stack, execution: Execution) -> str:
    """Why no quarter of a list has started yet; empty if it does not wait for vLLM."""
    if "vllm" not in execution.input or execution.status != "RUNNING":
        return ""
    state, given = vllm.status(stack), execution.input["vllm"]
    if given.get("smoke_test", True) and state.healthy >= given.get("size", 0):
        return "vLLM is healthy, and names three topics as a smoke test"
    reason = vllm.last_word(stack)
    counts = f"vLLM: {state.healthy} of {state.desired} healthy, GPU instances: {state.instances}"
    return f"{counts}: {reason}" if reason else counts


def report(stack: Stack, snapshot: QuartersSnapshot) -> QuartersReport:
    """The state of the list, each quarter with the counts of its own summary."""
    children = snapshot.snapshots.values()
    reports = [runs.report(child, executions.summary_of(stack, child.execution)) for child in children]
    return _report(snapshot, snapshot.execution.status, reports)


def report_unknown(snapshot: QuartersSnapshot) -> QuartersReport:
    """A list to which the connection is lost, each quarter as last seen."""
    reports = [
        runs.report(child, None, status="UNKNOWN" if child.execution.status == "RUNNING" else None)
        for child in snapshot.snapshots.values()
    ]
    return _report(snapshot, "UNKNOWN", reports)


def _report(snapshot: QuartersSnapshot, status: str, reports: list[Report]) -> QuartersReport:
    return {
        "execution_arn": snapshot.execution.arn,
        "status": status,
        "quarters": reports,
        "failed": [report["quarter"] for report in reports if report["status"] not in _NOT_FAILED],
        "seconds": round(snapshot.execution.seconds, 1),
    }


def _watcher(stack: Stack, execution: Execution, quarter: str, watchers: dict[str, Watcher]) -> Watcher | None:
    if quarter not in watchers and (child := executions.find_child(stack, execution, quarter)):
        watchers[quarter] = Watcher(stack, child.arn)
    return watchers.get(quarter)
