"""`ftm topics`: only topics of listed parts are shown."""

import io
import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract import layout

from .conftest import BUCKET, RUN, SUCCEEDS, Aws, Ftm, parquet, put_run


def test_only_topics_of_listed_parts_are_shown_sorted_by_firm_and_number(aws: Aws, ftm: Ftm) -> None:
    put_run(aws, SUCCEEDS)

    topics = json.loads(ftm("topics", SUCCEEDS, "--json").stdout)

    assert [topic["topic_id"] for topic in topics] == ["F0_2", "F0_10", "F2_0"]
    assert topics[0] == {
        "firm_id": "F0",
        "firm_name": "F0 Corp",
        "topic_id": "F0_2",
        "name": "Topic 2 of F0",
        "summary": "A sentence about it.",
        "keywords": ["margin", "growth"],
        "n_sentences": 7,
        "naming_method": "llm",
    }


def test_readable_output_on_a_terminal_and_in_a_pipe(aws: Aws, ftm: Ftm) -> None:
    put_run(aws, SUCCEEDS)

    result = ftm("topics", SUCCEEDS)

    assert "F2\tF2_0\tTopic 0 of F2\t7\tmargin, growth\tllm" in result.stdout
    assert "3 topics of 2 firms, 3 named by the LLM" in result.stderr


def test_topics_of_no_one_subject_are_left_out(aws: Aws, ftm: Ftm) -> None:
    put_run(aws, SUCCEEDS)
    s3 = aws.client("s3")
    prefix = layout.RunRef(SUCCEEDS, RUN).parts_prefix
    for item in s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix)["Contents"]:
        table = pq.read_table(io.BytesIO(s3.get_object(Bucket=BUCKET, Key=item["Key"])["Body"].read()))
        coherent = [topic != "F0_2" for topic in table["topic_id"].to_pylist()]
        body = io.BytesIO()
        pq.write_table(table.drop_columns("coherent").append_column("coherent", pa.array(coherent)), body)
        s3.put_object(Bucket=BUCKET, Key=item["Key"], Body=body.getvalue())

    assert len(json.loads(ftm("topics", SUCCEEDS, "--json").stdout)) == 3
    shown = json.loads(ftm("topics", SUCCEEDS, "--coherent", "--json").stdout)
    assert [topic["topic_id"] for topic in shown] == ["F0_10", "F2_0"]


def test_one_firm(aws: Aws, ftm: Ftm) -> None:
    put_run(aws, SUCCEEDS)

    topics = json.loads(ftm("topics", SUCCEEDS, "--firm", "F2", "--json").stdout)

    assert [topic["firm_id"] for topic in topics] == ["F2"]


@pytest.mark.parametrize(
    ("firm", "reason"), [("NOPE", "not among the firms"), ("F1", "it was skipped, 2 usable sentences")]
)
def test_a_firm_without_topics(aws: Aws, ftm: Ftm, firm: str, reason: str) -> None:
    put_run(aws, SUCCEEDS)

    assert reason in ftm("topics", SUCCEEDS, "--firm", firm, exit_code=3).stderr


def test_another_run(aws: Aws, ftm: Ftm) -> None:
    put_run(aws, SUCCEEDS, latest=False)

    assert f"--run {RUN}" in ftm("topics", SUCCEEDS, exit_code=3).stderr  # no run has succeeded, one has begun
    assert len(json.loads(ftm("topics", SUCCEEDS, "--run", RUN, "--json").stdout)) == 3


def test_an_unknown_run_is_reported(aws: Aws, ftm: Ftm) -> None:
    put_run(aws, SUCCEEDS)

    result = ftm("topics", SUCCEEDS, "--run", "20200101_000000", exit_code=3)

    assert f"has no run 20200101_000000; its runs: {RUN}" in result.stderr


def test_a_quarter_without_runs(aws: Aws, ftm: Ftm) -> None:
    assert "run-quarter 2019Q1" in ftm("topics", "2019Q1", exit_code=3).stderr


def test_an_invalid_record_of_the_last_run_is_reported(aws: Aws, ftm: Ftm) -> None:
    put_run(aws, SUCCEEDS)
    aws.client("s3").put_object(Bucket=BUCKET, Key=layout.latest_key(SUCCEEDS), Body=b"{}")

    assert "does not name a run: name one with --run" in ftm("topics", SUCCEEDS, exit_code=2).stderr


def test_no_control_character_of_the_data_reaches_the_terminal(aws: Aws, ftm: Ftm) -> None:
    put_run(aws, SUCCEEDS)
    part = layout.RunRef(SUCCEEDS, RUN).part_key(layout.batch_id(SUCCEEDS, 0), 0, "a")
    rows = pq.read_table(io.BytesIO(parquet(SUCCEEDS, [("F2", 0)]))).to_pylist()
    rows[0]["name"] = rows[0]["summary"] = "\x1b]0;title\x07 and \x9b31m red"
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    aws.client("s3").put_object(Bucket=BUCKET, Key=part, Body=sink.getvalue())

    shown = [ftm("topics", SUCCEEDS), ftm("topics", SUCCEEDS, "--json"), ftm("topics", "\x1b[31m2023Q1", exit_code=2)]

    assert "\\x1b]0;title\\x07 and \\x9b31m red" in shown[0].stdout
    assert json.loads(shown[1].stdout)[0]["name"] == rows[0]["name"]
    for result in shown:
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", result.stdout + result.stderr.replace("\x1b[", ""))
