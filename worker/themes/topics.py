"""Reads the topics of successful runs, with the texts of their sentences."""

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from contract.bucket import Bucket, read_batch_manifest, read_progress
from contract.layout import RunRef
from worker import WorkerError
from worker.prefetch import Unreadable, read_firms
from worker.storage import read

_COLUMNS = [
    "firm_id",
    "firm_name",
    "quarter",
    "permno",
    "gvkey",
    "earnings_call_date",
    "topic_id",
    "name",
    "summary",
    "naming_method",
    "keywords",
    "sentence_ids",
]


@dataclass(frozen=True)
class FirmTopic:
    """A topic of a firm's call in one quarter, with what themes need of it."""

    topic_id: str
    firm_id: str
    firm_name: str
    quarter: str
    permno: int | None
    gvkey: str | None
    earnings_call_date: date | None
    name: str
    """Empty, as is the summary, when the LLM did not name it."""
    summary: str
    keywords: Sequence[str]
    n_sentences: int
    sentences: Sequence[str]
    """The cleaned texts of its sentences."""


async def read_topics(bucket: Bucket, run: RunRef) -> list[FirmTopic]:
    """The topics of a run, by firm and topic.

    Raises:
        WorkerError, ContractError: when the run is not complete, or its parts or its prefetch cannot be read.
        S3UnavailableError: when S3 fails.
    """
    by_firm: dict[str, list[dict[str, Any]]] = {}
    for row in _rows(bucket, run):
        by_firm.setdefault(row["firm_id"], []).append(row)
    topics: list[FirmTopic] = []
    async for firm_id, texts in _sentences(bucket, run.quarter, sorted(by_firm)):
        topics += [_topic(row, texts) for row in sorted(by_firm[firm_id], key=lambda row: row["local_topic_id"])]
    return sorted(topics, key=lambda topic: topic.firm_id)


def _rows(bucket: Bucket, run: RunRef) -> Iterator[dict[str, Any]]:
    for line in read_batch_manifest(bucket, run):
        progress = read_progress(bucket, run, line.batch_id)
        if progress is None or progress.state != "complete":
            raise WorkerError(f"run {run.run} of {run.quarter} is not complete: {line.batch_id} has no complete result")
        for key in progress.parts:
            body = read(bucket, key, f"a part of {line.batch_id}")
            yield from pq.read_table(pa.BufferReader(body), columns=[*_COLUMNS, "local_topic_id"]).to_pylist()


async def _sentences(bucket: Bucket, quarter: str, firm_ids: list[str]) -> AsyncIterator[tuple[str, dict[str, str]]]:
    """Each firm with the cleaned texts of its sentences, by their ids."""
    async for firm in read_firms(bucket, quarter, firm_ids):
        if isinstance(firm, Unreadable):
            raise WorkerError(f"the sentences of {firm.firm_id} in {quarter} cannot be read: {firm.reason}")
        yield firm.firm_id, {sentence.sentence_id: sentence.cleaned_text for sentence in firm.sentences}


def _topic(row: dict[str, Any], texts: dict[str, str]) -> FirmTopic:
    named = row["naming_method"] == "llm"
    return FirmTopic(
        topic_id=row["topic_id"],
        firm_id=row["firm_id"],
        firm_name=row["firm_name"],
        quarter=row["quarter"],
        permno=row["permno"],
        gvkey=row["gvkey"],
        earnings_call_date=row["earnings_call_date"],
        name=row["name"] if named else "",
        summary=row["summary"] if named else "",
        keywords=row["keywords"],
        n_sentences=len(row["sentence_ids"]),
        sentences=[texts[each] for each in row["sentence_ids"] if each in texts],
    )
