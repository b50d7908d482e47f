"""The data of a run's report, collected from its records and parts."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cli.services import cost, history, parquet, resumption, runs, themes, topics
from cli.services.cost import Spent
from cli.services.history import BatchItem
from cli.services.runs import Report
from cli.services.themes import Theme
from cli.services.topics import FirmWithoutTopics
from cli.stack import Stack
from contract.batch import BatchProgress
from contract.fallbacks import FallbackRecord, add_fallbacks, fallback_records
from contract.layout import RunRef

_COLUMNS = (*topics.COLUMNS, "model")

_MOST = 25
"""Names and keywords in a chart."""


@dataclass(frozen=True)
class Work:
    """When a batch was processed, over all its attempts."""

    batch_id: str
    started_at: datetime
    ended_at: datetime
    state: str
    attempts: int


@dataclass(frozen=True)
class FirmTopic:
    name: str
    summary: str
    sentences: int
    theme: str
    """The name of its theme; empty when it is in none."""


@dataclass(frozen=True)
class FirmTopics:
    """A firm's section of the page."""

    firm_id: str
    firm_name: str
    topics: Sequence[FirmTopic]


@dataclass(frozen=True)
class Themes:
    """The newest themes of the run's topics."""

    range: str
    quarters: Sequence[str]
    themes: Sequence[Theme]
    new: Sequence[Theme]
    """Those without a topic of the quarter before the last one."""
    vanished: Sequence[Theme]
    """Those of the quarter before the last one without a topic of the last one."""


@dataclass(frozen=True)
class RunReport:
    """Everything that the page shows."""

    report: Report
    models: Sequence[str]
    batches: Sequence[BatchItem]
    work: Sequence[Work]
    spent: Spent | None
    """None for a run without a summary."""
    fallbacks: Sequence[FallbackRecord]
    topics_per_firm: Sequence[int]
    """How many topics each completed firm has."""
    names: Sequence[tuple[str, int]]
    """The names that most firms have, with the number of firms."""
    keywords: Sequence[tuple[str, int]]
    """The most frequent keywords, with the number of topics."""
    themes: Themes | None
    """None when no themes of the run's topics have been found."""
    firms: Sequence[FirmTopics]
    without_topics: Sequence[FirmWithoutTopics]


def collect(stack: Stack, quarter: str, run: str | None) -> RunReport:
    """The report of a run, or of the quarter's newest one.

    Raises:
        NotFoundError: when there is no such run.
    """
    ref = RunRef(quarter, run or resumption.newest_run(stack, quarter))
    status = history.status_of(stack, ref)
    records = runs.RecordReader(stack).read(ref)
    record = runs.record_of(stack, ref)
    rows = [row for batch in records.values() for part in batch.parts for row in _rows(stack, part)]
    found, theme_of = _themes(stack, ref)
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
        # A summary also counts names that were withdrawn after the batches.
        fallbacks=status["report"]["fallbacks"] if record else fallback_records(fallbacks),
        topics_per_firm=sorted(Counter(row["firm_id"] for row in rows).values()),
        names=Counter(name for _, name in sorted(named)).most_common(_MOST),
        keywords=Counter(word for row in rows for word in row["keywords"] or ()).most_common(_MOST),
        themes=found,
        firms=_firms(rows, theme_of),
        without_topics=topics.without_topics(stack, ref),
    )


def _themes(stack: Stack, run: RunRef) -> tuple[Themes | None, dict[str, str]]:
    """The themes, and the name of the theme that each of the run's topics is in."""
    ref = themes.of_run(stack, run)
    if ref is None:
        return None, {}
    every = themes.read(stack, ref)["themes"]
    quarters = list(every[0]["share"]) if every else []
    new, vanished = [], []
    if len(quarters) > 1:
        before, last = quarters[-2:]
        new = [theme for theme in every if not theme["share"][before] and theme["share"][last]]
        vanished = [theme for theme in every if theme["share"][before] and not theme["share"][last]]
    names = {theme["theme_id"]: theme["name"] for theme in every}
    theme_of = {topic: names[theme] for topic, theme in themes.members(stack, ref, run.quarter).items()}
    return Themes(ref.range, quarters, every, new, vanished), theme_of


def _firms(rows: Sequence[dict[str, Any]], theme_of: Mapping[str, str]) -> list[FirmTopics]:
    by_firm: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: (row["firm_id"], row["local_topic_id"])):
        by_firm.setdefault(row["firm_id"], []).append(row)
    return [
        FirmTopics(
            firm,
            own[0]["firm_name"],
            [
                FirmTopic(row["name"], row["summary"] or "", row["n_sentences"], theme_of.get(row["topic_id"], ""))
                for row in own
            ],
        )
        for firm, own in by_firm.items()
    ]


def _rows(stack: Stack, part: str) -> list[dict[str, Any]]:
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
