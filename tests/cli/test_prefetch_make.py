"""`ftm prefetch make`: a prefetch from tables of transcripts."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cli.services import prefetch_table

from .conftest import SUCCEEDS, Aws, Ftm

Q = SUCCEEDS
ACME = "Good morning, Mr. Smith. Sales grew 5.2%.\nWhat about Europe?"
COLUMNS = ("--map", "firm_id=ticker", "--map", "raw_text=text", "--map", "earnings_call_date=day")


def rows(folder: Path) -> list[dict[str, Any]]:
    return pq.read_table(folder / "chunk_0000.parquet").to_pylist()


def csv(folder: Path) -> Path:
    path = folder / "calls.csv"
    path.write_text(
        f'ticker,day,gvkey,text,notes\n0005,10/28/2021,1690,"{ACME}",x\nBETA,,,"Rates fell. Margins rose.",\n'
    )
    return path


def jsonl(folder: Path) -> Path:
    path = folder / "calls.jsonl"
    records = [
        {"ticker": "0005", "day": "2021-10-28", "gvkey": "001690", "text": ACME},
        {"ticker": "BETA", "text": "Rates fell. Margins rose."},
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def parquet(folder: Path) -> Path:
    path = folder / "calls.parquet"
    table = {"ticker": ["0005", "BETA"], "day": ["2021-10-28", None], "text": [ACME, "Rates fell. Margins rose."]}
    pq.write_table(pa.table(table), path)
    return path


FIRST_ROWS = [
    ("0005", 0, "Good morning, Mr. Smith.", "good morning mr smith"),
    ("0005", 1, "Sales grew 5.2%.", "sales grew"),
    ("0005", 2, "What about Europe?", "what about europe"),
]


def test_texts_become_a_prefetch_that_can_be_uploaded(aws: Aws, ftm: Ftm, tmp_path: Path) -> None:
    out = tmp_path / "out"

    made = ftm("prefetch", "make", Q, str(csv(tmp_path)), *COLUMNS, "--out", str(out), "--json")

    assert json.loads(made.stdout) == {
        "quarter": Q,
        "folder": str(out),
        "firms": 2,
        "sentences": 5,
        "other_quarters": 0,
        "notes": ["gvkey: 3 values are padded to six digits"],
    }
    assert first_rows(out) == FIRST_ROWS
    assert "2 firms, 5 sentences" in ftm("prefetch", "put", Q, str(out)).stdout


@pytest.mark.parametrize("write", [jsonl, parquet])
def test_other_kinds_of_tables(tmp_path: Path, write: Any) -> None:
    mapping = {"firm_id": "ticker", "raw_text": "text", "earnings_call_date": "day"}

    made = prefetch_table.make(Q, [write(tmp_path)], mapping, "en", tmp_path / "out")

    assert (made.prefetch.sentences, made.prefetch.notes, made.other_quarters) == (5, [], 0)
    assert first_rows(tmp_path / "out") == FIRST_ROWS


def first_rows(folder: Path) -> list[tuple[Any, ...]]:
    return [(row["firm_id"], row["position"], row["raw_text"], row["cleaned_text"]) for row in rows(folder)][:3]


def test_rows_that_are_sentences_are_kept(ftm: Ftm, tmp_path: Path) -> None:
    path = tmp_path / "sentences.parquet"
    columns = {"FIRM_ID": ["A", "A", "A"], "position": [7, 8, 9], "Raw_Text": ["One. Two.", "Three.", "Four."]}
    pq.write_table(pa.table({**columns, "quarter": [Q, "Q1 2023", "2022Q4"]}), path)

    made = ftm("prefetch", "make", Q, str(path), "--out", str(tmp_path / "out"))

    assert "1 row of other quarters left out" in made.stderr
    assert [(row["position"], row["raw_text"]) for row in rows(tmp_path / "out")] == [(7, "One. Two."), (8, "Three.")]


def test_a_folder_as_spark_writes_it(ftm: Ftm, tmp_path: Path) -> None:
    """Its files, with the columns that the names of its folders give; marker files are ignored."""
    for quarter, firm in (("2022Q4", 7), (Q, 10001.0), (Q, 10002.0)):
        place = tmp_path / "calls" / f"quarter={quarter}"
        place.mkdir(parents=True, exist_ok=True)
        made = pa.table({"permno": [firm], "raw_text": pa.array(["Rates fell. Margins rose."]).dictionary_encode()})
        pq.write_table(made, place / f"part-{firm:.0f}.snappy.parquet")
    (tmp_path / "calls" / "_SUCCESS").touch()
    (tmp_path / "calls" / "_temporary").mkdir()
    (tmp_path / "calls" / "_temporary" / "part-0.parquet").write_text("torn")
    out = tmp_path / "out"

    made = ftm("prefetch", "make", Q, str(tmp_path / "calls"), "--map", "firm_id=permno", "--out", str(out))

    assert "1 row of other quarters left out" in made.stderr
    assert [row["firm_id"] for row in rows(out)] == ["10001", "10001", "10002", "10002"]


def test_more_rows_than_are_held_at_once(ftm: Ftm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentences of several firms alternate, over many writes and several chunks."""
    for name, value in (("_ROWS_AT_ONCE", 7), ("_ROWS_IN_MEMORY", 11), ("_FIRMS_PER_CHUNK", 2)):
        monkeypatch.setattr(prefetch_table, name, value)
    path, out = tmp_path / "calls.jsonl", tmp_path / "out"
    lines = [{"firm_id": firm, "raw_text": f"Sentence {n} of {firm}."} for n in range(20) for firm in "ABC"]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))

    ftm("prefetch", "make", Q, str(path), "--out", str(out))

    found = rows(out) + pq.read_table(out / "chunk_0001.parquet").to_pylist()
    for firm in "ABC":
        assert [(row["position"], row["raw_text"]) for row in found if row["firm_id"] == firm] == [
            (n, f"Sentence {n} of {firm}.") for n in range(20)
        ]
    assert json.loads((out / "manifest.json").read_text())["chunk_sizes"] == {
        "chunk_0000.parquet": 2,
        "chunk_0001.parquet": 1,
    }


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--map", "firm_id=ticker"), "no column 'raw_text': map one of ticker, day, gvkey, text, notes with --map"),
        (("--map", "firm_id=symbol"), "the files have no column 'symbol'"),
        (("--map", "ticker=firm_id"), "'ticker' is not a column of a prefetch"),
        (("--map", "ticker"), "--map ticker is not NAME=COLUMN"),
    ],
)
def test_an_invalid_mapping_of_columns_is_rejected(
    ftm: Ftm, tmp_path: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    made = ftm("prefetch", "make", Q, str(csv(tmp_path)), *arguments, "--out", str(tmp_path / "out"), exit_code=2)

    assert sentence in made.stderr.replace("\n", " ")
    assert not (tmp_path / "out").exists()


def test_files_that_are_not_tables_are_rejected(ftm: Ftm, tmp_path: Path) -> None:
    (tmp_path / "calls.txt").write_text("x")
    (tmp_path / "calls.parquet").write_text("x")
    (tmp_path / "calls.jsonl").write_text('{"firm_id": "A", "raw_text": "Rates fell."}\n{')
    (tmp_path / "empty").mkdir()
    for name, sentence in (
        ("calls.txt", "is neither .csv"),
        ("calls.parquet", "cannot be read"),
        ("calls.jsonl", "calls.jsonl cannot be read: line 2 is not JSON"),
        ("empty", "holds no Parquet file"),
    ):
        made = ftm("prefetch", "make", Q, str(tmp_path / name), "--out", str(tmp_path / "out"), exit_code=2)
        assert sentence in made.stderr.replace("\n", " ")
        assert not (tmp_path / "out").exists()
