"""Firms out of a prefetch chunk: only the batch's rows are kept, in Arrow's compact form, one chunk at a time."""

from collections.abc import Iterable, Iterator
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from worker import WorkerError
from worker.firm import Firm, Sentence

_SCHEMA = pa.schema(
    [
        ("firm_id", pa.string()),
        ("firm_name", pa.string()),
        ("permno", pa.int64()),
        ("gvkey", pa.string()),
        ("transcript_id", pa.string()),
        ("earnings_call_date", pa.date32()),
        ("sentence_id", pa.string()),
        ("raw_text", pa.string()),
        ("cleaned_text", pa.string()),
        ("speaker_type", pa.string()),
        ("position", pa.int32()),
    ]
)
_ROWS_AT_ONCE = 16_384

# Arrow makes these functions at run time, where no type checker sees them.
_is_in: Any = pc.is_in  # pyright: ignore[reportAttributeAccessIssue]
_equal: Any = pc.equal  # pyright: ignore[reportAttributeAccessIssue]


def read_rows(chunk: IO[bytes], name: str, firm_ids: Iterable[str]) -> pa.Table:
    """The rows of some firms.

    Raises:
        WorkerError: when the chunk is not Parquet, lacks a column, or holds something else in one.
    """
    wanted = pa.array(firm_ids, pa.string())
    try:
        file = pq.ParquetFile(chunk)
        lacking = [column for column in _SCHEMA.names if column not in file.schema_arrow.names]
        if lacking:
            raise WorkerError(f"chunk {name} of the prefetch lacks the column {', '.join(lacking)}")
        kept = [
            _cast(batch.filter(_is_in(batch["firm_id"].cast(pa.string()), wanted)))
            for batch in file.iter_batches(_ROWS_AT_ONCE, columns=_SCHEMA.names)
        ]
    except (pa.ArrowException, OSError) as error:
        raise WorkerError(f"chunk {name} of the prefetch cannot be read as Parquet: {_first_line(error)}") from error
    return pa.Table.from_batches(kept, _SCHEMA)


def firms(rows: pa.Table, firm_ids: Iterable[str]) -> Iterator[Firm]:
    """Each firm with its sentences; one without rows has none."""
    for firm_id in firm_ids:
        yield _firm(firm_id, rows.filter(_equal(rows["firm_id"], firm_id)).to_pylist())


def _cast(batch: pa.RecordBatch) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([batch[field.name].cast(field.type) for field in _SCHEMA], schema=_SCHEMA)


def _firm(firm_id: str, rows: list[dict[str, Any]]) -> Firm:
    first = rows[0] if rows else {}
    return Firm(
        firm_id=firm_id,
        firm_name=first.get("firm_name") or firm_id,
        permno=first.get("permno"),
        gvkey=first.get("gvkey"),
        earnings_call_date=first.get("earnings_call_date"),
        sentences=[_sentence(firm_id, row, number) for number, row in enumerate(rows)],
    )


def _sentence(firm_id: str, row: dict[str, Any], number: int) -> Sentence:
    transcript, position = row["transcript_id"] or "", row["position"]
    position = number if position is None else position
    return Sentence(
        sentence_id=row["sentence_id"] or f"{firm_id}_{transcript}_{position:04d}",
        raw_text=row["raw_text"] or "",
        cleaned_text=row["cleaned_text"] or "",
        speaker_type=row["speaker_type"] or "",
        transcript_id=transcript,
        position=position,
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0].rstrip(".")
