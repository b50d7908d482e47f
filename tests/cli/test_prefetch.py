"""`ftm prefetch put`: a damaged prefetch is rejected before any upload."""

import gzip
import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import fastparquet
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract import layout
from contract.prefetch import SENTENCE_COLUMNS
from worker import check_prefetch

from .conftest import BUCKET, SUCCEEDS, WAITS, Aws, Ftm, make_vllm_healthy, put_manifest

Q = SUCCEEDS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A prefetch of three firms in two chunks."""
    write_chunk(tmp_path, "chunk_0000.parquet", ["A", "B"])
    write_chunk(tmp_path, "chunk_0001.parquet", ["C"])
    write_manifest(tmp_path)
    return tmp_path


def sentences(firms: list[str]) -> list[dict[str, Any]]:
    return [
        {
            **dict.fromkeys(SENTENCE_COLUMNS, ""),
            "firm_id": firm,
            "sentence_id": f"{firm}_1_{position:04d}",
            "raw_text": "Margins rose.",
            "cleaned_text": "margins rose",
            "permno": None,
            "position": position,
            "quarter": Q,
        }
        for firm in firms
        for position in range(2)
    ]


def write_chunk(folder: Path, name: str, firms: list[str], **changes: Any) -> None:
    rows = [{**row, **changes} for row in sentences(firms)]
    pq.write_table(pa.Table.from_pylist(rows), folder / name)


def write_manifest(folder: Path, **changes: Any) -> None:
    manifest = {
        "quarter": Q,
        "created_at": "2023-04-01T00:00:00Z",
        "n_firms": 3,
        "n_chunks": 2,
        "chunk_sizes": {"chunk_0000.parquet": 2, "chunk_0001.parquet": 1},
        "firm_to_chunk": {"A": "chunk_0000.parquet", "B": "chunk_0000.parquet", "C": "chunk_0001.parquet"},
    }
    (folder / "manifest.json").write_text(json.dumps({**manifest, **changes}))


def uploaded(aws: Aws) -> list[str]:
    listing = aws.client("s3").list_objects_v2(Bucket=BUCKET, Prefix=layout.prefetch_prefix(Q))
    return [item["Key"].rsplit("/")[-1] for item in listing.get("Contents", [])]


def test_a_prefetch_is_uploaded_and_can_be_run(aws: Aws, ftm: Ftm, folder: Path) -> None:
    (folder / "notes.txt").write_text("ignored")

    result = ftm("prefetch", "put", Q, str(folder), "--json")

    assert json.loads(result.stdout) == {
        "quarter": Q,
        "bucket": BUCKET,
        "firms": 3,
        "chunks": 2,
        "sentences": 6,
        "notes": [],
    }
    assert uploaded(aws) == ["chunk_0000.parquet", "chunk_0001.parquet", "manifest.json"]
    make_vllm_healthy(aws)
    assert "3 firms, 1 batch of up to 50 firms" in ftm("run-quarter", Q, "--yes").stderr


def by_pandas(table: pa.Table, path: Path) -> None:
    frame = table.to_pandas().astype({"firm_id": "category", "speaker_type": "category"})
    frame.assign(earnings_call_date=pd.to_datetime(frame["earnings_call_date"])).to_parquet(path, compression="gzip")


def by_polars(table: pa.Table, path: Path) -> None:
    frame = pl.DataFrame(table).with_columns(
        pl.col("firm_id").cast(pl.Categorical), permno=pl.lit(float("nan")), tags=pl.concat_list("firm_id", "gvkey")
    )
    frame.write_parquet(path, row_group_size=1)


def by_duckdb(table: pa.Table, path: Path) -> None:
    with duckdb.connect() as connection:
        connection.register("calls", table)
        connection.sql(
            "select * replace (raw_text::blob as raw_text, md5(sentence_id)::uuid as sentence_id, "
            "earnings_call_date::timestamptz as earnings_call_date, position::hugeint as position) from calls"
        ).write_parquet(str(path), compression="brotli")


def by_fastparquet(table: pa.Table, path: Path) -> None:
    frame = table.to_pandas().astype(object)
    frame["earnings_call_date"] = pd.to_datetime(frame["earnings_call_date"]).astype("datetime64[ns]")
    fastparquet.write(str(path), frame.astype({"position": "int64", "permno": "float64"}), times="int96")


def by_spark(table: pa.Table, path: Path) -> None:
    """Spark's types and encodings, written by pyarrow."""
    options: Any = {"flavor": "spark", "version": "1.0", "use_deprecated_int96_timestamps": True}
    pq.write_table(table.drop_columns(["permno", "gvkey", "quarter"]), path, **options)


def test_chunks_of_common_writers_are_accepted(aws: Aws, ftm: Ftm, tmp_path: Path) -> None:
    writers = (by_pandas, by_polars, by_duckdb, by_fastparquet, by_spark)
    sizes: dict[str, int] = {}
    for number, write in enumerate(writers):
        rows = [
            row | {"permno": 10001, "gvkey": "001690", "earnings_call_date": date(2023, 2, 3)}
            for row in sentences([f"{number}0", f"{number}1"])
        ]
        write(pa.Table.from_pylist(rows), tmp_path / f"{write.__name__}.parquet")
        sizes[f"{write.__name__}.parquet"] = 2
    chunks = {f"{number}{n}": chunk for number, chunk in enumerate(sizes) for n in (0, 1)}
    write_manifest(tmp_path, n_firms=10, n_chunks=5, chunk_sizes=sizes, firm_to_chunk=chunks)

    document = json.loads(ftm("prefetch", "put", Q, str(tmp_path), "--json").stdout)

    assert document == {"quarter": Q, "bucket": BUCKET, "firms": 10, "chunks": 5, "sentences": 20, "notes": []}
    assert len(uploaded(aws)) == 6


def test_values_that_are_read_differently_and_firms_without_text_are_reported(aws: Aws, ftm: Ftm, folder: Path) -> None:
    write_chunk(
        folder,
        "chunk_0001.parquet",
        ["C"],
        permno="N/A",
        gvkey=1690.0,
        earnings_call_date="10/28/2021",
        raw_text="nan",
        cleaned_text=None,
    )

    notes = ftm("prefetch", "put", Q, str(folder)).stderr

    assert "permno: 2 values are not whole numbers, first 'N/A' (C, sentence C_1_0000): read as missing" in notes
    assert "gvkey: 2 values are padded to six digits" in notes
    assert "earnings_call_date" not in notes
    assert "raw_text is empty for 1 firm, the first is C: the LLM is shown cleaned_text" in notes
    assert "cleaned_text is empty for 1 firm, the first is C: no topics can be found" in notes
    assert len(uploaded(aws)) == 3


def test_a_folder_laid_out_as_the_bucket_with_a_gzipped_manifest_and_without_quarter_columns(
    aws: Aws, ftm: Ftm, folder: Path, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    place = root / layout.prefetch_prefix(Q)
    place.mkdir(parents=True)
    for path in folder.glob("*.parquet"):
        pq.write_table(pq.read_table(path).drop_columns(["quarter"]), place / path.name)
    manifest = gzip.compress((folder / "manifest.json").read_bytes())
    (place / "manifest.json").write_bytes(manifest)

    ftm("prefetch", "put", Q, str(root))

    assert len(uploaded(aws)) == 3
    answer = aws.client("s3").get_object(Bucket=BUCKET, Key=layout.prefetch_manifest_key(Q))
    assert answer["ContentEncoding"] == "gzip"
    assert answer["Body"].read() == manifest


def not_parquet(folder: Path) -> None:
    (folder / "chunk_0001.parquet").write_text("firm_id,raw_text\n")


def torn(folder: Path) -> None:
    path = folder / "chunk_0001.parquet"
    body = path.read_bytes()
    path.write_bytes(body[:20] + b"\xff" * 200 + body[220:])


def lacks_a_column(folder: Path) -> None:
    path = folder / "chunk_0001.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["cleaned_text"]), path)


def wrong_type(folder: Path) -> None:
    write_chunk(folder, "chunk_0001.parquet", ["C"], raw_text=7)


def a_folder(folder: Path) -> None:
    """The result of Spark's `df.write.parquet("chunk_0001.parquet")`."""
    chunk = folder / "chunk_0001.parquet"
    chunk.rename(folder / "part-00000.parquet")
    chunk.mkdir()


def bad_position(folder: Path) -> None:
    write_chunk(folder, "chunk_0001.parquet", ["C"], position=0.5)


def no_text(folder: Path) -> None:
    write_chunk(folder, "chunk_0000.parquet", ["A", "B"], raw_text=" ")
    write_chunk(folder, "chunk_0001.parquet", ["C"], raw_text=None)


def repeated_sentence(folder: Path) -> None:
    write_chunk(folder, "chunk_0001.parquet", ["C"], sentence_id="A_1_0000")


Damage = Callable[[Path], object]

BROKEN: list[tuple[Damage, str]] = [
    (lambda folder: (folder / "manifest.json").unlink(), "holds no prefetch of 2023Q1"),
    (lambda folder: (folder / "manifest.json").write_text("{"), "manifest.json: the prefetch manifest is not JSON"),
    (torn, "chunk_0001.parquet of the prefetch cannot be read as Parquet"),
    (lambda folder: write_manifest(folder, quarter="2022Q4"), "of quarter '2022Q4', not 2023Q1"),
    (
        lambda folder: write_manifest(
            folder,
            chunk_sizes={"../chunk_0000.parquet": 3},
            n_chunks=1,
            firm_to_chunk=dict.fromkeys("ABC", "../chunk_0000.parquet"),
        ),
        "which is not beside it",
    ),
]


@pytest.mark.parametrize(("damage", "sentence"), BROKEN)
def test_a_damaged_prefetch_is_rejected_and_nothing_is_uploaded(
    aws: Aws, ftm: Ftm, folder: Path, damage: Damage, sentence: str
) -> None:
    damage(folder)

    result = ftm("prefetch", "put", Q, str(folder), exit_code=2)

    assert sentence in result.stderr
    assert not uploaded(aws)


BROKEN_CHUNKS: list[tuple[Damage, str]] = [
    (lambda folder: (folder / "chunk_0001.parquet").unlink(), "chunk_0001.parquet is missing, though the manifest"),
    (lambda folder: write_manifest(folder, chunk_sizes={"chunk_0000.parquet": 3, "chunk_0001.parquet": 0}), "holds 2"),
    (not_parquet, "chunk_0001.parquet of the prefetch cannot be read as Parquet"),
    (lacks_a_column, "chunk_0001.parquet of the prefetch lacks the column cleaned_text"),
    (wrong_type, "the column raw_text is of type int64, not text"),
    (a_folder, "chunk_0001.parquet is a folder, as Spark writes a table: make the prefetch from it"),
    (bad_position, "position: 2 values are not whole numbers, first 0.5 (C, sentence C_1_0000)"),
    (no_text, "raw_text is empty in all of the 6 rows"),
    (
        repeated_sentence,
        "1 value used more than once, first 'A_1_0000' (chunk_0000.parquet row 1 and chunk_0001",
    ),
    (lambda folder: write_chunk(folder, "chunk_0001.parquet", ["D"]), "lacks 1 firm that the manifest puts there"),
    (
        lambda folder: write_chunk(folder, "chunk_0001.parquet", ["C", "D"]),
        "puts elsewhere, the first is D in row 3",
    ),
    (
        lambda folder: write_chunk(folder, "chunk_0001.parquet", ["C"], quarter="2022Q4"),
        "not only of 2023Q1: quarter in row 1 (C)",
    ),
    (
        lambda folder: write_chunk(folder, "chunk_0001.parquet", ["C"], firm_id=None),
        "the column firm_id is of type null, not text",
    ),
]


@pytest.mark.parametrize(("damage", "sentence"), BROKEN_CHUNKS)
def test_damage_in_a_chunk_is_found_by_the_process_that_checks_it(
    folder: Path, damage: Damage, sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The process that `ftm prefetch put` starts, called directly."""
    damage(folder)
    monkeypatch.setattr("sys.argv", ["check_prefetch", Q, str(folder)])

    assert check_prefetch.main() == 2
    assert sentence in json.loads(capsys.readouterr().out)["error"]


def test_an_interrupted_upload_leaves_no_manifest(aws: Aws, folder: Path) -> None:
    """The previous manifest must not remain beside chunks of two prefetches."""
    from cli.services import prefetch
    from cli.stack import Target, connect

    stack, checked = connect(Target("local")), prefetch.load(Q, folder)
    prefetch.upload(stack, checked)
    assert "manifest.json" in uploaded(aws)
    gone = folder / "chunk_0001.parquet"

    def lose_the_second_chunk(chunk: str) -> None:
        gone.unlink(missing_ok=True)

    with pytest.raises(OSError, match=gone.name):
        prefetch.upload(stack, checked, on_chunk=lose_the_second_chunk)

    assert "manifest.json" not in uploaded(aws)


def test_a_path_that_is_not_a_folder_is_rejected(ftm: Ftm, tmp_path: Path) -> None:
    assert "is not a folder" in ftm("prefetch", "put", Q, str(tmp_path / "nowhere"), exit_code=2).stderr


def test_the_prefetch_of_a_running_quarter_cannot_be_replaced(aws: Aws, ftm: Ftm, folder: Path) -> None:
    make_vllm_healthy(aws)
    put_manifest(aws, WAITS)
    ftm("run-quarter", WAITS, "--yes", "--detach")
    write_manifest(folder, quarter=WAITS)
    for name, firms in (("chunk_0000.parquet", ["A", "B"]), ("chunk_0001.parquet", ["C"])):
        write_chunk(folder, name, firms, quarter=WAITS)

    assert "reads the prefetch" in ftm("prefetch", "put", WAITS, str(folder), "--force", exit_code=5).stderr


@pytest.mark.parametrize("firms", ["0", "-3"])
def test_an_invalid_number_of_sample_firms_is_rejected(ftm: Ftm, firms: str) -> None:
    ftm("prefetch", "sample", Q, "--firms", firms, exit_code=2)
