"""The records that packages exchange: they can be written and read back, and invalid ones are rejected."""

import gzip
import json
from datetime import UTC, datetime, timedelta, timezone

import pytest

from contract import ContractError, layout
from contract.batch import BatchLine, BatchProgress, Counts, Pace, Part, find_batch, parse_progress
from contract.prefetch import parse_prefetch_manifest
from contract.quarter import check_quarter


def manifest(**changes: object) -> bytes:
    record = {
        "quarter": "2023Q1",
        "created_at": "2023-04-05T10:15:00Z",
        "n_firms": 2,
        "n_chunks": 1,
        "chunk_sizes": {"chunk_0000.parquet": 2},
        "firm_to_chunk": {"AAPL": "chunk_0000.parquet", "MSFT": "chunk_0000.parquet"},
    }
    return json.dumps(record | changes).encode()


@pytest.mark.parametrize("text", ["2023Q1", "1999Q4", "2016Q2"])
def test_quarters(text: str):
    assert check_quarter(text) == text


@pytest.mark.parametrize("text", ["2023Q5", "23Q1", "2023q1", "2023Q1\n", " 2023Q1", "", 2023, None, "2023Q1/../x"])
def test_an_invalid_quarter_is_rejected_with_an_example(text: object):
    with pytest.raises(ContractError, match=r"is not a quarter: .* such as 2023Q1"):
        check_quarter(text)


def test_a_run_is_named_after_its_start_in_utc():
    assert layout.run_id(datetime(2023, 4, 5, 12, 15, tzinfo=timezone(timedelta(hours=2)))) == "20230405_101500"
    run = layout.RunRef("2023Q1", "20230405_101500")
    assert layout.run_of_manifest(run.manifest_key) == run
    with pytest.raises(ContractError, match="is not a batch manifest"):
        layout.run_of_manifest("manifests/2023Q1/manifest.jsonl")


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_a_prefetch_manifest_is_read_plain_or_gzipped(pack):
    assert parse_prefetch_manifest(pack(manifest()), "2023Q1").firm_ids == ["AAPL", "MSFT"]


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "is not JSON"),
        (b"\x1f\x8b broken", "is not JSON"),
        (gzip.compress(manifest(), mtime=0)[:-9], "is not JSON"),
        (b"[]", "is not a JSON object"),
        (manifest(quarter="2022Q4"), "is of quarter '2022Q4', not 2023Q1"),
        (manifest(chunk_sizes={}), "puts firm 'AAPL' into 'chunk_0000.parquet', which chunk_sizes lacks"),
        (manifest(firm_to_chunk={}), "names no firm"),
        (manifest(firm_to_chunk=["AAPL"]), "lacks 'firm_to_chunk'"),
        (manifest(firm_to_chunk={"AAPL": 7}), r"firm_to_chunk\['AAPL'\] is 7"),
        (manifest(n_firms=3), "says n_firms = 3, but names 2"),
        (manifest(n_chunks=None), "says n_chunks = None, but names 1"),
        (manifest().replace(b"MSFT", b"AAPL"), "names 'AAPL' twice"),
    ],
)
def test_an_invalid_prefetch_manifest_is_rejected(body: bytes, sentence: str):
    with pytest.raises(ContractError, match=sentence):
        parse_prefetch_manifest(body, "2023Q1")


def test_a_batch_finds_its_own_line_without_reading_the_others():
    lines = [
        b"not even JSON\n",
        BatchLine("2023Q1_batch_0000", "2023Q1", ["2023Q1_batch_0001"]).to_json().encode() + b"\n",
        BatchLine("2023Q1_batch_0001", "2023Q1", ["B", "Ü"]).to_json().encode() + b"\n",
        b"never read",
    ]
    assert find_batch(iter(lines), "2023Q1_batch_0001").firm_ids == ["B", "Ü"]
    with pytest.raises(ContractError, match="has no batch '2023Q1_batch_0002'"):
        find_batch(iter(lines), "2023Q1_batch_0002")


def progress() -> BatchProgress:
    return BatchProgress(
        batch_id="2023Q1_batch_0000",
        run=layout.RunRef("2023Q1", "20230405_101500"),
        firms=4,
        completed={"A": Counts(3, 2, 300, 200, 30, 4, 1), "B": Counts(1, 1, 100, 80, 10, 1, 0)},
        skipped={"C": "2 usable sentences, 3 are needed"},
        parts={"intermediate/x_part_0000.parquet": Part("abc", 4)},
        checkpoints=1,
        started_at=datetime(2023, 4, 5, tzinfo=UTC).isoformat(),
        seconds=1.5,
        pace=Pace(in_flight=4, topics_per_minute=5.2, seconds_left=60.0, rate_limited=1),
    )


def test_progress_can_be_written_and_read_back_with_its_totals():
    body = progress().to_json()
    assert parse_progress(body) == progress()
    record = json.loads(body)
    assert record["firms"] == {"total": 4, "completed": 2, "skipped": 1, "failed": 0}
    assert record["topics"] == {"total": 4, "named": 3}
    assert record["tokens"] == {"prompt": 400, "cached": 280, "completion": 40}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"null",
        progress().to_json()[:-20],
        progress().to_json().replace(b'"skipped"', b'"left"'),
        progress().to_json().replace(b"running", b"done"),
        progress().to_json().replace(b'"named": 2', b'"named": "2"'),
    ],
)
def test_an_invalid_progress_record_is_never_read_as_success(body: bytes):
    with pytest.raises(ContractError, match="the progress record"):
        parse_progress(body)
