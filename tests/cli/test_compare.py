"""`ftm compare`: topics matched by their sentences, names held against each other, and a judge that is not trusted."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cli.services.comparison import word_similarity
from contract import layout
from contract.batch import BatchProgress, Counts
from contract.topics import TOPIC_COLUMNS

from .conftest import BUCKET, RUN, SUCCEEDS, Aws, Ftm

Q = SUCCEEDS
OTHER = "20230406_101500"

A = [
    ("ACME", 0, "Gross margin expansion", ["s1", "s2", "s3"], "llm"),
    ("ACME", 1, "Acme store openings", ["s4", "s5"], "llm"),
    ("BETA", 0, "Gross margin expansion", ["s6"], "llm"),
    ("BETA", 1, "Only in the first", ["s7"], "llm"),
]
B = [
    ("ACME", 0, "Store openings", ["s4", "s5"], "llm"),
    ("ACME", 1, "Expanding gross margins", ["s1", "s2"], "llm"),
    ("BETA", 0, "rates, currency, dollar", ["s6"], "keywords"),
]


def parquet(topics: list[tuple[str, int, str, list[str], str]], quarter: str = Q) -> bytes:
    rows = [
        {
            **dict.fromkeys(TOPIC_COLUMNS),
            "firm_id": firm,
            "firm_name": f"{firm.title()} Corporation",
            "quarter": quarter,
            "topic_id": f"{firm}_{number}",
            "local_topic_id": number,
            "name": name,
            "summary": "What is said about it.",
            "naming_method": method,
            "model": "m",
            "keywords": ["k"],
            "sentence_ids": sentences,
        }
        for firm, number, name, sentences, method in topics
    ]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue().to_pybytes()


@pytest.fixture
def runs(aws: Aws) -> Aws:
    """Two runs of the quarter, the first one the latest."""
    s3, batch = aws.client("s3"), layout.batch_id(Q, 0)
    for run, topics in ((RUN, A), (OTHER, B)):
        part = layout.part_key(Q, run, batch, 0)
        record = BatchProgress(batch, Q, run, 2, "complete", {"ACME": Counts(2, 2), "BETA": Counts(1, 1)}, parts=[part])
        s3.put_object(Bucket=BUCKET, Key=part, Body=parquet(topics))
        s3.put_object(Bucket=BUCKET, Key=layout.progress_key(Q, run, batch), Body=record.to_json())
    s3.put_object(Bucket=BUCKET, Key=layout.latest_key(Q), Body=json.dumps({"run": RUN}).encode())
    return aws


def test_topics_are_matched_by_their_sentences(runs: Aws, ftm: Ftm) -> None:
    result = json.loads(ftm("compare", Q, "--with", OTHER, "--json").stdout)

    assert (result["firms"], result["matched"], result["only_a"], result["only_b"]) == (2, 3, 1, 0)
    assert [(pair["a_topic"], pair["b_topic"]) for pair in result["differ_most"]] == [
        ("BETA_0", "BETA_0"),
        ("ACME_1", "ACME_0"),
        ("ACME_0", "ACME_1"),
    ]
    assert result["differ_most"][0]["similarity"] == 0
    assert result["judge"] is None


def test_each_naming_is_told_by_itself(runs: Aws, ftm: Ftm) -> None:
    result = json.loads(ftm("compare", Q, "--with", OTHER, "--json").stdout)

    assert result["a"]["generalisable"] == 0.75  # one name says Acme
    assert result["a"]["shared_names"] == 0.5
    assert result["a"]["fallbacks"] == 0
    assert result["b"]["fallbacks"] == pytest.approx(1 / 3, abs=1e-3)


def test_a_run_agrees_with_itself(runs: Aws, ftm: Ftm) -> None:
    result = json.loads(ftm("compare", Q, "--with", RUN, "--json").stdout)

    assert (result["agreement"], result["same_names"], result["matched"]) == (1, 1, 4)


def test_a_file_and_lines_for_a_person(runs: Aws, ftm: Ftm, tmp_path: Path) -> None:
    path = tmp_path / "hosted.parquet"
    path.write_bytes(parquet(B))

    text = ftm("compare", Q, "--with", str(path), "--show", "1").stdout

    assert "fallbacks to keywords\t0.0%\t33.3%" in text
    assert "BETA_0\t0.00\tGross margin expansion\trates, currency, dollar" in text


def test_what_cannot_be_compared(runs: Aws, ftm: Ftm, tmp_path: Path) -> None:
    path = tmp_path / "other.parquet"
    path.write_bytes(parquet(B, quarter="2020Q1"))
    assert "names topics of 2020Q1, not of 2023Q1" in ftm("compare", Q, "--with", str(path), exit_code=2).stderr
    path.write_text("no Parquet")
    assert "is not a Parquet file" in ftm("compare", Q, "--with", str(path), exit_code=2).stderr
    assert "neither a file nor a run" in ftm("compare", Q, "--with", "nothing", exit_code=2).stderr
    assert "has no run 20200101_000000" in ftm("compare", Q, "--with", "20200101_000000", exit_code=3).stderr


@pytest.mark.parametrize(
    ("first", "second", "similarity"),
    [
        ("Gross margin expansion", "Expansion of gross margins", 1),
        ("Gross margin expansion", "Currency headwinds", 0),
        ("Store openings", "New store openings", 0.8),
    ],
)
def test_names_are_alike_by_their_words(first: str, second: str, similarity: float) -> None:
    assert word_similarity(first, second) == similarity


class Judge(BaseHTTPRequestHandler):
    """Prefers the label that speaks of margins, or else whatever comes first; keeps the prompts that it saw."""

    prompts: list[str]
    answer: str | None

    def do_GET(self) -> None:
        self._reply({"data": [{"id": "judge-1"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = body["messages"][-1]["content"]
        Judge.prompts.append(prompt)
        second = prompt.split("Label 2: ")[1]
        better = "2" if "margins" in second else "1"
        content = Judge.answer or json.dumps({"better": better})
        self._reply({"choices": [{"message": {"content": content}}]})

    def _reply(self, document: Any) -> None:
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def judge(runs: Aws) -> Iterator[str]:
    manifest = {
        "quarter": Q,
        "n_firms": 2,
        "n_chunks": 1,
        "chunk_sizes": {"chunk_0000.parquet": 2},
        "firm_to_chunk": dict.fromkeys(("ACME", "BETA"), "chunk_0000.parquet"),
    }
    s3 = runs.client("s3")
    s3.put_object(Bucket=BUCKET, Key=layout.prefetch_manifest_key(Q), Body=json.dumps(manifest).encode())
    sentences = [{"sentence_id": f"s{number}", "raw_text": f"Sentence number {number}."} for number in range(8)]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(sentences), sink)
    chunk = layout.chunk_key(Q, "chunk_0000.parquet")
    s3.put_object(Bucket=BUCKET, Key=chunk, Body=sink.getvalue().to_pybytes())
    Judge.prompts, Judge.answer = [], None
    server = HTTPServer(("127.0.0.1", 0), Judge)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


def test_a_judge_is_asked_in_both_orders_and_its_contradictions_do_not_count(judge: str, ftm: Ftm) -> None:
    result = json.loads(ftm("compare", Q, "--with", OTHER, "--judge", judge, "--json").stdout)

    assert result["judge"] == {"model": "judge-1", "pairs": 3, "a": 0, "b": 1, "equal": 0, "contradicted": 2}
    assert len(Judge.prompts) == 6
    assert any("- Sentence number 6." in prompt for prompt in Judge.prompts)


def test_a_judge_that_answers_garbage(judge: str, ftm: Ftm) -> None:
    Judge.answer = "I like both."

    assert "does not answer as asked" in ftm("compare", Q, "--with", OTHER, "--judge", judge, exit_code=1).stderr


def test_a_judge_that_is_not_there(runs: Aws, judge: str, ftm: Ftm) -> None:
    nobody = "http://127.0.0.1:9/v1"
    assert "does not answer" in ftm("compare", Q, "--with", OTHER, "--judge", nobody, exit_code=3).stderr
    assert "is no address" in ftm("compare", Q, "--with", OTHER, "--judge", "nobody", exit_code=2).stderr
