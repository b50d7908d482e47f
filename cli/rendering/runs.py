"""How runs are printed: what is planned, their progress, and how they ended."""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from cli import output
from cli.rendering.cost import dollars, minutes
from cli.services.preflight import Plan, QuarterPlan
from cli.services.quarters import QuartersReport, QuartersSnapshot
from cli.services.resumption import IncompleteRun
from cli.services.runs import Report, RunSnapshot
from contract.batch import Counts
from contract.fallbacks import FallbackRecord, fallback_lines
from contract.run import Failure

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live
    from rich.progress_bar import ProgressBar

T = TypeVar("T")

_JOBS_SHOWN = 12

_BATCHES_SHOWN = 20

_UNINFORMATIVE_REASON = "Essential container in task exited"
"""Batch's reason for every job whose process exited by itself, whatever its exit code."""

_QUIET_SECONDS = 10.0
"""Without a terminal: the minimum time between two lines that differ only in their counts of firms."""


def print_plan(plan: Plan) -> None:
    """Print the plan on stderr, since it is not the result."""
    if plan.vllm is None:
        llm = "hosted API"
    elif plan.vllm_size is not None:
        after = "and left on" if plan.keep_vllm else "and switched off at the end"
        llm = f"vLLM, scaled to {plan.vllm_size} first {after}"
    else:
        llm = f"vLLM, {plan.vllm.healthy} healthy"
    if plan.smoke_test:
        llm += "; three topics first, as a smoke test"
    rows = [("bucket", plan.bucket), ("named by", llm)]
    rows += [(quarter.quarter, _planned(quarter, plan.at_once)) for quarter in plan.quarters]
    if in_flight := [quarter.in_flight for quarter in plan.quarters if quarter.in_flight]:
        sizes = sorted(set(in_flight))
        rows.append(("requests at once", f"{' to '.join(map(str, sizes[:1] + sizes[1:][-1:]))} from each batch"))
    rows.append(("time", minutes(plan.estimate["minutes"])))
    rows.append(("cost", f"{dollars(plan.estimate['dollars'])} (hosted API: ${plan.estimate['hosted_dollars']:.2f})"))
    output.print_table(("plan", ""), rows, wrap=("",), err=True)


def print_report(report: Report, *, with_batches: bool = True) -> None:
    """The state of a run.

    Args:
        with_batches: print the failed batches too.
    """
    run = f", run {report['run']}" if report["run"] else ""
    output.print_line(f"{report['quarter']} {report['status']} in {duration(report['seconds'])}{run}")
    batches, firms, topics, tokens = report["batches"], report["firms"], report["topics"], report["tokens"]
    rows = [
        ("batches", batches["total"], batches["succeeded"], None, batches["failed"]),
        ("firms", firms["total"], firms["completed"], firms["skipped"], firms["failed"]),
        ("topics named", topics["total"], topics["named"], None, topics["total"] - topics["named"]),
    ]
    output.print_table(("", "total", "done", "skipped", "failed"), rows)
    if incoherent := topics.get("incoherent"):
        of_named = f"{incoherent:,} of the named topics ({share(incoherent, topics['named'])})"
        output.print_line(
            f"{of_named} have sentences without a common subject, according to the LLM (ftm topics --coherent)"
        )
    output.print_line(
        f"tokens: {tokens['prompt']:,} prompt ({share(tokens['cached'], tokens['prompt'])} cached), "
        f"{tokens['completion']:,} completion"
    )
    print_fallbacks(report["fallbacks"])
    print_failures(report["failures"] if with_batches else [], report["message"], err=False)


def print_fallbacks(fallbacks: Sequence[FallbackRecord]) -> None:
    """Why topics have no name from the LLM, the most frequent reason first; nothing when all have one."""
    if fallbacks:
        rows = [(one["topics"], one["reason"], one["example"]) for one in fallbacks]
        output.print_table(("topics without a name", "reason", "example"), rows, wrap=("example",))


def print_failures(failures: Sequence[Failure], message: str, *, err: bool) -> None:
    """Why a run failed: the sentence, and each failed batch with its reason."""
    if message:
        (output.warn if err else output.print_line)(message)
    if failures:
        rows = [(failure["batch_id"], _reason(failure), failure.get("exit_code")) for failure in failures]
        output.print_table(("failed batch", "reason", "exit"), rows, wrap=("reason",), drop=("exit",), err=err)


def print_incomplete(incomplete: IncompleteRun) -> None:
    """Which batches of a run are not complete, on stderr."""
    rows = list(incomplete.incomplete.items())
    output.print_table(("not complete", "because"), rows[:_BATCHES_SHOWN], wrap=("because",), err=True)
    if len(rows) > _BATCHES_SHOWN:
        output.hint(f"and {output.count(len(rows) - _BATCHES_SHOWN, 'more batch')}")


def print_quarters(report: QuartersReport) -> None:
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
            quarter["message"],
        )
        for quarter in report["quarters"]
    ]
    columns = ("quarter", "status", "run", "firms done", "skipped", "topics named", "time", "why")
    output.print_table(columns, rows, wrap=("why",), drop=("skipped", "time", "firms done", "topics named", "run"))


class Progress(Generic[T]):
    """Progress on stderr: redrawn on a terminal; elsewhere a line when a step is done, and at intervals.

    Args:
        render: formats a snapshot for a terminal.
        describe: formats a snapshot as text: its steps, printed at each change, and its counts, printed at intervals.
    """

    def __init__(self, render: "Callable[[T], RenderableType]", describe: Callable[[T], tuple[str, str]]) -> None:
        self._render = render
        self._describe = describe
        self._live: Live | None = None
        self._printed = ("", "")
        self._printed_at = self._began = time.monotonic()

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
            self._live.update(self._render(snapshot))
            return
        now, text = time.monotonic(), self._describe(snapshot)
        if text == self._printed or (text[0] == self._printed[0] and now - self._printed_at < _QUIET_SECONDS):
            return
        output.hint(f"{duration(now - self._began)} {'; '.join(filter(None, text))}")
        self._printed, self._printed_at = text, now


def render_run(snapshot: RunSnapshot) -> "RenderableType":
    """A run at one moment, for a terminal."""
    from rich.console import Group, RenderableType
    from rich.table import Table
    from rich.text import Text

    batches, firms = snapshot.batches, snapshot.firms
    head = Text.assemble(
        (str(snapshot.execution.input.get("quarter", "")), "bold"),
        f"  {snapshot.manifest['run'] if snapshot.manifest else '' if snapshot.cause else _beginning(snapshot)}",
        f"  {duration(snapshot.execution.seconds)}",
    )
    bars = Table.grid(padding=(0, 1))
    ended = batches["succeeded"] + batches["failed"]
    bars.add_row("batches", _bar(batches["total"], ended, batches["failed"]), _batches_line(snapshot))
    bars.add_row("firms", _bar(firms["total"], _accounted(snapshot), firms["failed"]), _firms_line(snapshot))
    bars.add_row("topics", "", _topics_line(snapshot.counts))
    parts: list[RenderableType] = [head, bars, Text(_pace(snapshot), style="dim")]
    parts += [Text(warning, style="yellow") for warning in (snapshot.cause, snapshot.overrun) if warning]
    if not snapshot.jobs:
        return Group(*parts)

    jobs = Table(box=None, header_style="dim", pad_edge=False)
    for column in ("batch", "job", "firms", "in flight", "to go", "attempt"):
        jobs.add_column(column, no_wrap=True)
    jobs.add_column("")
    for job in snapshot.jobs[:_JOBS_SHOWN]:
        record = snapshot.records.get(job.batch_id)
        done = f"{len(record.completed) + len(record.skipped):,}/{record.firms:,}" if record else ""
        attempt = Text(str(job.attempt), style="yellow" if job.attempt > 1 else "")
        pace = snapshot.paces.get(job.batch_id)
        in_flight, to_go = (str(pace.in_flight), duration(pace.seconds_left)) if pace else ("", "")
        jobs.add_row(job.batch_id, job.status, done, in_flight, to_go, attempt, Text(job.reason, style="dim"))
    if len(snapshot.jobs) > _JOBS_SHOWN:
        jobs.add_row(f"and {len(snapshot.jobs) - _JOBS_SHOWN} more")
    return Group(*parts, jobs)


def describe_run(snapshot: RunSnapshot) -> tuple[str, str]:
    """A run at one moment, as text: its steps, and its counts."""
    if not snapshot.manifest:
        return snapshot.cause or _beginning(snapshot), ""
    steps = [f"batches {_batches_line(snapshot)}"]
    steps += [
        f"{job.batch_id} is at attempt {job.attempt}{f' ({job.reason})' if job.reason else ''}"
        for job in snapshot.jobs
        if job.attempt > 1
    ]
    if snapshot.overrun:
        steps.append(snapshot.overrun)
    topics = _topics_line(snapshot.counts)
    counts = [f"firms {_firms_line(snapshot)}; topics {topics}", _pace(snapshot), snapshot.cause]
    return "; ".join(steps), "; ".join(filter(None, counts))


def render_quarters(snapshot: QuartersSnapshot) -> "RenderableType":
    """A list of quarters at one moment, for a terminal."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="dim", pad_edge=False)
    for column in ("quarter", "status", "time", "", "batches", "firms"):
        table.add_column(column, no_wrap=column in ("quarter", "status", "time"))
    for quarter in snapshot.quarters:
        child = snapshot.snapshots.get(quarter)
        if not child:
            table.add_row(quarter, Text("waiting", style="dim"))
            continue
        batches, status = child.batches, child.execution.status
        style = {"SUCCEEDED": "green", "RUNNING": ""}.get(status, "red")
        bar = _bar(batches["total"], batches["succeeded"] + batches["failed"], batches["failed"], width=20)
        time_taken = duration(child.execution.seconds)
        table.add_row(quarter, Text(status, style=style), time_taken, bar, _batches_line(child), _firms_line(child))
    return Group(table, Text(snapshot.cause, style="yellow")) if snapshot.cause else table


def describe_quarters(snapshot: QuartersSnapshot) -> tuple[str, str]:
    """A list of quarters at one moment, as text: the state of each, and the batches of those that run."""
    steps = [snapshot.cause] if snapshot.cause else []
    steps += [f"{quarter} {child.execution.status}" for quarter, child in snapshot.snapshots.items()]
    waiting = len(snapshot.quarters) - len(snapshot.snapshots)
    if waiting:
        steps.append(f"{waiting} waiting")
    running = [child for child in snapshot.snapshots.values() if child.execution.status == "RUNNING"]
    batches = [f"{child.execution.input.get('quarter')}: batches {_batches_line(child)}" for child in running]
    return ", ".join(steps), "; ".join(batches)


def duration(seconds: float) -> str:
    """`0:01:10`."""
    return str(timedelta(seconds=round(seconds)))


def share(part: int, whole: int) -> str:
    """`80%`; `none` if `whole` is 0."""
    return f"{part / whole:.0%}" if whole else "none"


def _planned(quarter: QuarterPlan, at_once: int) -> str:
    size = f" of up to {quarter.batch_size:,} firms" if quarter.batch_size else " not complete yet"
    firms, batches = output.count(quarter.firms, "firm"), output.count(quarter.batches, "batch")
    return f"{firms}, {batches}{size}, {at_once} at once"


def _reason(failure: Failure) -> str:
    """Why a batch failed, with Batch's own reason if that adds anything."""
    status = failure.get("status_reason", "")
    adds_something = status and status not in failure["reason"] and status != _UNINFORMATIVE_REASON
    return f"{failure['reason']} ({status})" if adds_something else failure["reason"]


def _bar(total: int, done: int, failed: int, width: int = 30) -> "ProgressBar":
    """A progress bar: red once something has failed, green only when all succeeded."""
    from rich.progress_bar import ProgressBar

    style = "red" if failed else "bar.complete"
    return ProgressBar(
        total or 1, done, width=width, complete_style=style, finished_style="red" if failed else "bar.finished"
    )


def _beginning(snapshot: RunSnapshot) -> str:
    is_running = snapshot.execution.status == "RUNNING"
    return "checking the prefetch, making batches" if is_running else "ended before it made batches"


def _pace(snapshot: RunSnapshot) -> str:
    """Firms a minute, the time to go, the requests in flight, and the age of the last progress."""
    if snapshot.execution.status != "RUNNING" or snapshot.last_progress is None:
        return ""
    done, total, seconds = _accounted(snapshot), snapshot.firms["total"], snapshot.execution.seconds
    paces = snapshot.paces.values()
    words: list[str] = []
    if done and seconds:
        left = duration((total - done) * seconds / done)
        words.append(f"{done / seconds * 60:,.0f} firms a minute, about {left} to go")
    elif paces:
        left = duration(max(pace.seconds_left for pace in paces))
        words.append(f"about {left} to go for the batches that run")
    if paces:
        words.append(f"{output.count(sum(pace.in_flight for pace in paces), 'request')} in flight")
    if limited := sum(pace.rate_limited for pace in paces):
        words.append(f"{limited:,} refused because of a rate limit")
    words.append(f"last progress {duration((datetime.now(UTC) - snapshot.last_progress).total_seconds())} ago")
    return ", ".join(words)


def _accounted(snapshot: RunSnapshot) -> int:
    firms = snapshot.firms
    return firms["completed"] + firms["skipped"] + firms["failed"]


def _batches_line(snapshot: RunSnapshot) -> str:
    batches = snapshot.batches
    words = [f"{batches['succeeded'] + batches['failed']:,}/{batches['total']:,}"]
    if batches["failed"]:
        words.append(f"{batches['failed']:,} failed")
    if snapshot.retried:
        words.append(f"{snapshot.retried:,} retried")
    return ", ".join(words)


def _topics_line(counts: Counts) -> str:
    """How many topics there are, and the most frequent reason why some have no name."""
    line = f"{counts.topics:,}, {counts.named:,} named by the LLM"
    return "; ".join([line, *fallback_lines(counts.fallbacks)[:1]])


def _firms_line(snapshot: RunSnapshot) -> str:
    firms = snapshot.firms
    words = [f"{_accounted(snapshot):,}/{firms['total']:,}"]
    words += [f"{firms[kind]:,} {kind}" for kind in ("skipped", "failed") if firms[kind]]
    return ", ".join(words)
