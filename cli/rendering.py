"""How a run looks: its plan, its progress while it goes on, and how it ended."""

import time
from collections.abc import Sequence
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Self

from cli import output
from cli.services.preflight import Plan
from cli.services.runs import Look, Report
from contract.run import Failure

if TYPE_CHECKING:
    from rich.console import RenderableType

_JOBS_SHOWN = 12

_QUIET_SECONDS = 10.0
"""Without a terminal: how often progress of firms alone is worth a line."""


def print_plan(plan: Plan) -> None:
    """What the run would do, on stderr: it only leads up to the answer."""
    if plan.vllm is None:
        llm = "hosted API"
    elif plan.vllm_size is not None:
        llm = f"vLLM, scaled to {plan.vllm_size} first"
    else:
        llm = f"vLLM, {plan.vllm.healthy} healthy"
    rows = [
        ("quarter", plan.quarter),
        ("bucket", plan.bucket),
        ("firms", f"{plan.firms:,}"),
        ("batches", f"{plan.batches:,} of up to {plan.batch_size:,} firms, {plan.at_once} at once"),
        ("names by", llm),
    ]
    output.print_table(("plan", ""), rows, err=True)


def print_report(report: Report, failures: Sequence[Failure], message: str) -> None:
    """How the run ended."""
    took = duration(report["seconds"])
    run = f", run {report['run']}" if report["run"] else ""
    output.print_line(f"{report['quarter']} {report['status']} in {took}{run}")
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
    """Why the run failed: the sentence, and each failed batch with its reason."""
    if message:
        (output.warn if err else output.print_line)(message)
    if failures:
        rows = [
            (
                failure["batch_id"],
                failure["reason"],
                failure.get("exit_code"),
                failure.get("log_stream"),
            )
            for failure in failures
        ]
        output.print_table(("failed batch", "reason", "exit", "log stream"), rows, err=err)


class Progress:
    """A run's progress on stderr: redrawn on a terminal; elsewhere a line when a batch changes, and now and then."""

    def __init__(self) -> None:
        self._live = _Live() if output.stderr().is_terminal else None
        self._told = self._told_firms = ""
        self._told_at = 0.0

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def show(self, look: Look) -> None:
        if self._live:
            self._live.update(draw(look))
            return
        steps, firms = _lines(look)
        now = time.monotonic()
        if steps == self._told and (firms == self._told_firms or now - self._told_at < _QUIET_SECONDS):
            return
        output.hint(f"{duration(look.execution.seconds)} {'; '.join(filter(None, (steps, firms)))}")
        self._told, self._told_firms, self._told_at = steps, firms, now


class _Live:
    """rich's live display, imported only on a terminal."""

    def __init__(self) -> None:
        from rich.live import Live

        self._live = Live(console=output.stderr(), refresh_per_second=4)

    def start(self) -> None:
        self._live.start()

    def update(self, picture: "RenderableType") -> None:
        self._live.update(picture)

    def stop(self) -> None:
        self._live.stop()


def draw(look: Look) -> "RenderableType":
    """A run at one moment, as it is redrawn on a terminal."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    batches, firms = look.batches, look.firms
    head = Text.assemble(
        (str(look.execution.input.get("quarter", "")), "bold"),
        f"  {look.manifest['run'] if look.manifest else 'checking the prefetch, making batches'}",
        f"  {duration(look.execution.seconds)}",
    )
    bars = Table.grid(padding=(0, 1))
    ended = batches["succeeded"] + batches["failed"]
    accounted = firms["completed"] + firms["skipped"] + firms["failed"]
    bars.add_row("batches", ProgressBar(batches["total"] or 1, ended, width=40), _batches_line(look))
    bars.add_row("firms", ProgressBar(firms["total"] or 1, accounted, width=40), _firms_line(look))
    bars.add_row("topics", "", f"{look.counts.topics:,}, {look.counts.named:,} named by the LLM")
    if not look.jobs:
        return Group(head, bars)

    jobs = Table(box=None, header_style="dim", pad_edge=False)
    for column in ("batch", "job", "firms", "attempt", ""):
        jobs.add_column(column)
    for job in look.jobs[:_JOBS_SHOWN]:
        record = look.records.get(job.batch_id)
        done = f"{len(record.completed) + len(record.skipped):,}/{record.firms:,}" if record else ""
        attempt = Text(str(job.attempt), style="yellow" if job.attempt > 1 else "")
        jobs.add_row(job.batch_id, job.status, done, attempt, Text(job.reason, style="dim"))
    if len(look.jobs) > _JOBS_SHOWN:
        jobs.add_row(f"and {len(look.jobs) - _JOBS_SHOWN} more")
    return Group(head, bars, jobs)


def duration(seconds: float) -> str:
    """`0:01:10`."""
    return str(timedelta(seconds=round(seconds)))


def _lines(look: Look) -> tuple[str, str]:
    """What is worth a line at each change, and what changes all the time."""
    if not look.manifest:
        return "checking the prefetch, making batches", ""
    steps = [f"batches {_batches_line(look)}"]
    steps += [
        f"{job.batch_id} is at attempt {job.attempt}{f' ({job.reason})' if job.reason else ''}"
        for job in look.jobs
        if job.attempt > 1
    ]
    return "; ".join(steps), f"firms {_firms_line(look)}; topics {look.counts.topics:,}"


def _batches_line(look: Look) -> str:
    batches = look.batches
    words = [f"{batches['succeeded'] + batches['failed']:,}/{batches['total']:,}"]
    if batches["failed"]:
        words.append(f"{batches['failed']:,} failed")
    if look.retried:
        words.append(f"{look.retried:,} retried")
    return ", ".join(words)


def _firms_line(look: Look) -> str:
    firms = look.firms
    words = [f"{firms['completed'] + firms['skipped'] + firms['failed']:,}/{firms['total']:,}"]
    words += [f"{firms[kind]:,} {kind}" for kind in ("skipped", "failed") if firms[kind]]
    return ", ".join(words)


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.0%}" if whole else "none"
