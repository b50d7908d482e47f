"""The topic names of a quarter, read from a Parquet file: one side of a comparison."""

# pyright: basic
# pyarrow has no types; the interface of this module is typed.

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract.exit_codes import ExitCode
from contract.topics import NAME_COLUMNS
from evaluation import EvaluationError


@dataclass(frozen=True)
class NamedTopic:
    firm_id: str
    firm_name: str
    topic_id: str
    name: str
    summary: str
    is_fallback: bool
    """Whether it has its keywords instead of a name."""
    sentence_ids: frozenset[str]


@dataclass(frozen=True)
class TopicNames:
    """All named topics of one run, or of one file that `ftm name` wrote."""

    source: str
    """The run id or the file, as the operator wrote it."""
    models: Sequence[str]
    topics: Sequence[NamedTopic]


def read_topic_names(path: Path, source: str, quarter: str) -> TopicNames:
    """The topic names in a Parquet file.

    Args:
        source: what error messages and results call it.

    Raises:
        EvaluationError: when the file is not Parquet, is of another quarter, or has no topics that can be compared.
    """
    rows = _read_rows(path, source)
    if not rows:
        raise EvaluationError(f"{source} holds no topics", ExitCode.NOT_FOUND)
    if others := {str(row["quarter"]) for row in rows} - {quarter}:
        raise EvaluationError(f"{source} names topics of {sorted(others)[0]}, not of {quarter}", ExitCode.USAGE)
    models = sorted({str(row["model"]) for row in rows if row["model"]})
    return TopicNames(source, models, [_topic(source, row) for row in rows])


def _read_rows(path: Path, source: str) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        missing = [column for column in NAME_COLUMNS if column not in pq.read_schema(path).names]
        if missing:
            raise EvaluationError(f"{source} lacks the column {', '.join(missing)}", ExitCode.USAGE)
        return pq.ParquetFile(path).read(columns=list(NAME_COLUMNS)).to_pylist()
    except (pa.ArrowException, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise EvaluationError(f"{source} is not a readable Parquet file: {reason}", ExitCode.USAGE) from error


def _topic(source: str, row: Mapping[str, Any]) -> NamedTopic:
    for column in ("firm_id", "topic_id", "name"):
        if row[column] is None:
            sentence = f"{source}: the topic {row['topic_id']} of the firm {row['firm_id']} has no {column}"
            raise EvaluationError(sentence, ExitCode.USAGE)
    ids = row["sentence_ids"]
    if not isinstance(ids, list):
        sentence = f"{source}: the column sentence_ids of the topic {row['topic_id']} is not a list of sentence ids"
        raise EvaluationError(sentence, ExitCode.USAGE)
    return NamedTopic(
        firm_id=str(row["firm_id"]),
        firm_name=str(row["firm_name"] or ""),
        topic_id=str(row["topic_id"]),
        name=str(row["name"]),
        summary=str(row["summary"] or ""),
        is_fallback=row["naming_method"] != "llm",
        sentence_ids=frozenset(map(str, ids)),
    )
