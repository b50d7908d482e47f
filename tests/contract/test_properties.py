"""Records of any content are read as what they are, or refused with a ContractError; nothing else is raised."""

import contextlib
import gzip
import json

from hypothesis import given, settings
from hypothesis import strategies as st

from contract import ContractError
from contract.batch import BatchLine, BatchProgress, Counts, Part, State, parse_batch_line, parse_progress
from contract.layout import RunRef
from contract.prefetch import parse_prefetch_manifest
from contract.quarter import MAX_QUARTERS, check_quarter, quarters_of

QUARTERS = st.builds("{}Q{}".format, st.integers(1900, 2099), st.integers(1, 4))
TEXT = st.text(max_size=20)
NUMBERS = st.integers(0, 10**9)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
STATES: st.SearchStrategy[State] = st.sampled_from(["running", "complete", "failed"])
COUNTS = st.builds(Counts, topics=NUMBERS, named=NUMBERS, prompt_tokens=NUMBERS, requests=NUMBERS, retries=NUMBERS)
PROGRESS = st.builds(
    BatchProgress,
    batch_id=TEXT,
    run=st.builds(RunRef, QUARTERS, TEXT),
    firms=NUMBERS,
    state=STATES,
    completed=st.dictionaries(TEXT, COUNTS, max_size=3),
    skipped=st.dictionaries(TEXT, TEXT, max_size=3),
    failed=st.dictionaries(TEXT, TEXT, max_size=3),
    parts=st.dictionaries(TEXT, st.builds(Part, TEXT, NUMBERS), max_size=3),
    checkpoints=NUMBERS,
    attempts=NUMBERS,
    owner=TEXT,
    error=TEXT,
)
MANIFEST = {
    "quarter": "2023Q1",
    "created_at": "2023-04-01T00:00:00Z",
    "n_firms": 1,
    "n_chunks": 1,
    "chunk_sizes": {"chunk_0000.parquet": 1},
    "firm_to_chunk": {"F": "chunk_0000.parquet"},
}

short = settings(max_examples=60, deadline=None, database=None)


@short
@given(QUARTERS, st.integers(-3, MAX_QUARTERS + 3))
def test_a_range_holds_its_quarters_in_order_or_is_refused(first: str, more: int) -> None:
    number = int(first[:4]) * 4 + int(first[5]) - 1 + more
    last = f"{number // 4}Q{number % 4 + 1}"
    try:
        quarters = quarters_of(f"{first}..{last}")
    except ContractError:
        assert not 0 <= more < MAX_QUARTERS or not 1900 <= number // 4 <= 2099
        return
    assert (quarters[0], quarters[-1], len(quarters)) == (first, last, more + 1)
    assert sorted(set(quarters)) == quarters


@short
@given(st.text() | VALUES)
def test_what_is_read_as_a_quarter_is_one(text: object) -> None:
    with contextlib.suppress(ContractError):
        assert check_quarter(text) == text
        assert len(str(text)) == 6
        assert str(text).isascii()


@short
@given(PROGRESS)
def test_a_progress_record_is_read_as_it_was_written(progress: BatchProgress) -> None:
    assert parse_progress(progress.to_json()) == progress


@short
@given(PROGRESS, st.data())
def test_a_progress_record_with_another_value_anywhere_is_read_or_refused(
    progress: BatchProgress, data: st.DataObject
) -> None:
    record = json.loads(progress.to_json())
    record[data.draw(st.sampled_from(sorted(record)))] = data.draw(VALUES)
    with contextlib.suppress(ContractError):
        parse_progress(json.dumps(record).encode())


@short
@given(PROGRESS, st.integers(0, 10_000))
def test_a_progress_record_that_is_cut_is_refused(progress: BatchProgress, length: int) -> None:
    body = progress.to_json()
    try:
        parse_progress(body[: length % len(body)])
    except ContractError:
        return
    raise AssertionError("it was read")


@short
@given(TEXT, QUARTERS, st.lists(TEXT, max_size=5))
def test_a_line_of_a_batch_manifest_is_read_as_it_was_written(batch: str, quarter: str, firms: list[str]) -> None:
    line = BatchLine(batch, quarter, firms)
    assert parse_batch_line(line.to_json().encode()) == line


@short
@given(st.binary(max_size=200) | st.builds(lambda value: json.dumps(value).encode(), VALUES))
def test_any_bytes_are_refused_as_a_record_with_a_sentence(body: bytes) -> None:
    for read in (parse_batch_line, parse_progress, lambda body: parse_prefetch_manifest(body, "2023Q1")):
        with contextlib.suppress(ContractError):
            read(body)


@short
@given(st.sampled_from(sorted(MANIFEST)), VALUES, st.booleans())
def test_a_prefetch_manifest_with_another_value_anywhere_is_read_or_refused(
    field: str, value: object, packed: bool
) -> None:
    body = json.dumps(MANIFEST | {field: value}).encode()
    with contextlib.suppress(ContractError):
        manifest = parse_prefetch_manifest(gzip.compress(body) if packed else body, "2023Q1")
        assert set(manifest.firm_to_chunk.values()) <= manifest.chunk_sizes.keys()
