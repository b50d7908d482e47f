"""Checks a prefetch on this machine with the reader of the Batch job: `ftm prefetch put` starts
`python -m worker.check_prefetch QUARTER FOLDER`.

Prints `{"sentences": N, "notes": [...]}`, or `{"error": "..."}` with exit code 2.
"""

import json
import sys
from pathlib import Path
from typing import Any, TypedDict

import pyarrow as pa
import pyarrow.compute as pc

from contract import ContractError
from contract.prefetch import PrefetchManifest, parse_prefetch_manifest
from worker import WorkerError, sentences
from worker.sentences import Problem, Sentences

# Arrow creates its functions at run time, where the type checker does not see them.
_compute: Any = pc


_WITHOUT_TEXT = {"raw_text": "the LLM is shown cleaned_text", "cleaned_text": "no topics can be found"}
"""What a job does with a firm that has no text in one of these columns."""


class Checked(TypedDict):
    sentences: int
    notes: list[str]
    """The values that the job reads differently than they are written, one sentence per column."""


def check(quarter: str, folder: Path) -> Checked:
    """Read every chunk that the folder's manifest names.

    Raises:
        WorkerError, ContractError: when the manifest is broken, or a firm cannot be read, with file and reason.
    """
    manifest = parse_prefetch_manifest((folder / "manifest.json").read_bytes(), quarter)
    nulled: dict[str, Problem] = {}
    renamed: dict[str, None] = {}
    ids: dict[str, pa.ChunkedArray] = {}
    padded = count = 0
    with_text: dict[str, set[str]] = {column: set() for column in _WITHOUT_TEXT}
    for chunk in manifest.chunk_sizes:
        found = _read(folder / chunk, manifest)
        count += found.table.num_rows
        padded += found.padded
        ids[chunk] = found.table["sentence_id"]
        renamed |= dict.fromkeys(found.renamed)
        for problem in found.nulled:
            if problem.column in nulled:
                nulled[problem.column].merge(problem)
            else:
                nulled[problem.column] = problem
        for column in _WITHOUT_TEXT:
            with_text[column] |= _firms_with_text(found.table, column)
    if empty := [column for column, firms in with_text.items() if not firms]:
        raise WorkerError(f"{folder}: {empty[0]} is empty in all of the {count:,} rows")
    _check_sentence_ids(folder, ids)
    notes = [f"{problem}: read as missing" for problem in nulled.values()]
    if renamed:
        notes.append(f"the case of column names is ignored: {', '.join(renamed)}")
    for column, effect in _WITHOUT_TEXT.items():
        if without := [firm for firm in manifest.firm_ids if firm not in with_text[column]]:
            notes.append(f"{column} is empty for {_number(len(without), 'firm')}, the first is {without[0]}: {effect}")
    if padded:
        notes.append(f"gvkey: {padded:,} {'value is' if padded == 1 else 'values are'} padded to six digits")
    return {"sentences": count, "notes": notes}


def _read(path: Path, manifest: PrefetchManifest) -> Sentences:
    if path.is_dir():
        raise WorkerError(
            f"{path} is a folder, as Spark writes a table: make the prefetch from it with `ftm prefetch make`, or name "
            "the files in it as the manifest's chunks"
        )
    if not path.is_file():
        raise WorkerError(f"{path} is missing, though the manifest names it")
    try:
        found = sentences.read(path, path.name)
    except WorkerError as error:
        raise WorkerError(f"{error} ({path})") from error
    if found.unreadable:
        raise WorkerError(f"{path}: {found.unreadable[0]}")
    _check_quarter(path, found.table, manifest.quarter)
    _check_firms(path, found.table, manifest)
    return found


def _check_quarter(path: Path, table: pa.Table, quarter: str) -> None:
    column = table["quarter"]
    others = sorted(set(column.unique().to_pylist()) - {None, quarter, quarter[-2:]})
    if others:
        row = _compute.index(column, others[0]).as_py()
        raise WorkerError(
            f"{path} holds sentences of {others[0]}, not only of {quarter}: quarter in row {row + 1} "
            f"({table['firm_id'][row]})"
        )


def _check_firms(path: Path, table: pa.Table, manifest: PrefetchManifest) -> None:
    without = _compute.index(table["firm_id"].is_null(), True).as_py()
    if without >= 0:
        count = table["firm_id"].null_count
        raise WorkerError(
            f"{path}: firm_id is missing in {_number(count, 'row')}, first in row {without + 1} "
            f"(sentence {table['sentence_id'][without]})"
        )
    firms = set(table["firm_id"].unique().to_pylist())
    promised = {firm for firm, name in manifest.firm_to_chunk.items() if name == path.name}
    if absent := sorted(promised - firms):
        raise WorkerError(
            f"{path} lacks {_number(len(absent), 'firm')} that the manifest puts there, the first is {absent[0]}"
        )
    if extra := sorted(firms - promised):
        row = _compute.index(table["firm_id"], extra[0]).as_py()
        raise WorkerError(
            f"{path} holds {_number(len(extra), 'firm')} that the manifest puts elsewhere, the first is {extra[0]} "
            f"in row {row + 1}"
        )
    if manifest.chunk_sizes[path.name] != len(firms):
        raise WorkerError(
            f"{path} holds {_number(len(firms), 'firm')}, but chunk_sizes says {manifest.chunk_sizes[path.name]}"
        )


def _check_sentence_ids(folder: Path, ids: dict[str, pa.ChunkedArray]) -> None:
    """Check that no sentence id is repeated in the quarter; the jobs make ids that are missing."""
    every = pa.chunked_array([part for column in ids.values() for part in column.chunks], pa.string())
    counts: Any = every.value_counts()
    often = _compute.and_(_compute.greater(counts.field("counts"), 1), _compute.greater(counts.field("values"), ""))
    repeated = counts.filter(often).field("values").to_pylist()
    if not repeated:
        return
    places = [
        f"{chunk} row {row + 1}"
        for chunk, column in ids.items()
        for row in _compute.indices_nonzero(_compute.equal(column, repeated[0])).to_pylist()
    ]
    raise WorkerError(
        f"{folder}: sentence_id: {_number(len(repeated), 'value')} used more than once, "
        f"first {repeated[0]!r} ({places[0]} and {places[1]})"
    )


def _firms_with_text(table: pa.Table, column: str) -> set[str]:
    """Without firms whose texts are null, empty, or what programs write for that, such as "nan"."""
    texts = _compute.utf8_lower(_compute.utf8_trim_whitespace(table[column].drop_null()))
    missing = _compute.is_in(texts, pa.array(sorted(sentences.MISSING)))
    firms = table["firm_id"].filter(table[column].is_valid())
    return set(firms.filter(_compute.invert(missing)).unique().to_pylist())


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def main() -> int:
    quarter, folder = sys.argv[1:]
    try:
        print(json.dumps(check(quarter, Path(folder))))
    except (WorkerError, ContractError) as error:
        print(json.dumps({"error": str(error)}))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
