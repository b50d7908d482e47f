"""How runs snapshot: what is planned, how they go on, and how they ended."""

import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from cli import output
from cli.services.preflight import Plan, QuarterPlan
from cli.services.quarters import QuartersReport, QuartersSnapshot
from cli.services.resumption import IncompleteRun
from cli.services.runs import Report, RunSnapshot
from contract.run import Failure

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

T = TypeVar("T")

_JOBS_SHOWN = 12

_BATCHES_SHOWN = 20

_SAYS_NOTHING = "Essential container in task exited"
"""Batch's reason for every job whose process ended by itself, well or badly."""

_QUIET_SECONDS = 10.0
"""Without a terminal: how often progress of firms alone is worth a line."""


def print_plan(plan: Plan) -> None:
    """What would be run, on stderr: it only leads up to the answer."""
    if plan.vllm is None:
        llm = "hosted API"
    elif plan.vllm_size is not None:
        llm = f"vLLM, scaled to {plan.vllm_size} first"
    else:
        llm = f"vLLM, {plan.vllm.healthy} healthy"
    rows = [("bucket", plan.bucket), ("names by", llm)]
    rows += [(quarter.quarter, _planned(quarter, plan.at_once)) for quarter in plan.quarters]
    output.print_table(("plan", ""), rows, err=True)


def print_report(report: Report, failures: Sequence[Failure], message: str) -> None:
    """How a run ended."""
    run = f", run {report['run']}" if report["run"] else ""
    output.print_line(f"{report['quarter']} {report['status']} in {duration(report['seconds'])}{run}")
    batches, firms, topics, tokens = report["batches"], report["firms"], report["topics"], report["tokens"]
    output.print_table(
        ("", "total", "done", "skipped", "failed"),
        [
            ("batches", batches["total"], batches["succeeded"], None, batches["failed"]),
            ("firms", firms["total"], firms["completed"], firms["skipped"], firms["failed"]),
            ("topics named", topics["total"], topics["named"], None, topics["total"] - topics["named"]),
        ],
    )
    output.print_line(
        f"tokens: {tokens['prompt']:,} prompt ({_share(tokens['cached'], tokens['prompt'])} cached), "
        f"{tokens['completion']:,} completion"
    )
    print_failures(failures, message, err=False)


def print_failures(failures: Sequence[Failure], message: str, *, err: bool) -> None:
    """Why a run failed: the sentence, and each failed batch with its reason."""
    if message:
        (output.warn if err else output.print_line)(message)
    if failures:
        rows = [(failure["batch_id"], _reason(failure), failure.get("exit_code")) for failure in failures]
        output.print_table(("failed batch", "reason", "exit"), rows, err=err)


def print_incomplete(left: IncompleteRun) -> None:
    """What of a run is not complete, on stderr."""
    rows = list(left.incomplete.items())
    output.print_table(("not complete", "because"), rows[:_BATCHES_SHOWN], err=True)
    if len(rows) > _BATCHES_SHOWN:
        output.hint(f"and {output.count(len(rows) - _BATCHES_SHOWN, 'more batch')}")


def print_quarters(report: QuartersReport, messages: dict[str, str]) -> None:
    """How a list of quarters ended."""
    rows = [
        (
            quarter["quarter"],
            quarter["status"],
            quarter["run"],
            quarter["firms"]["completed"],
            quarter["firms"]["skipped"],
            quarter["topics"]["named"],
            duration(quarter["seconds"]),
            messages.get(quarter["quarter"]),
        )
        for quarter in report["quarters"]
    ]
    columns = ("quarter", "status", "run", "firms done", "skipped", "topics named", "time", "why")
    output.print_table(columns, rows)


class Progress(Generic[T]):
    """Progress on stderr: redrawn on a terminal; elsewhere a line when a step is done, and now and then.

    Args:
        draw: the picture of a snapshot, for a terminal.
        tell: what of a snapshot is worth a line at each change, and what changes all the time.
    """

    def __init__(self, draw: "Callable[[T], RenderableType]", tell: Callable[[T], tuple[str, str]]) -> None:
        self._draw = draw
        self._tell = tell
        self._live: Live | None = None
        self._told = ("", "")
        self._told_at = self._began = time.monotonic()

    def __enter__(self) -> Self:
        if output.stderr().is_terminal:
            from rich.live import Live

            self._live = Live(console=output.stderr(), refresh_per_second=4)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def show(self, snapshot: T) -> None:
        if self._live:
            self._live.update(self._draw(snapshot))
            return
        now, said = time.monotonic(), self._tell(snapshot)
        if said == self._told or (said[0] == self._told[0] and now - self._told_at < _QUIET_SECONDS):
            return
        output.hint(f"{duration(now - self._began)} {'; '.join(filter(None, said))}")
        self._told, self._told_at = said, now


def render_run(snapshot: RunSnapshot) -> "RenderableType":
    """A run at one moment, as it is redrawn on a terminal."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    batches, firms = snapshot.batches, snapshot.firms
    head = Text.assemble(
        (str(snapshot.execution.input.get("quarter", "")), "bold"),
        f"  {snapshot.manifest['run'] if snapshot.manifest else 'checking the prefetch, making batches'}",
        f"  {duration(snapshot.execution.seconds)}",
    )
    bars = Table.grid(padding=(0, 1))
    ended = batches["succeeded"] + batches["failed"]
    accounted = firms["completed"] + firms["skipped"] + firms["failed"]
    bars.add_row("batches", ProgressBar(batches["total"] or 1, ended, width=40), _batches_line(snapshot))
    bars.add_row("firms", ProgressBar(firms["total"] or 1, accounted, width=40), _firms_line(snapshot))
    bars.add_row("topics", "", f"{snapshot.counts.topics:,}, {snapshot.counts.named:,} named by the LLM")
    if not snapshot.jobs:
        return Group(head, bars)

    jobs = Table(box=None, header_style="dim", pad_edge=False)
    for column in ("batch", "job", "firms", "attempt", ""):
        jobs.add_column(column)
    for job in snapshot.jobs[:_JOBS_SHOWN]:
        record = snapshot.records.get(job.batch_id)
        done = f"{len(record.completed) + len(record.skipped):,}/{record.firms:,}" if record else ""
        attempt = Text(str(job.attempt), style="yellow" if job.attempt > 1 else "")
        jobs.add_row(job.batch_id, job.status, done, attempt, Text(job.reason, style="dim"))
    if len(snapshot.jobs) > _JOBS_SHOWN:
        jobs.add_row(f"and {len(snapshot.jobs) - _JOBS_SHOWN} more")
    return Group(head, bars, jobs)


def describe_run(snapshot: RunSnapshot) -> tuple[str, str]:
    """A run at one moment, as a line: its steps, and its firms."""
    if not snapshot.manifest:
        return "checking the prefetch, making batches", ""
    steps = [f"batches {_batches_line(snapshot)}"]
    steps += [
        f"{job.batch_id} is at attempt {job.attempt}{f' ({job.reason})' if job.reason else ''}"
        for job in snapshot.jobs
        if job.attempt > 1
    ]
    return "; ".join(steps), f"firms {_firms_line(snapshot)}; topics {snapshot.counts.topics:,}"


def render_quarters(snapshot: QuartersSnapshot) -> "RenderableType":
    """A list of quarters at one moment, as it is redrawn on a terminal."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="dim", pad_edge=False)
    for column in ("quarter", "status", "time", "", "batches", "firms"):
        table.add_column(column)
    for quarter in snapshot.quarters:
        child = snapshot.snapshots.get(quarter)
        if not child:
            table.add_row(quarter, Text("waits", style="dim"))
            continue
        batches, status = child.batches, child.execution.status
        style = {"SUCCEEDED": "green", "RUNNING": ""}.get(status, "red")
        bar = ProgressBar(batches["total"] or 1, batches["succeeded"] + batches["failed"], width=20)
        time_taken = duration(child.execution.seconds)
        table.add_row(quarter, Text(status, style=style), time_taken, bar, _batches_line(child), _firms_line(child))
    return table


def describe_quarters(snapshot: QuartersSnapshot) -> tuple[str, str]:
    """A list of quarters at one moment, as a line: what each does, and the batches of those that run."""
    steps = [f"{quarter} {child.execution.status}" for quarter, child in snapshot.snapshots.items()]
    waiting = len(snapshot.quarters) - len(snapshot.snapshots)
    if waiting:
        steps.append(f"{waiting} wait")
    running = [child for child in snapshot.snapshots.values() if child.execution.status == "RUNNING"]
    batches = [f"{child.execution.input.get('quarter')}: batches {_batches_line(child)}" for child in running]
    return ", ".join(steps), "; ".join(batches)


def duration(seconds: float) -> str:
    """`0:01:10`."""
    return str(timedelta(seconds=round(seconds)))


def _planned(quarter: QuarterPlan, at_once: int) -> str:
    size = f" of up to {quarter.batch_size:,} firms" if quarter.batch_size else " not complete yet"
    firms, batches = output.count(quarter.firms, "firm"), output.count(quarter.batches, "batch")
    return f"{firms}, {batches}{size}, {at_once} at once"


def _reason(failure: Failure) -> str:
    """Why a batch failed; Batch's own reason with it when that says more."""
    told = failure.get("status_reason", "")
    says_more = told and told not in failure["reason"] and told != _SAYS_NOTHING
    return f"{failure['reason']} ({told})" if says_more else failure["reason"]


def _batches_line(snapshot: RunSnapshot) -> str:
    batches = snapshot.batches
    words = [f"{batches['succeeded'] + batches['failed']:,}/{batches['total']:,}"]
    if batches["failed"]:
        words.append(f"{batches['failed']:,} failed")
    if snapshot.retried:
        words.append(f"{snapshot.retried:,} retried")
    return ", ".join(words)


def _firms_line(snapshot: RunSnapshot) -> str:
    firms = snapshot.firms
    words = [f"{firms['completed'] + firms['skipped'] + firms['failed']:,}/{firms['total']:,}"]
    words += [f"{firms[kind]:,} {kind}" for kind in ("skipped", "failed") if firms[kind]]
    return ", ".join(words)


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.0%}" if whole else "none"
