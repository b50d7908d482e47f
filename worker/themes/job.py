"""One themes job: reads the topics, clusters them into themes, has the LLM name these, and writes the results."""

import asyncio
import hashlib
import io
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from contract import ContractError
from contract.bucket import JSON, PARQUET, Bucket
from contract.fallbacks import add_fallbacks, fallback_lines
from contract.themes import ThemeName, ThemesRecord, parse_themes_record
from llm import LlmError
from llm.client import Clock, Llm
from worker import TemporaryError, WorkerError
from worker.firm import Firm, FirmTopics, Topic
from worker.naming.namer import Namer
from worker.naming.prompt import fallback_name
from worker.parts import NamedTopic
from worker.storage import open_bucket
from worker.themes import results
from worker.themes.clustering import MIN_FIRMS, Theme, find_themes
from worker.themes.settings import Settings
from worker.themes.topics import FirmTopic, read_topics
from worker.topics.discovery import SHOWN
from worker.words import all_words

CHECKPOINT_THEMES = 40
"""Themes that are named between two checkpoints."""

MIN_NAMED_SHARE = 0.9
"""Lower than for topics, because a quarter has only some 70 themes, and the LLM finds no specific name for a few. An
LLM that gives unusable answers stays far below it. Themes without a name are marked in the results, and `ftm themes`
counts them."""


async def find_and_name_themes(settings: Settings, clock: Clock | None = None) -> ThemesRecord:
    """Write the themes of the settings' runs; names from an earlier attempt are kept.

    Raises:
        ContractError, WorkerError, LlmError: when it cannot be done, or too few themes were named.
        TemporaryError: after SIGTERM.
        S3UnavailableError: when S3 fails.
    """
    bucket = open_bucket(settings.bucket)
    record = _read_record(bucket, settings)
    if record.state == "complete":
        print(f"themes of {record.ref.range}: complete already", flush=True)
        return record
    job = _Job(bucket, record)
    with _cancelled_by_sigterm():
        try:
            await job.run(settings, clock or Clock())
        except asyncio.CancelledError:
            raise TemporaryError("the themes job was stopped by SIGTERM; another attempt continues it") from None
        except (WorkerError, ContractError, LlmError) as error:
            record.state, record.error = "failed", str(error)
            job.write_record()
            raise
    return record


class _Job:
    def __init__(self, bucket: Bucket, record: ThemesRecord) -> None:
        self._bucket = bucket
        self._record = record

    async def run(self, settings: Settings, clock: Clock) -> None:
        record = self._record
        topics = [topic for run in settings.runs for topic in await read_topics(self._bucket, run)]
        themes = await asyncio.to_thread(find_themes, topics)
        record.state, record.error, record.topics, record.themes = "running", "", len(topics), len(themes)
        if not themes:
            raise WorkerError(
                f"the {len(topics)} topics of {record.ref.range} have no theme: a theme needs like topics of at least "
                f"{MIN_FIRMS} firms"
            )
        print(f"themes of {record.ref.range}: {len(topics)} topics, {len(themes)} themes", flush=True)
        async with Llm(settings.llm, clock) as llm:
            await llm.check_model()
            await self._name(themes, topics, Namer(llm))
        self._write_results(themes, topics, list(record.quarter_runs))
        named = sum(_identity(theme, topics) in record.names for theme in themes)
        if named < MIN_NAMED_SHARE * len(themes):
            reasons = ": ".join(["", *fallback_lines(record.fallbacks)[:1]])
            raise WorkerError(
                f"the LLM named {named} of {len(themes)} themes, less than {MIN_NAMED_SHARE:.0%}{reasons}"
            )
        record.state = "complete"
        self.write_record()

    def write_record(self) -> None:
        self._record.updated_at = datetime.now(UTC).isoformat(timespec="seconds")
        self._bucket.put(self._record.ref.record_key, self._record.to_json(), JSON)

    async def _name(self, themes: Sequence[Theme], topics: Sequence[FirmTopic], namer: Namer) -> None:
        """Name the themes that have no name yet, and store the names in the record as they arrive."""
        record = self._record
        record.fallbacks = {}
        unnamed = [theme for theme in themes if _identity(theme, topics) not in record.names]
        firm_names = frozenset(" ".join(all_words(topic.firm_name)) for topic in topics)
        for start in range(0, len(unnamed), CHECKPOINT_THEMES):
            group = unnamed[start : start + CHECKPOINT_THEMES]
            members = [topics[row] for theme in group for row in theme.members]
            found = FirmTopics(
                [_as_topic(theme, topics) for theme in group],
                names=firm_names,
                call_words=frozenset(word for topic in members for text in topic.sentences for word in all_words(text)),
            )
            taken = [name["name"] for name in record.names.values()]
            named, counts = await namer.name(_ALL_FIRMS, found, taken=taken)
            for theme, topic in zip(group, named, strict=True):
                if topic.model:
                    record.names[_identity(theme, topics)] = ThemeName(
                        name=topic.name, summary=topic.summary, model=topic.model
                    )
            record.prompt_tokens += counts.prompt_tokens
            record.completion_tokens += counts.completion_tokens
            record.fallbacks = add_fallbacks(record.fallbacks, counts.fallbacks)
            self.write_record()
            print(f"themes of {record.ref.range}: {len(record.names)} of {len(themes)} named by the LLM", flush=True)

    def _write_results(self, themes: Sequence[Theme], topics: Sequence[FirmTopic], quarters: Sequence[str]) -> None:
        ref = self._record.ref
        named = [self._named(theme, topics) for theme in themes]
        for key, rows, schema in (
            (ref.theme_topics_key, results.theme_topic_rows(themes, topics), results.THEME_TOPICS_SCHEMA),
            (ref.themes_key, results.theme_rows(themes, named, topics, quarters), results.THEMES_SCHEMA),
        ):
            sink = io.BytesIO()
            pq.write_table(pa.Table.from_pylist(rows, schema), sink, compression="zstd")
            self._bucket.put(key, sink.getvalue(), PARQUET)

    def _named(self, theme: Theme, topics: Sequence[FirmTopic]) -> NamedTopic:
        topic, name = _as_topic(theme, topics), self._record.names.get(_identity(theme, topics))
        if name is None:
            return NamedTopic(topic, fallback_name(topic.keywords), "", "keywords", None)
        return NamedTopic(topic, name["name"], name["summary"], "llm", name["model"])


_ALL_FIRMS = Firm(firm_id="", firm_name="", permno=None, gvkey=None, earnings_call_date=None, sentences=[])
"""A theme belongs to no firm."""


def _read_record(bucket: Bucket, settings: Settings) -> ThemesRecord:
    """The record of earlier attempts, or a new one."""
    found = bucket.get(settings.themes.record_key)
    if found:
        try:
            return parse_themes_record(found.body)
        except ContractError as error:
            print(f"themes of {settings.themes.range}: starts from the beginning, because {error}", flush=True)
    return ThemesRecord(settings.themes, {run.quarter: run.run for run in settings.runs})


def _identity(theme: Theme, topics: Sequence[FirmTopic]) -> str:
    members = sorted(f"{topics[row].quarter} {topics[row].topic_id}" for row in theme.members)
    return hashlib.sha256("\n".join(members).encode()).hexdigest()[:16]


def _as_topic(theme: Theme, topics: Sequence[FirmTopic]) -> Topic:
    """The theme in the form of a topic for the LLM: its nearest topics, each of a different firm, are its sentences."""
    shown: dict[str, str] = {}
    for row in theme.members:
        topic = topics[row]
        if topic.firm_id not in shown and len(shown) < SHOWN:
            named = f"{topic.name}: {topic.summary}" if topic.name else ", ".join(topic.keywords)
            shown[topic.firm_id] = named
    return Topic(keywords=theme.keywords, sentence_ids=[], shown=list(shown.values()))


@contextmanager
def _cancelled_by_sigterm() -> Iterator[None]:
    task: Any = asyncio.current_task()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
