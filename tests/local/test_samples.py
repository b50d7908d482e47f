"""Sample calls: they have the layout of a prefetch, are deterministic, and have distinct topics."""

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.prefetch import SENTENCE_COLUMNS, parse_prefetch_manifest
from local.samples import writer as samples
from local.samples.topics import TOPICS


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [row for chunk in sorted(folder.glob("*.parquet")) for row in pq.read_table(chunk).to_pylist()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    samples.write(folder, "2023Q1", 24)
    return folder


def test_the_manifest_is_valid_by_the_contract(tmp_path: Path):
    sample = samples.write(tmp_path / "new", "2023Q1", 201)
    manifest = parse_prefetch_manifest((tmp_path / "new" / "manifest.json").read_bytes(), "2023Q1")
    assert manifest.chunk_sizes == {
        "chunk_0000.parquet": 200,
        "chunk_0001.parquet": 1,
    }
    assert (sample.firms, sample.chunks) == (201, 2)
    rows = rows_of(tmp_path / "new")
    assert sample.sentences == len(rows)
    assert {row["firm_id"] for row in rows} == set(manifest.firm_ids)
    assert len({row["firm_name"] for row in rows}) == 201
    for name in manifest.chunk_sizes:
        firms = pq.read_table(tmp_path / "new" / name, columns=["firm_id"])["firm_id"].unique().to_pylist()
        assert {manifest.firm_to_chunk[firm] for firm in firms} == {name}


def test_chunks_have_the_columns_and_types_of_a_prefetch(folder: Path):
    schema = pq.read_schema(folder / "chunk_0000.parquet")
    assert schema.names == list(SENTENCE_COLUMNS)
    others = {"permno": pa.int64(), "earnings_call_date": pa.date32(), "position": pa.int32()}
    assert {field.name: field.type for field in schema} == {
        column: others.get(column, pa.string()) for column in SENTENCE_COLUMNS
    }


def test_the_rows_form_earnings_calls(folder: Path):
    rows = [row for row in rows_of(folder) if row["firm_id"] == "S00001"]
    assert [row["position"] for row in rows] == list(range(len(rows)))
    assert len({row["sentence_id"] for row in rows}) == len(rows) > 80
    assert rows[7]["sentence_id"] == f"S00001_{rows[7]['transcript_id']}_0007"
    assert {row["speaker_type"] for row in rows} == {"Operator", "Executive", "Analyst"}
    assert {row["quarter"] for row in rows} == {"2023Q1"}
    day = rows[0]["earnings_call_date"]
    assert (day.year, (day.month - 1) // 3 + 1) == (2023, 1)
    assert not any(mark in row["raw_text"] for row in rows for mark in "[]{}|")
    assert all(row["cleaned_text"] == row["cleaned_text"].lower() for row in rows)
    assert not any(character.isdigit() for row in rows for character in row["cleaned_text"])


def test_the_same_arguments_give_the_same_files(folder: Path, tmp_path: Path):
    samples.write(tmp_path, "2023Q1", 24)
    for path in folder.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("quarter", ["2022Q4", "2023Q2"])
def test_another_quarter_has_different_sentences_and_mostly_the_same_topics(folder: Path, tmp_path: Path, quarter: str):
    samples.write(tmp_path, quarter, 1)
    texts = {row["raw_text"] for row in rows_of(folder) if row["firm_id"] == "S00001"}
    others = {row["raw_text"] for row in rows_of(tmp_path)}
    assert len(texts & others) < len(texts) / 2
    assert len(set(samples.topics_of("2023Q1", 0)) & set(samples.topics_of(quarter, 0))) >= 5


def test_firms_have_different_mixes_of_topics():
    mixes = Counter(frozenset(samples.topics_of("2023Q1", number)) for number in range(100))
    del mixes[frozenset()]
    assert max(mixes.values()) <= 2
    assert set().union(*mixes) == set(TOPICS)


def test_a_call_has_about_a_dozen_distinct_sentences_per_topic(folder: Path):
    rows = [row["raw_text"] for row in rows_of(folder) if row["firm_id"] == "S00002"]
    for topic in samples.topics_of("2023Q1", 1):
        words = [{word for word in template.lower().split() if word.isalpha()} for template in TOPICS[topic]]
        said = [sum(len(set(row.lower().split()) & known) >= len(known) - 1 for row in rows) for known in words]
        assert sum(count >= 1 for count in said) >= 9, topic


def test_every_twelfth_call_is_nearly_empty(folder: Path):
    counts = Counter(row["firm_id"] for row in rows_of(folder))
    assert [firm for firm, count in counts.items() if count < 12] == ["S00012", "S00024"]


@pytest.mark.parametrize("firms", [0, -1, 100_001])
def test_an_invalid_number_of_firms_is_rejected_and_nothing_is_written(tmp_path: Path, firms: int):
    with pytest.raises(ValueError, match="give 1 to 100000"):
        samples.write(tmp_path / "none", "2023Q1", firms)
    assert not (tmp_path / "none").exists()
