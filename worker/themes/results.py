"""The two files of a themes run: one row per theme, and one row per topic that belongs to a theme."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from worker.parts import NamedTopic
from worker.themes.clustering import Theme
from worker.themes.topics import FirmTopic

THEMES_SCHEMA = pa.schema(
    [
        pa.field("theme_id", pa.string(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("summary", pa.string(), nullable=False),
        pa.field("naming_method", pa.string(), nullable=False),
        pa.field("model", pa.string()),
        pa.field("keywords", pa.list_(pa.string()), nullable=False),
        pa.field("n_firms", pa.int32(), nullable=False),
        pa.field("n_topics", pa.int32(), nullable=False),
        pa.field(
            "quarters",
            pa.list_(
                pa.struct(
                    [
                        pa.field("quarter", pa.string(), nullable=False),
                        pa.field("n_topics", pa.int32(), nullable=False),
                        pa.field("share", pa.float64(), nullable=False),
                        pa.field("change", pa.float64()),
                    ]
                )
            ),
            nullable=False,
        ),
    ]
)
"""`share` is the theme's share of the sentences of all topics of the quarter; `change` is its difference to the quarter
before, null in the first quarter."""

THEME_TOPICS_SCHEMA = pa.schema(
    [
        pa.field("theme_id", pa.string(), nullable=False),
        pa.field("topic_id", pa.string(), nullable=False),
        pa.field("firm_id", pa.string(), nullable=False),
        pa.field("firm_name", pa.string(), nullable=False),
        pa.field("permno", pa.int64()),
        pa.field("gvkey", pa.string()),
        pa.field("earnings_call_date", pa.date32()),
        pa.field("quarter", pa.string(), nullable=False),
        pa.field("similarity", pa.float64(), nullable=False),
    ]
)
"""`similarity` is the cosine of the topic to its theme's centroid."""


def theme_id(number: int) -> str:
    """The id of a run's theme, counted from 0, the largest theme first: `theme_0000`."""
    return f"theme_{number:04d}"


def theme_rows(
    themes: Sequence[Theme], named: Sequence[NamedTopic], topics: Sequence[FirmTopic], quarters: Sequence[str]
) -> list[dict[str, Any]]:
    """One row per theme, as THEMES_SCHEMA describes it."""
    totals: Counter[str] = Counter()
    for topic in topics:
        totals[topic.quarter] += topic.n_sentences
    return [
        {
            "theme_id": theme_id(number),
            "name": name.name,
            "summary": name.summary,
            "naming_method": name.method,
            "model": name.model,
            "keywords": theme.keywords,
            "n_firms": len({topics[row].firm_id for row in theme.members}),
            "n_topics": len(theme.members),
            "quarters": _by_quarter([topics[row] for row in theme.members], totals, quarters),
        }
        for number, (theme, name) in enumerate(zip(themes, named, strict=True))
    ]


def theme_topic_rows(themes: Sequence[Theme], topics: Sequence[FirmTopic]) -> list[dict[str, Any]]:
    """One row per topic in a theme, as THEME_TOPICS_SCHEMA describes it: by theme, the most similar topic first."""
    return [
        {
            "theme_id": theme_id(number),
            "topic_id": topics[row].topic_id,
            "firm_id": topics[row].firm_id,
            "firm_name": topics[row].firm_name,
            "permno": topics[row].permno,
            "gvkey": topics[row].gvkey,
            "earnings_call_date": topics[row].earnings_call_date,
            "quarter": topics[row].quarter,
            "similarity": round(similarity, 4),
        }
        for number, theme in enumerate(themes)
        for row, similarity in zip(theme.members, theme.similarities, strict=True)
    ]


def _by_quarter(members: Sequence[FirmTopic], totals: Counter[str], quarters: Sequence[str]) -> list[dict[str, Any]]:
    sentences: defaultdict[str, int] = defaultdict(int)
    count: Counter[str] = Counter()
    for topic in members:
        sentences[topic.quarter] += topic.n_sentences
        count[topic.quarter] += 1
    rows: list[dict[str, Any]] = []
    for quarter in quarters:
        share = round(sentences[quarter] / totals[quarter], 6) if totals[quarter] else 0.0
        change = round(share - rows[-1]["share"], 6) if rows else None
        rows.append({"quarter": quarter, "n_topics": count[quarter], "share": share, "change": change})
    return rows
