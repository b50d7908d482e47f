"""Writes the files of an export. docs/data.md describes their columns.

A firm's sentences are read from the prefetch chunk by chunk, and rows are written as they come.
"""

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from contract.batch import BatchProgress
from contract.bucket import Bucket, read_batch_manifest, read_progress
from contract.layout import RunRef
from contract.themes import ThemesRef
from worker import WorkerError, parts
from worker.export.links import Link, link
from worker.export.writer import FileWriter
from worker.firm import Firm
from worker.prefetch import Unreadable, read_firms
from worker.speech import spoken
from worker.storage import open_bucket, read

Kind = Literal["topics", "sentences", "sentiment"]

_LINK = [pa.field("previous_topic_id", pa.string()), pa.field("previous_cosine", pa.float64())]
TOPICS_SCHEMA = pa.schema([*parts.SCHEMA, *_LINK])

_FIRM = [parts.SCHEMA.field(name) for name in ("firm_id", "firm_name", "permno", "gvkey", "earnings_call_date")]
_SENTENCE = [
    pa.field("sentence_id", pa.string(), nullable=False),
    pa.field("text", pa.string(), nullable=False),
    pa.field("speaker_type", pa.string(), nullable=False),
    pa.field("role", pa.string()),
    pa.field("section", pa.string()),
    pa.field("position", pa.int32(), nullable=False),
    pa.field("cosine", pa.float64()),
]
SENTENCES_SCHEMA = pa.schema(
    [
        *_FIRM,
        pa.field("quarter", pa.string(), nullable=False),
        pa.field("transcript_id", pa.string(), nullable=False),
        *_SENTENCE,
        pa.field("topic_id", pa.string()),
        pa.field("topic_name", pa.string()),
        pa.field("skipped", pa.string()),
    ]
)
SENTIMENT_SCHEMA = pa.schema(
    [
        pa.field("theme_id", pa.string(), nullable=False),
        pa.field("theme_name", pa.string(), nullable=False),
        *_FIRM,
        pa.field("quarter", pa.string(), nullable=False),
        pa.field("topic_id", pa.string(), nullable=False),
        pa.field("topic_name", pa.string(), nullable=False),
        pa.field("similarity", pa.float64(), nullable=False),
        pa.field("n_sentences", pa.int32(), nullable=False),
        pa.field("share", pa.float64()),
        pa.field("sentences", pa.list_(pa.struct(_SENTENCE)), nullable=False),
    ]
)
SKIPPED_SCHEMA = pa.schema(
    [
        pa.field("firm_id", pa.string(), nullable=False),
        pa.field("quarter", pa.string(), nullable=False),
        pa.field("outcome", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
    ]
)
SCHEMAS: Mapping[Kind, pa.Schema] = {
    "topics": TOPICS_SCHEMA,
    "sentences": SENTENCES_SCHEMA,
    "sentiment": SENTIMENT_SCHEMA,
}

Row = dict[str, Any]

_compute: Any = pc


@dataclass(frozen=True)
class Request:
    bucket: str
    run: RunRef
    previous: RunRef | None
    """The run of the quarter before whose topics the topics are linked to."""
    kind: Kind
    themes: ThemesRef | None
    """Whose themes `sentiment` is about."""
    topic_ids: list[str] | None
    """Only these topics, for `topics`; None for all."""
    firm_id: str | None
    path: Path


class Exported(TypedDict):
    rows: int
    linked: int
    """Topics that are linked to one of the quarter before."""


async def export(request: Request) -> Exported:
    """Write the requested file, and beside it one of the firms without topics. An unfinished file never appears.

    Raises:
        WorkerError, ContractError: when there is no such run, or something of it is missing.
        S3UnavailableError: when S3 fails.
        OSError: when the file cannot be written.
    """
    bucket = open_bucket(request.bucket)
    run = _Run(bucket, request.run, request.firm_id)
    with FileWriter(_beside(request.path), SKIPPED_SCHEMA) as skipped:
        skipped.write(run.without_topics())
    with FileWriter(request.path, SCHEMAS[request.kind]) as file:
        linked = 0
        match request.kind:
            case "topics":
                links = await _links(bucket, run, request.previous) if request.previous else {}
                wanted = None if request.topic_ids is None else set(request.topic_ids)
                for row in run.rows():
                    if wanted is None or row["topic_id"] in wanted:
                        found = links.get(row["topic_id"])
                        linked += found is not None
                        file.write([row | _link_columns(found)])
            case "sentences":
                async for firm in _firms(bucket, run.ref, run.processed):
                    file.write(_sentence_rows(firm, run))
            case "sentiment":
                if request.themes is None:
                    raise WorkerError("no themes run is named")
                themes = _Themes(bucket, request.themes, request.run.quarter)
                async for firm in _firms(bucket, run.ref, list(run.topics)):
                    file.write(_theme_rows(firm, run, themes))
    return {"rows": file.rows, "linked": linked}


def _beside(path: Path) -> Path:
    """The file of the firms without topics: `topics.skipped.parquet` beside `topics.parquet`."""
    return path.with_suffix(f".skipped{path.suffix}")


class _Run:
    """The firms of a run and their topics, in Arrow's compact form."""

    def __init__(self, bucket: Bucket, ref: RunRef, firm_id: str | None) -> None:
        self.ref = ref
        lines = read_batch_manifest(bucket, ref)
        records = [record for line in lines if (record := read_progress(bucket, ref, line.batch_id))]
        self._records: Sequence[BatchProgress] = records
        self._firm_id = firm_id
        self.skipped = {firm: reason for record in records for firm, reason in record.skipped.items()}
        tables = [_read_part(bucket, key) for record in records for key in record.parts]
        table = pa.concat_tables(tables) if tables else parts.SCHEMA.empty_table()
        if firm_id is not None:
            table = table.filter(_compute.equal(table["firm_id"], firm_id))
        table = table.sort_by([("firm_id", "ascending"), ("local_topic_id", "ascending")])
        self.topics: dict[str, pa.Table] = {}
        start = 0
        for firm in _compute.value_counts(table["firm_id"]).to_pylist():
            self.topics[firm["values"]] = table.slice(start, firm["counts"])
            start += firm["counts"]

    @property
    def processed(self) -> list[str]:
        """The firms that are completed or skipped, in the order of the batches."""
        done = (firm for record in self._records for firm in (*record.completed, *record.skipped))
        return [firm for firm in done if self._firm_id in (None, firm)]

    def topics_of(self, firm_id: str) -> list[Row]:
        return self.topics[firm_id].to_pylist() if firm_id in self.topics else []

    def rows(self) -> Iterator[Row]:
        for firm_id in self.topics:
            yield from self.topics_of(firm_id)

    def without_topics(self) -> list[dict[str, str]]:
        """The firms that were skipped, or have failed, with the reason."""
        return [
            {"firm_id": firm, "quarter": self.ref.quarter, "outcome": outcome, "reason": reason}
            for record in self._records
            for outcome, firms in (("skipped", record.skipped), ("failed", record.failed))
            for firm, reason in firms.items()
            if self._firm_id in (None, firm)
        ]


def _read_part(bucket: Bucket, key: str) -> pa.Table:
    """A part; a column that an older ftm did not write is null."""
    table = pq.read_table(pa.BufferReader(read(bucket, key, "a part of the run")))
    arrays = [
        table[field.name].cast(field.type) if field.name in table.column_names else pa.nulls(len(table), field.type)
        for field in parts.SCHEMA
    ]
    return pa.table(arrays, parts.SCHEMA)


async def _firms(bucket: Bucket, run: RunRef, firm_ids: Iterable[str]) -> AsyncIterator[Firm]:
    async for firm in read_firms(bucket, run.quarter, firm_ids):
        if isinstance(firm, Unreadable):
            raise WorkerError(f"the sentences of {firm.firm_id} in {run.quarter} cannot be read: {firm.reason}")
        yield firm


async def _links(bucket: Bucket, run: _Run, previous: RunRef) -> dict[str, Link]:
    """Topic id -> the topic of the firm's call in the quarter before that it continues."""
    before = _Run(bucket, previous, None)
    texts: dict[str, dict[str, str]] = {}
    async for firm in _firms(bucket, previous, [firm for firm in before.topics if firm in run.topics]):
        texts[firm.firm_id] = _texts(firm, before.topics_of(firm.firm_id))
    found: dict[str, Link] = {}
    async for firm in _firms(bucket, run.ref, list(texts)):
        found |= link(_texts(firm, run.topics_of(firm.firm_id)), texts[firm.firm_id])
    return found


def _texts(firm: Firm, topics: Sequence[Row]) -> dict[str, str]:
    """Topic id -> the words of its sentences."""
    words = {sentence.sentence_id: sentence.cleaned_text for sentence in firm.sentences}
    return {row["topic_id"]: " ".join(words.get(each, "") for each in row["sentence_ids"]) for row in topics}


def _link_columns(found: Link | None) -> dict[str, Any]:
    return {"previous_topic_id": found and found.topic_id, "previous_cosine": found and found.cosine}


def _sentence_rows(firm: Firm, run: _Run) -> list[Row]:
    """All sentences of a firm in the order of the call, also those without a topic."""
    topics = run.topics_of(firm.firm_id)
    topic_of = {each: row for row in topics for each in row["sentence_ids"]}
    skipped = run.skipped.get(firm.firm_id)
    rows: list[Row] = []
    for sentence in _sentences(firm, topics).values():
        topic = topic_of.get(sentence["sentence_id"])
        rows.append(
            _firm_columns(firm)
            | {"quarter": run.ref.quarter, "skipped": skipped}
            | sentence
            | {"topic_id": topic and topic["topic_id"], "topic_name": topic and topic["name"]}
        )
    return rows


def _sentences(firm: Firm, topics: Sequence[Row]) -> dict[str, Row]:
    """Each sentence once, by its id, in the order of the call."""
    speech = spoken(firm.sentences)
    cosines = {
        sentence: round(cosine, 4)
        for row in topics
        for sentence, cosine in zip(row["sentence_ids"], row["sentence_cosines"] or (), strict=False)
    }
    ordered = sorted(firm.sentences, key=lambda each: (each.transcript_id, each.position, each.sentence_id))
    return {
        each.sentence_id: {
            "sentence_id": each.sentence_id,
            "transcript_id": each.transcript_id,
            "text": each.raw_text,
            "speaker_type": each.speaker_type,
            "role": speech[each.sentence_id].role,
            "section": speech[each.sentence_id].section,
            "position": each.position,
            "cosine": cosines.get(each.sentence_id),
        }
        for each in ordered
    }


class _Themes:
    """The themes of a themes run, by the topics of one quarter."""

    def __init__(self, bucket: Bucket, ref: ThemesRef, quarter: str) -> None:
        themes = _read_rows(bucket, ref.themes_key, ["theme_id", "name"])
        self.names = {row["theme_id"]: row["name"] for row in themes}
        members = _read_rows(bucket, ref.theme_topics_key, ["theme_id", "topic_id", "quarter", "similarity"])
        self.members = {row["topic_id"]: row for row in members if row["quarter"] == quarter}


def _read_rows(bucket: Bucket, key: str, columns: list[str]) -> list[Row]:
    return pq.read_table(pa.BufferReader(read(bucket, key, "a file of the themes run")), columns=columns).to_pylist()


def _theme_rows(firm: Firm, run: _Run, themes: _Themes) -> list[Row]:
    """The firm's topics that are in a theme, each with its sentences."""
    topics = run.topics_of(firm.firm_id)
    sentences = _sentences(firm, topics)
    return [
        _firm_columns(firm)
        | {
            "theme_id": member["theme_id"],
            "theme_name": themes.names[member["theme_id"]],
            "quarter": run.ref.quarter,
            "topic_id": row["topic_id"],
            "topic_name": row["name"],
            "similarity": member["similarity"],
            "n_sentences": row["n_sentences"],
            "share": row["share"],
            "sentences": [
                {field.name: sentences[each][field.name] for field in _SENTENCE}
                for each in row["sentence_ids"]
                if each in sentences
            ],
        }
        for row in topics
        if (member := themes.members.get(row["topic_id"]))
    ]


def _firm_columns(firm: Firm) -> dict[str, Any]:
    return {field.name: getattr(firm, field.name) for field in _FIRM}
