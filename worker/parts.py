"""The Parquet parts: one row for each topic, with the columns of `contract.topics`."""

import io
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from contract.topics import TOPIC_COLUMNS, NamingMethod, topic_id
from worker.firm import Firm, Topic
from worker.speech import Spoken, spoken

SCHEMA = pa.schema(
    [
        pa.field("firm_id", pa.string(), nullable=False),
        pa.field("firm_name", pa.string(), nullable=False),
        pa.field("quarter", pa.string(), nullable=False),
        pa.field("permno", pa.int64()),
        pa.field("gvkey", pa.string()),
        pa.field("earnings_call_date", pa.date32()),
        pa.field("topic_id", pa.string(), nullable=False),
        pa.field("local_topic_id", pa.int32(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("summary", pa.string(), nullable=False),
        pa.field("naming_method", pa.string(), nullable=False),
        pa.field("model", pa.string()),
        pa.field("coherent", pa.bool_()),
        pa.field("keywords", pa.list_(pa.string()), nullable=False),
        pa.field("n_sentences", pa.int32(), nullable=False),
        # Null in the rows of a part that an older ftm wrote.
        pa.field("share", pa.float64()),
        pa.field("executive_share", pa.float64()),
        pa.field("analyst_share", pa.float64()),
        pa.field("prepared_share", pa.float64()),
        pa.field("qa_share", pa.float64()),
        pa.field("n_core", pa.int32()),
        pa.field("n_attached", pa.int32()),
        pa.field("sentence_ids", pa.list_(pa.string()), nullable=False),
        pa.field("sentence_cosines", pa.list_(pa.float32())),
        pa.field("processed_at", pa.timestamp("us", tz="UTC"), nullable=False),
    ]
)
Row = dict[str, Any]
"""A topic, by its columns."""

if tuple(SCHEMA.names) != TOPIC_COLUMNS:
    raise TypeError("the parts' schema differs from the contract's columns")


@dataclass(frozen=True)
class NamedTopic:
    topic: Topic
    name: str
    summary: str
    """Empty when the topic keeps its keywords as its name."""
    method: NamingMethod
    model: str | None
    """The LLM that named it."""
    coherent: bool | None = None
    """Whether the LLM says that the sentences share one subject; None when it does not say."""


def rows(firm: Firm, quarter: str, topics: Iterable[NamedTopic], processed_at: datetime) -> list[Row]:
    """One row for each topic of a firm, in the order of the topics."""
    speech = spoken(firm.sentences)
    return [
        {
            "firm_id": firm.firm_id,
            "firm_name": firm.firm_name,
            "quarter": quarter,
            "permno": firm.permno,
            "gvkey": firm.gvkey,
            "earnings_call_date": firm.earnings_call_date,
            "topic_id": topic_id(firm.firm_id, quarter, number),
            "local_topic_id": number,
            "keywords": named.topic.keywords,
            "n_sentences": len(named.topic.sentence_ids),
            **_shares(named.topic, speech),
            "sentence_ids": named.topic.sentence_ids,
            "sentence_cosines": list(named.topic.cosines),
            **name_columns(named, processed_at),
        }
        for number, named in enumerate(topics)
    ]


def name_columns(named: NamedTopic, processed_at: datetime) -> dict[str, Any]:
    """The columns of a row that a new name changes."""
    return {
        "name": named.name,
        "summary": named.summary,
        "naming_method": named.method,
        "model": named.model,
        "coherent": named.coherent,
        "processed_at": processed_at,
    }


def to_parquet(topic_rows: list[Row]) -> bytes:
    """A Parquet file of rows as `rows` returns them."""
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(topic_rows, SCHEMA), sink, compression="zstd")
    return sink.getvalue()


def from_parquet(part: bytes) -> list[Row]:
    """The rows of a Parquet file that `to_parquet` made."""
    return pq.read_table(io.BytesIO(part)).to_pylist()


def _shares(topic: Topic, speech: Mapping[str, Spoken]) -> dict[str, Any]:
    """The topic's share of the call's sentences, and the shares of speakers and sections in the topic.

    A share is null if the call does not distinguish them.
    """
    own = [speech[sentence] for sentence in topic.sentence_ids]
    roles = Counter(each.role for each in own) if any(each.role for each in speech.values()) else None
    sections = Counter(each.section for each in own) if any(each.section for each in speech.values()) else None

    def share(count: int) -> float:
        return round(count / len(own), 4)

    return {
        "share": round(len(own) / len(speech), 4),
        "executive_share": share(roles["executive"]) if roles else None,
        "analyst_share": share(roles["analyst"]) if roles else None,
        "prepared_share": share(sections["prepared"]) if sections else None,
        "qa_share": share(sections["qa"]) if sections else None,
        "n_core": len(topic.core_ids),
        "n_attached": len(own) - len(topic.core_ids),
    }
