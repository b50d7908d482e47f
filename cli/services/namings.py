"""A naming of a quarter: the topics of a run or of a file, with their sentences, to be held against another."""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from cli.errors import NotFoundError, UsageError
from cli.services import parquet, prefetch, topics
from cli.stack import Stack
from contract import ContractError, layout
from contract.layout import check_run

_COLUMNS = (
    "firm_id",
    "firm_name",
    "quarter",
    "topic_id",
    "local_topic_id",
    "name",
    "summary",
    "naming_method",
    "model",
    "keywords",
    "sentence_ids",
)


@dataclass(frozen=True)
class NamedTopic:
    firm_id: str
    firm_name: str
    topic_id: str
    name: str
    summary: str
    is_fallback: bool
    """Whether it carries its keywords instead of a name."""
    sentence_ids: frozenset[str]


@dataclass(frozen=True)
class Naming:
    source: str
    """The run, or the file."""
    models: Sequence[str]
    topics: Sequence[NamedTopic]


def of_run(stack: Stack, quarter: str, run: str) -> Naming:
    """The naming that a run has left.

    Raises:
        NotFoundError: when there is no such run.
    """
    return _naming(run, topics.rows(stack, quarter, run, _COLUMNS))


def of_run_or_file(stack: Stack, quarter: str, source: str) -> Naming:
    """The naming of a run id, or of a Parquet file such as `ftm name` writes.

    Raises:
        UsageError: when `source` is neither, or the file is of another quarter or holds no topics that can be compared.
        NotFoundError: when there is no such run.
    """
    path = Path(source)
    if path.is_file():
        rows = parquet.read_rows(path.read_bytes(), _COLUMNS, None, str(path))
        if others := {str(row["quarter"]) for row in rows} - {quarter}:
            raise UsageError(f"{path} names topics of {sorted(others)[0]}, not of {quarter}")
        return _naming(source, rows)
    try:
        return of_run(stack, quarter, check_run(source))
    except ContractError as error:
        raise UsageError(f"{source} is neither a file nor a run such as 20230405_101500") from error


def sentences(stack: Stack, quarter: str, ids: Iterable[str], firms: Iterable[str]) -> dict[str, str]:
    """The texts of sentences of some firms, by sentence id; what the prefetch does not hold is left out."""
    wanted, bucket = set(ids), stack.output("bucket")
    manifest = prefetch.of_stack(stack, quarter)
    chunks = sorted({manifest.firm_to_chunk[firm] for firm in firms if firm in manifest.firm_to_chunk})
    texts: dict[str, str] = {}
    for chunk in chunks:
        key = layout.chunk_key(quarter, chunk)
        body = stack.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        for row in parquet.read_rows(body, ("sentence_id", "raw_text"), None, f"s3://{bucket}/{key}"):
            if row["sentence_id"] in wanted:
                texts[row["sentence_id"]] = row["raw_text"] or ""
    return texts


def sample_firms(stack: Stack, quarter: str, count: int) -> list[str]:
    """The same `count` firms of the quarter's prefetch each time, picked at random.

    Raises:
        NotFoundError: when the quarter has no prefetch.
    """
    firms = sorted(prefetch.of_stack(stack, quarter).firm_to_chunk)
    return sorted(random.Random(quarter).sample(firms, min(count, len(firms))))  # noqa: S311 (nothing to guess)


def _naming(source: str, rows: Sequence[Mapping[str, object]]) -> Naming:
    if not rows:
        raise NotFoundError(f"{source} holds no topics")
    models = sorted({str(row["model"]) for row in rows if row["model"]})
    return Naming(source, models, [_topic(source, row) for row in rows])


def _topic(source: str, row: Mapping[str, object]) -> NamedTopic:
    for column in ("firm_id", "topic_id", "name"):
        if row[column] is None:
            raise UsageError(f"{source}: the topic {row['topic_id']} of the firm {row['firm_id']} has no {column}")
    ids = row["sentence_ids"]
    if not isinstance(ids, list):
        raise UsageError(f"{source}: the column sentence_ids of the topic {row['topic_id']} is no list of sentence ids")
    return NamedTopic(
        firm_id=str(row["firm_id"]),
        firm_name=str(row["firm_name"] or ""),
        topic_id=str(row["topic_id"]),
        name=str(row["name"]),
        summary=str(row["summary"] or ""),
        is_fallback=row["naming_method"] != "llm",
        sentence_ids=frozenset(map(str, cast(list[object], ids))),
    )
