"""What the report of a run is made of, collected from its records and its parts."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cli.services import cost, history, parquet, resumption, runs
from cli.services.cost import Spent
from cli.services.history import BatchItem
from cli.services.runs import Report
from cli.stack import Stack
from contract.batch import BatchProgress
from contract.fallbacks import FallbackRecord, add_fallbacks, fallback_records
from contract.layout import RunRef

_COLUMNS = ("firm_id", "name", "naming_method", "keywords", "model")

_MOST = 25
"""Names and keywords in a chart."""


@dataclass(frozen=True)
class Work:
    """The time in which a batch was worked on, over all its attempts."""

    batch_id: str
    started_at: datetime
    ended_at: datetime
    state: str
    attempts: int


@dataclass(frozen=True)
class RunReport:
    """Everything that the page shows."""

    report: Report
    models: Sequence[str]
    batches: Sequence[BatchItem]
    work: Sequence[Work]
    spent: Spent | None
    """None for a run that was never counted."""
    fallbacks: Sequence[FallbackRecord]
    topics_per_firm: Sequence[int]
    """How many topics each completed firm has."""
    names: Sequence[tuple[str, int]]
    """The names that most firms have, with the number of firms."""
    keywords: Sequence[tuple[str, int]]
    """The most frequent keywords, with the number of topics."""


def collect(stack: Stack, quarter: str, run: str | None) -> RunReport:
    """The report of a run, or of the quarter's newest one.

    Raises:
        NotFoundError: when there is no such run.
    """
    run = run or resumption.newest_run(stack, quarter)
    status = history.status_of(stack, quarter, run)
    records = runs.RecordReader(stack).read(RunRef(quarter, run))
    record = runs.record_of(stack, RunRef(quarter, run))
    rows = [row for batch in records.values() for part in batch.parts for row in _rows(stack, part)]
    fallbacks = {}
    for batch in records.values():
        fallbacks = add_fallbacks(fallbacks, batch.counts.fallbacks)
    named = {(row["firm_id"], row["name"]) for row in rows if row["naming_method"] == "llm"}
    return RunReport(
        report=status["report"],
        models=sorted({str(row["model"]) for row in rows if row["model"]}),
        batches=status["batches"],
        work=_work(list(records.values())),
        spent=cost.spent(stack, record) if record else None,
        fallbacks=fallback_records(fallbacks),
        topics_per_firm=sorted(Counter(row["firm_id"] for row in rows).values()),
        names=Counter(name for _, name in sorted(named)).most_common(_MOST),
        keywords=Counter(word for row in rows for word in row["keywords"] or ()).most_common(_MOST),
    )


def _rows(stack: Stack, part: str) -> list[dict[str, str]]:
    found = stack.bucket.get(part)
    return parquet.read_rows(found.body, _COLUMNS, None, stack.bucket.url(part)) if found else []


def _work(records: Sequence[BatchProgress]) -> list[Work]:
    return [
        Work(
            record.batch_id,
            datetime.fromisoformat(record.started_at),
            datetime.fromisoformat(record.updated_at),
            record.state,
            record.attempts,
        )
        for record in sorted(records, key=lambda record: record.batch_id)
        if record.started_at and record.updated_at
    ]
