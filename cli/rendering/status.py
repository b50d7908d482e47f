"""How the state of quarters and runs is printed."""

from collections.abc import Sequence

from cli import output
from cli.rendering.runs import duration, print_report
from cli.services.history import BatchItem, RunItem, RunStatus


def print_quarters(items: Sequence[RunItem]) -> None:
    """A line per quarter with its last run."""
    rows = [
        (
            item["quarter"],
            item["status"] or "never run",
            item["run"],
            item["firms"] and f"{item['firms']['completed']:,}/{item['firms']['total']:,}",
            _named(item),
            _time(item),
            item["message"],
        )
        for item in items
    ]
    columns = ("quarter", "status", "run", "firms", "named", "time", "why")
    output.print_table(columns, rows, wrap=("why",), drop=("time", "firms", "named", "run"))


def print_runs(items: Sequence[RunItem]) -> None:
    """A line per run."""
    rows = [
        (
            item["run"],
            item["quarter"],
            item["status"],
            item["started_by"] or None,
            _time(item),
            item["firms"] and item["firms"]["completed"],
            _named(item),
            item["model"] or None,
            None if item["dollars"] is None else f"${item['dollars']:.2f}",
            item["message"],
        )
        for item in items
    ]
    columns = ("run", "quarter", "status", "by", "time", "firms", "named", "model", "cost up to", "why")
    output.print_table(
        columns, rows, wrap=("why",), drop=("model", "by", "cost up to", "firms", "time", "named", "why")
    )


def print_run(found: RunStatus) -> None:
    """One run: its report, and a line per batch."""
    print_report(found["report"], with_batches=False)
    paced = ("in flight", "to go") if any(batch["pace"] for batch in found["batches"]) else ()
    rows = [
        (
            batch["batch_id"],
            batch["state"],
            batch["attempts"],
            f"{batch['completed'] + batch['skipped']:,}/{batch['firms']:,}",
            f"{batch['named']:,}/{batch['topics']:,}",
            *(_pace(batch) if paced else ()),
            duration(batch["seconds"]),
            batch["reason"],
        )
        for batch in found["batches"]
    ]
    columns = ("batch", "state", "attempts", "firms", "named", *paced, "work", "why")
    if rows:
        output.print_table(columns, rows, wrap=("why",), drop=("work", *paced[:1], "attempts", *paced[1:], "named"))
    if found["last_progress"]:
        output.print_line(f"last progress: {found['last_progress'][:19].replace('T', ' ')} UTC")
    for warning in filter(None, (found["cause"], found["overrun"])):
        output.warn(warning)


def _pace(batch: BatchItem) -> tuple[float | None, str | None]:
    """Requests in flight and time to go; None for a batch that does not run."""
    pace = batch["pace"]
    return (pace["in_flight"], duration(pace["seconds_left"])) if pace else (None, None)


def _named(item: RunItem) -> str | None:
    topics = item["topics"]
    return topics and f"{topics['named']:,}/{topics['total']:,}"


def _time(item: RunItem) -> str | None:
    return None if item["seconds"] is None else duration(item["seconds"])
