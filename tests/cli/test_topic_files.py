"""`ftm topics --out`: files that pandas, polars and duckdb read; a file is complete or absent."""

import io
import json
import math
import re
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cli.errors import CliError
from cli.rendering.themes import print_unnamed
from cli.services import themes
from cli.services.themes import ThemesJob
from contract import layout
from contract.batch import BatchLine, BatchProgress, Counts, Part
from contract.fallbacks import count_fallbacks
from contract.layout import RunRef
from contract.prefetch import SENTENCE_COLUMNS
from contract.themes import ThemeName, ThemesRecord, ThemesRef
from worker import parts
from worker.export import files
from worker.export.writer import FileWriter
from worker.themes import results

from .conftest import BUCKET, RUN, SUCCEEDS, Aws, Ftm

BEFORE, Q = "2022Q4", SUCCEEDS
OIL, WINE = "crude oil drilling basin", "grape harvest vineyard cellar"
FERRY = "ferry island crossing passenger"
SUBJECTS = {BEFORE: {"F0": [OIL, WINE], "F2": [FERRY]}, Q: {"F0": [FERRY, OIL], "F2": [FERRY]}}
PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text()


@pytest.fixture
def two_quarters(aws: Aws) -> Aws:
    """Successful runs of two quarters: F0 continues one topic and begins another, F1 is skipped."""
    for quarter in (BEFORE, Q):
        put_quarter(aws, quarter)
    return aws


def put_quarter(aws: Aws, quarter: str) -> None:
    s3, ref, batch = aws.client("s3"), RunRef(quarter, RUN), layout.batch_id(quarter, 0)
    firms, chunk = ["F0", "F1", "F2"], "chunk_0000.parquet"
    manifest = {
        "quarter": quarter,
        "n_firms": 3,
        "n_chunks": 1,
        "chunk_sizes": {chunk: 3},
        "firm_to_chunk": dict.fromkeys(firms, chunk),
    }
    body = part(quarter)
    written = s3.put_object(Bucket=BUCKET, Key=ref.part_key(batch, 0, "a"), Body=body)
    record = BatchProgress(
        batch,
        ref,
        firms=3,
        state="complete",
        completed={"F0": Counts(topics=2, named=1), "F2": Counts(topics=1, named=1)},
        skipped={"F1": "2 usable sentences, at least 3 are needed"},
        parts={ref.part_key(batch, 0, "a"): Part(written["ETag"].strip('"'), rows=3)},
    )
    for key, value in (
        (layout.prefetch_manifest_key(quarter), json.dumps(manifest).encode()),
        (layout.chunk_key(quarter, chunk), parquet(sentences(quarter), None)),
        (ref.manifest_key, BatchLine(batch, quarter, firms).to_json().encode()),
        (ref.progress_key(batch), record.to_json()),
        (layout.latest_key(quarter), json.dumps({"run": RUN}).encode()),
    ):
        s3.put_object(Bucket=BUCKET, Key=key, Body=value)


def sentences(quarter: str) -> list[dict[str, Any]]:
    """Three sentences on each subject and one without; F1 has too few. The last subject is the analysts'."""
    rows: list[dict[str, Any]] = []
    for firm, subjects in ({"F1": []} | SUBJECTS[quarter]).items():
        lines = [("Executive", "Good morning."), *(("Executive", f"{each} {n}") for each in subjects for n in range(3))]
        if subjects:
            lines[-3:] = [("Analyst", text) for _, text in lines[-3:]]
        for position, (speaker, text) in enumerate(lines):
            rows.append(
                dict.fromkeys(SENTENCE_COLUMNS)
                | {
                    "firm_id": firm,
                    "firm_name": f"{firm}, Corp",
                    "permno": 10001 if firm == "F0" else None,
                    "gvkey": "001690",
                    "earnings_call_date": date(2023, 2, 3),
                    "transcript_id": "T",
                    "sentence_id": f"{firm}_T_{position:04d}",
                    "raw_text": f'"{text}", said 5% — 利润',
                    "cleaned_text": text,
                    "speaker_type": speaker,
                    "position": position,
                }
            )
    return rows


def part(quarter: str) -> bytes:
    rows = [
        dict.fromkeys(parts.SCHEMA.names)
        | {
            "firm_id": firm,
            "firm_name": f"{firm}, Corp",
            "quarter": quarter,
            "permno": 10001 if firm == "F0" else None,
            "gvkey": "001690",
            "earnings_call_date": date(2023, 2, 3),
            "topic_id": f"{firm}_{quarter}_{number}",
            "local_topic_id": number,
            "name": subject.title(),
            "summary": f'It speaks of "{subject}".',
            "naming_method": "keywords" if subject == WINE else "llm",
            "keywords": subject.split(),
            "n_sentences": 3,
            "share": round(3 / (3 * len(subjects) + 1), 4),
            "sentence_ids": [f"{firm}_T_{3 * number + n:04d}" for n in range(1, 4)],
            "sentence_cosines": [0.5, 0.75, 0.875],
            "processed_at": pd.Timestamp("2023-04-05T10:15:00Z"),
        }
        for firm, subjects in SUBJECTS[quarter].items()
        for number, subject in enumerate(subjects)
    ]
    return parquet(rows, parts.SCHEMA)


def parquet(rows: list[dict[str, Any]], schema: pa.Schema | None) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema), sink)
    return sink.getvalue()


def put_themes(aws: Aws, range_: str, run: str = RUN) -> None:
    """One theme of all topics on ferries, one that is gone, and one that is new."""
    ref, s3 = ThemesRef(range_, "20230501_000000"), aws.client("s3")
    rows = [
        dict.fromkeys(results.THEMES_SCHEMA.names)
        | {
            "theme_id": f"theme_{number:04d}",
            "name": name,
            "summary": "",
            "naming_method": "llm",
            "keywords": ["<b>"],
            "n_firms": 2,
            "n_topics": 3,
            "quarters": [
                {"quarter": BEFORE, "n_topics": 1, "share": before, "change": None},
                {"quarter": Q, "n_topics": 1, "share": last, "change": round(last - before, 6)},
            ],
        }
        for number, (name, before, last) in enumerate([("Ferries", 0.3, 0.6), ("Wine", 0.2, 0.0), ("Kilns", 0.0, 0.1)])
    ]
    members = [("F0", Q, 0), ("F2", Q, 0), ("F2", BEFORE, 0)]
    topics = [
        dict.fromkeys(results.THEME_TOPICS_SCHEMA.names)
        | {
            "theme_id": "theme_0000",
            "topic_id": f"{firm}_{quarter}_{number}",
            "firm_id": firm,
            "firm_name": firm,
            "quarter": quarter,
            "similarity": 0.9,
        }
        for firm, quarter, number in members
    ]
    record = ThemesRecord(ref, {BEFORE: RUN, Q: run}, state="complete")
    for key, body in (
        (ref.themes_key, parquet(rows, results.THEMES_SCHEMA)),
        (ref.theme_topics_key, parquet(topics, results.THEME_TOPICS_SCHEMA)),
        (ref.record_key, record.to_json()),
    ):
        s3.put_object(Bucket=BUCKET, Key=key, Body=body)


def read_by_all(path: Path) -> list[list[dict[str, Any]]]:
    """The rows as pandas, polars and duckdb read them."""
    kind = path.suffix[1:]
    text: Any = {"gvkey": str}
    by_pandas = {
        "parquet": lambda: pd.read_parquet(path),
        "csv": lambda: pd.read_csv(path, dtype=text),
        "jsonl": lambda: pd.read_json(path, lines=True, dtype=text),
    }[kind]()
    by_polars = {
        "parquet": lambda: pl.read_parquet(path),
        "csv": lambda: pl.read_csv(path, schema_overrides={"gvkey": pl.String}),
        "jsonl": lambda: pl.read_ndjson(path),
    }[kind]()
    read = {"parquet": duckdb.read_parquet, "csv": duckdb.read_csv, "jsonl": duckdb.read_json}[kind]
    by_duckdb = read(str(path)).to_arrow_table()
    by_pandas = by_pandas.astype(object).where(by_pandas.notna(), None)  # it reads null as NaN
    return [by_pandas.to_dict("records"), by_polars.to_dicts(), by_duckdb.to_pylist()]


def test_topics_are_read_back(two_quarters: Aws, ftm: Ftm, tmp_path: Path) -> None:
    path = tmp_path / "topics.parquet"

    document = json.loads(ftm("topics", Q, "--out", str(path), "--json").stdout)

    skipped = [{"firm_id": "F1", "outcome": "skipped", "reason": "2 usable sentences, at least 3 are needed"}]
    assert document == {
        "quarter": Q,
        "run": RUN,
        "file": str(path),
        "rows": 3,
        "previous_run": RUN,
        "linked": 2,
        "skipped": skipped,
    }
    of_skipped = path.with_suffix(".skipped.parquet")
    assert sorted(tmp_path.iterdir()) == [path, of_skipped]
    for written, schema in ((path, files.TOPICS_SCHEMA), (of_skipped, files.SKIPPED_SCHEMA)):
        for suffix in (".csv", ".jsonl"):
            with FileWriter(written.with_suffix(suffix), schema) as file:
                file.write(pq.read_table(written).to_pylist())
    for suffix in (".parquet", ".csv", ".jsonl"):
        for rows in read_by_all(path.with_suffix(suffix)):
            check_topics(rows, sentence_ids_are_json=suffix == ".csv")
        for rows in read_by_all(of_skipped.with_suffix(suffix)):
            assert [(row["firm_id"], row["reason"]) for row in rows] == [("F1", skipped[0]["reason"])]
    assert {row["gvkey"] for row in read_by_all(path)[2]} == {"001690"}


def check_topics(rows: list[dict[str, Any]], *, sentence_ids_are_json: bool) -> None:
    """The topics of `Q`, of which two continue one of the quarter before."""
    assert list(rows[0]) == files.TOPICS_SCHEMA.names
    assert [(row["topic_id"], row["name"], row["n_sentences"]) for row in rows] == [
        ("F0_2023Q1_0", FERRY.title(), 3),
        ("F0_2023Q1_1", OIL.title(), 3),
        ("F2_2023Q1_0", FERRY.title(), 3),
    ]
    new, old, _ = rows
    assert old["previous_topic_id"] == "F0_2022Q4_0"
    assert old["previous_cosine"] == pytest.approx(1)
    assert new["previous_topic_id"] is None
    assert old["firm_name"] == "F0, Corp"
    assert old["permno"] == 10001
    assert math.isclose(old["share"], 0.4286)
    assert str(old["earnings_call_date"]).startswith("2023-02-03")
    ids = json.loads(old["sentence_ids"]) if sentence_ids_are_json else list(old["sentence_ids"])
    assert ids == ["F0_T_0004", "F0_T_0005", "F0_T_0006"]


def test_every_sentence_with_its_topic_or_none(two_quarters: Aws, ftm: Ftm, tmp_path: Path) -> None:
    path = tmp_path / "sentences.parquet"

    ftm("topics", Q, "--out", str(path), "--sentences")

    for rows in read_by_all(path):
        assert list(rows[0]) == files.SENTENCES_SCHEMA.names
        assert len(rows) == len(sentences(Q)) == 12
        greeting, first = rows[0], rows[1]
        assert (greeting["sentence_id"], greeting["topic_id"]) == ("F0_T_0000", None)
        assert (first["topic_id"], first["topic_name"], first["cosine"]) == ("F0_2023Q1_0", FERRY.title(), 0.5)
        assert first["text"] == f'"{FERRY} 0", said 5% — 利润'
        assert (first["role"], first["section"], first["position"]) == ("executive", "prepared", 1)
        assert (rows[6]["role"], rows[6]["section"]) == ("analyst", "qa")
        assert [row["skipped"] for row in rows if row["firm_id"] == "F1"] == [
            "2 usable sentences, at least 3 are needed"
        ]


def test_themes_for_the_sentiment_of_their_sentences(two_quarters: Aws, ftm: Ftm, tmp_path: Path) -> None:
    range_, path = f"{BEFORE}..{Q}", tmp_path / "themes.jsonl"
    arguments = ("topics", Q, "--out", str(path), "--for-sentiment")
    assert f"find them with `ftm --stack local themes {Q}`" in ftm(*arguments, exit_code=3).stderr
    put_themes(two_quarters, range_)

    ftm(*arguments, "--themes", range_.lower())

    for rows in read_by_all(path):
        assert list(rows[0]) == files.SENTIMENT_SCHEMA.names
        assert [(row["theme_name"], row["firm_id"], row["topic_id"]) for row in rows] == [
            ("Ferries", "F0", "F0_2023Q1_0"),
            ("Ferries", "F2", "F2_2023Q1_0"),
        ]
        spoken = list(rows[1]["sentences"])
        assert [each["text"] for each in spoken] == [f'"{FERRY} {n}", said 5% — 利润' for n in range(3)]
        assert [(each["role"], each["cosine"]) for each in spoken] == [
            ("analyst", 0.5),
            ("analyst", 0.75),
            ("analyst", 0.875),
        ]
    other = ftm(*arguments, "--themes", range_, "--run", "20230101_000000", exit_code=2)
    assert f"are of run {RUN}, not of 20230101_000000" in other.stderr


def test_the_topics_that_are_chosen(two_quarters: Aws, ftm: Ftm, tmp_path: Path) -> None:
    def ids(*arguments: str) -> list[str]:
        return [topic["topic_id"] for topic in json.loads(ftm("topics", BEFORE, "--json", *arguments).stdout)]

    assert ids("--search", "VINEYARD") == ids("--unnamed") == ["F0_2022Q4_1"]
    assert ids("--limit", "2") == ["F0_2022Q4_0", "F0_2022Q4_1"]
    assert ids("--search", "bicycle") == []
    listed = ftm("topics", BEFORE, "--limit", "1").stderr
    assert "1 topic of 1 firm, 1 named by the LLM (of 3 topics)" in listed

    path = tmp_path / "wine.csv"
    ftm("topics", BEFORE, "--search", "harvest", "--out", str(path))
    assert pd.read_csv(path)["topic_id"].to_list() == ["F0_2022Q4_1"]


def test_firms_without_topics(two_quarters: Aws, ftm: Ftm) -> None:
    skipped = json.loads(ftm("topics", Q, "--skipped", "--json").stdout)

    assert skipped == [{"firm_id": "F1", "outcome": "skipped", "reason": "2 usable sentences, at least 3 are needed"}]
    assert "F1\tskipped\t2 usable sentences" in ftm("topics", Q, "--skipped").stdout


def test_the_report_has_themes_and_firms(two_quarters: Aws, ftm: Ftm, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    ftm("report", Q, "--run", RUN, "--out", str(page))
    assert "Themes" not in page.read_text()
    put_themes(two_quarters, f"{BEFORE}..{Q}")

    ftm("report", Q, "--run", RUN, "--out", str(page))

    html = page.read_text()
    assert f"Themes of {BEFORE}..{Q}: the largest" in html
    new = html.split(f"Themes that are new in {Q}")[1]
    new, gone = new.split(f"Themes that have vanished since {BEFORE}")
    assert "<td>Kilns</td><td>10.00%</td><td>2</td><td>&lt;b&gt;</td>" in new
    assert "<td>Wine</td><td>20.00%</td>" in gone
    assert "<td>Kilns</td>" not in gone
    firm = gone.split('<details id="firm-F0"><summary>F0, F0, Corp: 2 topics</summary>')[1].split("</details>")[0]
    assert f"<td>{FERRY.title()}</td><td>3</td><td>Ferries</td><td>It speaks of &quot;{FERRY}&quot;.</td>" in firm
    assert f"<td>{OIL.title()}</td><td>3</td><td></td>" in firm
    assert "<td>F1</td><td>skipped</td><td>2 usable sentences, at least 3 are needed</td>" in gone


def test_a_failed_themes_run_is_explained_by_its_record() -> None:
    ref = ThemesRef(Q, "20230501_000000")
    record = ThemesRecord(ref, {Q: RUN}, state="failed", error="the LLM named 1 of 9 themes")
    with pytest.raises(CliError, match=r"failed: the LLM named 1 of 9 themes$"):
        themes.check_succeeded(ref, ThemesJob("FAILED", "Essential container in task exited", record, "its log"))


def test_themes_without_a_name_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    name = ThemeName(name="Rates", summary="Rates rose.", model="m")
    fallbacks = count_fallbacks([("vacuous", "the name 'Growth' would fit any company")])

    print_unnamed(ThemesRecord(ThemesRef(Q, RUN), {Q: RUN}, themes=2, names={"a": name}, fallbacks=fallbacks))

    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "1 of 2 themes got no name from the LLM and show keywords",
        "1 for the reason vacuous: the name 'Growth' would fit any company",
    ]


def test_a_file_that_cannot_be_made_leaves_the_old_one(two_quarters: Aws, ftm: Ftm, tmp_path: Path) -> None:
    two_quarters.client("s3").delete_object(Bucket=BUCKET, Key=layout.chunk_key(Q, "chunk_0000.parquet"))
    path = tmp_path / "sentences.csv"
    path.write_text("the old one")

    result = ftm("topics", Q, "--out", str(path), "--sentences", exit_code=2)

    assert "chunk chunk_0000.parquet of the prefetch is missing" in result.stderr.replace("\n", " ")
    assert path.read_text() == "the old one"
    assert not list(tmp_path.glob("*.half")) + list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--out", "topics.xlsx"), "ends in none of .parquet, .csv, .jsonl"),
        (("--out", "nowhere/topics.csv"), "name a file in a folder that exists"),
        (("--sentences",), "write a file: name it with --out"),
        (("--out", "a.csv", "--sentences", "--for-sentiment"), "write one at a time"),
        (("--out", "a.csv", "--sentences", "--limit", "3"), "leave them out, or choose firms with --firm"),
        (("--out", "a.csv", "--themes", Q), "--themes says which themes --for-sentiment writes"),
        (("--skipped", "--out", "a.csv"), "--skipped lists firms"),
    ],
)
def test_options_that_do_not_fit_together(ftm: Ftm, arguments: tuple[str, ...], sentence: str) -> None:
    assert sentence in ftm("topics", Q, *arguments, exit_code=2).stderr.replace("\n", " ")


@pytest.mark.parametrize(
    ("title", "schema"),
    [
        ("A part: one topic per row", parts.SCHEMA),
        ("topics --out", files.TOPICS_SCHEMA),
        ("topics --out --sentences", files.SENTENCES_SCHEMA),
        ("topics --out --for-sentiment", files.SENTIMENT_SCHEMA),
        ("Firms without topics", files.SKIPPED_SCHEMA),
        ("themes.parquet", results.THEMES_SCHEMA),
        ("theme_topics.parquet", results.THEME_TOPICS_SCHEMA),
    ],
)
def test_the_page_has_the_columns_of_the_code(title: str, schema: pa.Schema) -> None:
    described = columns_of_section(title)
    if title == "topics --out":  # the columns of a part, and two more
        described = columns_of_section("A part: one topic per row") + described
    assert described == [(field.name, type_name(field)) for field in schema]


def test_the_page_has_the_columns_of_a_prefetch() -> None:
    described = columns_of_section("The prefetch: one sentence per row")
    assert sorted(name for name, _ in described) == sorted(SENTENCE_COLUMNS)


def columns_of_section(title: str) -> list[tuple[str, str]]:
    """Name and type of each column in the section's table."""
    section = PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| ([^|]*) \|", section, re.MULTILINE)
    return [(name, kind.strip()) for name, kind in rows]


def type_name(field: pa.Field) -> str:
    """As docs/data.md writes it: Arrow's name, and whether it may be null."""
    kind = field.type
    name = str(kind)
    if pa.types.is_list(kind):
        name = "list of struct" if pa.types.is_struct(kind.value_type) else f"list of {kind.value_type}"
    return f"{name} or null" if field.nullable else name
