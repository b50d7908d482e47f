"""Reading prefetch chunks: which values are accepted, which become null, and which make a firm unreadable."""

import asyncio
import json
from collections.abc import Sequence
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from io import BytesIO
from typing import Any, cast
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.bucket import Bucket, Stored
from contract.layout import chunk_key, prefetch_manifest_key
from testing.worker import CHUNK_SCHEMA, QUARTER, call
from worker import WorkerError, sentences
from worker.firm import Firm
from worker.prefetch import read_firms
from worker.sentences import SCHEMA, Sentences

ROWS = 4
NEW_YORK = timezone(timedelta(hours=-5))


def table(**columns: Any) -> pa.Table:
    """A call of four sentences with other columns; None leaves a column out."""
    made = pa.Table.from_pylist(call("ALPHA", ROWS), CHUNK_SCHEMA)
    for name, values in columns.items():
        index = made.schema.get_field_index(name)
        if values is None:
            made = made.remove_column(index)
        elif index < 0:
            made = made.append_column(name, pa.array(values))
        else:
            made = made.set_column(index, name, values if isinstance(values, pa.Array) else pa.array(values))
    return made


def read(made: pa.Table, firm_ids: Sequence[str] | None = None, **options: Any) -> Sentences:
    sink = BytesIO()
    pq.write_table(made, sink, **options)
    return sentences.read(pa.py_buffer(sink.getvalue()), "chunk_0000.parquet", firm_ids)


def values(found: Sentences, column: str) -> list[Any]:
    return list(dict.fromkeys(found.table[column].to_pylist()))


TEXTS = ["Margins rose.", "Łódź grew — 5%", "利润 增长", ""]


@pytest.mark.parametrize(
    "kind",
    [
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.binary(),
        pa.large_binary(),
        pa.binary_view(),
        pa.dictionary(pa.int8(), pa.string()),
        pa.dictionary(pa.int32(), pa.large_string()),
    ],
    ids=str,
)
@pytest.mark.parametrize("column", ["raw_text", "firm_name"])
def test_every_text_type_is_read_unchanged(column: str, kind: pa.DataType) -> None:
    array = pa.array(TEXTS).dictionary_encode() if pa.types.is_dictionary(kind) else pa.array(TEXTS)

    found = read(table(**{column: array.cast(kind)}))

    assert found.table.schema == SCHEMA
    assert found.table[column].to_pylist() == TEXTS
    assert not found.unreadable


@pytest.mark.parametrize("kind", [pa.string_view(), pa.binary_view()], ids=str)
def test_rows_are_chosen_from_columns_of_views(kind: pa.DataType) -> None:
    found = read(
        table(firm_id=pa.array(["ALPHA", "BETA"] * 2).cast(kind), raw_text=pa.array(TEXTS).cast(kind)), ["BETA"]
    )

    assert found.table["raw_text"].to_pylist() == TEXTS[1::2]


@pytest.mark.parametrize("ids", [pa.array([10001] * 4), pa.array([10001.0] * 4), pa.array([Decimal(10001)] * 4)])
def test_a_firm_id_may_be_a_number(ids: pa.Array) -> None:
    found = read(table(firm_id=ids), ["10001", "OTHER"])

    assert values(found, "firm_id") == ["10001"]
    assert len(found.table) == ROWS


@pytest.mark.parametrize(
    "permno",
    [
        pa.array([10001, None, 10001, 10001], pa.uint16()),
        pa.array([10001.0, float("nan"), 10001.0, 10001.0]),
        pa.array(["10001", "", "10001.0", " 10001 "]),
        pa.array(["10001", "nan", "None", "10001"]).dictionary_encode(),
        pa.array([Decimal("10001.00"), None, None, Decimal("10001.00")]),
        pa.array([b"10001", None, b"10001", b"10001"]),
    ],
    ids=str,
)
def test_a_permno_is_a_whole_number_or_missing(permno: pa.Array) -> None:
    found = read(table(permno=permno))

    assert set(found.table["permno"].to_pylist()) == {10001, None}
    assert not found.nulled


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"permno": ["10001", "N/A", "N/A", "10001"]}, "permno: 2 values are not whole numbers, first 'N/A' (ALPHA, "),
        ({"permno": [1.5, 1.0, 1.0, 1.0]}, "permno: 1 value is not a whole number, first 1.5 (ALPHA, "),
        ({"permno": [float("inf"), 1.0, 1.0, 1.0]}, "permno: 1 value is not a whole number, first inf"),
        ({"permno": [True] * 4}, "permno: 4 values are not whole numbers, first True"),
        ({"permno": [[1]] * 4}, "permno: 4 values are not whole numbers, first [1]"),
        (
            {"permno": pa.array([2**63, 1, 1, 1], pa.uint64())},
            "permno: 1 value is not a whole number from 1 to 2^63 - 1, first 9223372036854775808",
        ),
        ({"gvkey": ["001690", "#N/A", "unknown", "001690"]}, "gvkey: 2 values are not numbers of up to six digits"),
        ({"gvkey": [b"\xff", b"1", b"1", b"1"]}, "gvkey: 1 value is not a number of up to six digits, first"),
        ({"earnings_call_date": ["03/04/2021"] * 4}, "earnings_call_date: 4 values are not unambiguous dates"),
        ({"earnings_call_date": ["2021-02-30"] * 4}, "4 values are not unambiguous dates, first '2021-02-30'"),
        ({"earnings_call_date": pa.array([10**9] * 4, pa.int32()).cast(pa.date32())}, "4 values are not unambiguous"),
        (
            {"earnings_call_date": pa.array([18928, 2**31 - 1, 18928, 18928], pa.int32()).cast(pa.date32())},
            "1 value is not an unambiguous date",
        ),
        (
            {"gvkey": pa.array([b"001690", b"\xff", b"001690", b"001690"]).view(pa.string())},
            "gvkey: 1 value is not a number of up to six digits, first b'\\xff'",
        ),
        ({"earnings_call_date": [44497] * 4}, "4 values are not unambiguous dates, first 44497"),
    ],
)
def test_an_invalid_optional_cell_becomes_null_and_is_counted(columns: dict[str, Any], sentence: str) -> None:
    found = read(table(**columns))

    assert [sentence in str(problem) for problem in found.nulled] == [True]
    assert not found.unreadable
    assert None in found.table[next(iter(columns))].to_pylist()


@pytest.mark.parametrize(
    "gvkey", [[1690.0] * 4, [1690] * 4, ["1690"] * 4, ["1690.0"] * 4, [Decimal(1690)] * 4], ids=str
)
def test_a_gvkey_has_six_digits(gvkey: list[Any]) -> None:
    found = read(table(gvkey=gvkey))

    assert values(found, "gvkey") == ["001690"]
    assert found.padded == ROWS


@pytest.mark.parametrize(
    "written",
    [
        "2021-10-28",
        "2021/10/28",
        "20211028",
        "2021-10-28T17:00:00Z",
        "2021-10-28 17:00:00.000-04:00",
        "10/28/2021",
        "10/28/2021 5:00 PM",
        "28/10/2021",
        "28.10.2021",
        "28-Oct-2021",
        "28 October 2021",
        "Oct 28, 2021",
        "October 28th, 2021",
        "Thursday, October 28, 2021",
        "28OCT2021",
        "28th of October 2021",
        "Thu, 28 Oct 2021 17:00:00 GMT",
        "Thu Oct 28 17:00:00 2021",
        "2021-10-28 5:00 p.m. ET",
        b"2021-10-28",
        20211028,
        20211028.0,
        datetime(2021, 10, 28, 23, 30),
        datetime(2021, 10, 28, 22, 30, tzinfo=NEW_YORK),
        date(2021, 10, 28),
    ],
    ids=str,
)
def test_dates_are_read_in_every_common_notation(written: Any) -> None:
    kind = pa.timestamp("us", "America/New_York") if getattr(written, "tzinfo", None) else None

    found = read(table(earnings_call_date=pa.array([written, None, written, written], kind)))

    assert set(found.table["earnings_call_date"].to_pylist()) == {date(2021, 10, 28), None}
    assert not found.nulled


@pytest.mark.parametrize(
    "kind", [pa.date64(), pa.timestamp("s"), pa.timestamp("ms"), pa.timestamp("us"), pa.timestamp("ns")]
)
def test_dates_are_read_from_every_type(kind: pa.DataType) -> None:
    days = pa.array([date(2021, 10, 28)] * ROWS).cast(kind)

    assert values(read(table(earnings_call_date=days)), "earnings_call_date") == [date(2021, 10, 28)]


@pytest.mark.parametrize("position", [[0.0, 1.0, 2.0, 3.0], ["0", "1", "2", "3"], pa.array([0, 1, 2, 3], pa.uint64())])
def test_a_position_is_a_whole_number(position: Any) -> None:
    assert read(table(position=position)).table["position"].to_pylist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        (
            {"position": [0.5, 1.5, 2.0, 3.0]},
            "position: 2 values are not whole numbers, first 0.5 (ALPHA, sentence ALPHA_ALPHA-1_0000)",
        ),
        ({"position": [0, -1, 2, 3]}, "position: 1 value is not a whole number from 0 to 2^31 - 1, first -1"),
        ({"raw_text": [b"fine", "Zürich".encode("latin-1"), b"", b""]}, "raw_text: 1 value is not UTF-8 text"),
        ({"sentence_id": [b"a", b"\xff", b"c", b"d"]}, "first b'\\xff' (ALPHA, row 2)"),
        ({"quarter": [185, 185, 185, None]}, "quarter: 3 values are not quarters such as 2016Q2, first 185 (ALPHA, "),
        ({"speaker_type": [None, 1.0, None, None]}, "speaker_type: 1 value is not UTF-8 text, first 1.0 (ALPHA, "),
    ],
)
def test_an_invalid_required_cell_makes_its_firm_unreadable(columns: dict[str, Any], sentence: str) -> None:
    found = read(table(**columns, firm_id=["ALPHA", "ALPHA", "ALPHA", "BETA"]))

    assert sentence in str(found.unreadable[0])
    assert found.unreadable[0].firms == {"ALPHA"}


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"raw_text": [7] * 4}, "the column raw_text is of type int64, not text"),
        ({"position": [True] * 4}, "the column position is of type bool, not whole numbers"),
        ({"firm_id": pa.nulls(4)}, "the column firm_id is of type null, not text"),
        ({"Raw_text": ["a"] * 4, "RAW_TEXT": ["a"] * 4, "raw_text": None}, "the column raw_text is there twice, as"),
        ({"cleaned_text": None, "gvkey": None}, "lacks the column cleaned_text"),
    ],
)
def test_an_unreadable_column_is_reported(columns: dict[str, Any], sentence: str) -> None:
    with pytest.raises(WorkerError, match=sentence):
        read(table(**columns))


@pytest.mark.parametrize("column", ["permno", "gvkey", "earnings_call_date"])
def test_an_optional_column_may_be_missing(column: str) -> None:
    found = read(table(**{column: None}))

    assert values(found, column) == [None]
    assert found.table.schema == SCHEMA
    assert not found.nulled


def test_a_uuid_is_read_as_text() -> None:
    ids = [UUID(int=number) for number in range(ROWS)]

    found = read(table(sentence_id=pa.array([each.bytes for each in ids], pa.uuid())))

    assert found.table["sentence_id"].to_pylist() == [str(each) for each in ids]


@pytest.mark.parametrize(
    ("written", "quarter"),
    [
        *((text, "2016Q2") for text in ("2016Q2", " 2016q2\r\n", "2016-Q2", "Q2 2016", "2Q2016", 20162)),
        *((text, "Q2") for text in (2, 2.0, "2", "q2")),
        *((missing, None) for missing in ("", "nan", float("nan"))),
    ],
)
def test_a_quarter_is_read_in_the_usual_notations(written: Any, quarter: str | None) -> None:
    found = read(table(quarter=[written] * ROWS))

    assert values(found, "quarter") == [quarter]
    assert not found.unreadable


def test_columns_are_found_in_any_case() -> None:
    made = table()
    found = read(made.rename_columns([name.upper() for name in made.column_names]))

    assert found.table.equals(read(made).table)
    assert found.renamed == [name.upper() for name in SCHEMA.names]
    assert read(made.append_column("RAW_TEXT", made["permno"])).table.equals(found.table)


@pytest.mark.parametrize("column", ["firm_name", "speaker_type", "quarter"])
def test_a_text_column_without_a_value_may_be_of_floats(column: str) -> None:
    assert values(read(table(**{column: [float("nan"), None, None, None]})), column) == [None]


def test_the_quarter_may_be_only_in_the_name_of_the_folder() -> None:
    assert values(read(table(quarter=None)), "quarter") == [None]


@pytest.mark.parametrize(
    "options", [{"row_group_size": 1}, {"compression": "zstd"}, {"version": "1.0"}, {"use_dictionary": False}]
)
def test_row_groups_and_compression_do_not_matter(options: dict[str, Any]) -> None:
    assert read(table(), **options).table.equals(read(table()).table)


class Files:
    """A prefetch of one chunk, read like a bucket."""

    def __init__(self, made: pa.Table) -> None:
        sink = BytesIO()
        pq.write_table(made, sink)
        manifest = {
            "quarter": QUARTER,
            "n_firms": 1,
            "n_chunks": 1,
            "chunk_sizes": {"chunk_0000.parquet": 1},
            "firm_to_chunk": {"ALPHA": "chunk_0000.parquet"},
        }
        self._files = {
            prefetch_manifest_key(QUARTER): json.dumps(manifest).encode(),
            chunk_key(QUARTER, "chunk_0000.parquet"): sink.getvalue(),
        }

    def get(self, key: str) -> Stored:
        return Stored(self._files[key], etag="")


def firm(**columns: Any) -> Firm:
    """The firm of the table with other columns, as the batch gets it."""

    async def read() -> list[Any]:
        return [each async for each in read_firms(cast(Bucket, Files(table(**columns))), QUARTER, ["ALPHA"])]

    (found,) = asyncio.run(read())
    assert isinstance(found, Firm), found
    return found


def test_a_firm_has_the_first_identifiers_that_can_be_read() -> None:
    found = firm(permno=[None, "N/A", "10001", "7"], gvkey=["", "?", "1690", ""], firm_name=["nan", None, "Alpha", "A"])

    assert (found.permno, found.gvkey, found.firm_name) == (10001, "001690", "Alpha")


def test_sentences_without_ids_get_unique_ones() -> None:
    found = firm(sentence_id=["", None, "", None], position=[0] * ROWS)

    assert len({sentence.sentence_id for sentence in found.sentences}) == ROWS


def test_a_sentence_without_raw_text_is_shown_by_its_cleaned_text() -> None:
    found = firm(raw_text=["Margins rose.", " ", None, "NaN"], cleaned_text=["margins rose", "debt fell", "", "sales"])

    assert [sentence.raw_text for sentence in found.sentences] == ["Margins rose.", "debt fell", "", "sales"]


TYPES = st.sampled_from(
    [
        *(pa.string(), pa.large_string(), pa.binary(), pa.int8(), pa.int64(), pa.uint64(), pa.float64(), pa.bool_()),
        *(pa.null(), pa.date32(), pa.timestamp("ns", "UTC"), pa.decimal128(9, 2), pa.time64("us"), pa.duration("s")),
        *(pa.list_(pa.string()), pa.dictionary(pa.int32(), pa.string()), pa.struct([("a", pa.int64())])),
    ]
)


@settings(max_examples=60, deadline=None, database=None)
@given(st.dictionaries(st.sampled_from(SCHEMA.names), TYPES, max_size=4), st.sets(st.sampled_from(SCHEMA.names)))
def test_a_chunk_of_any_types_is_read_as_the_contracts_columns_or_refused(
    types: dict[str, pa.DataType], absent: set[str]
) -> None:
    made = table()
    for name, kind in types.items():
        try:
            column = made[name].cast(kind)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            column = pa.nulls(len(made), kind)
        made = made.set_column(made.schema.get_field_index(name), name, column)
    try:
        found = read(made.drop_columns(sorted(absent & types.keys())))
    except pa.ArrowNotImplementedError:
        return  # Parquet has no such type
    except WorkerError as error:
        refused = str(error)
    else:
        assert found.table.schema.types == SCHEMA.types
        return
    assert "chunk_0000.parquet" in refused
