"""`ftm compare`: matching topics by sentences, comparing names, and asking a judge in both orders."""

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract import layout
from contract.batch import BatchProgress, Counts, Part
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
    """Two runs of the quarter, of which the first is the latest."""
    s3, batch = aws.client("s3"), layout.batch_id(Q, 0)
    for run, topics in ((RUN, A), (OTHER, B)):
        ref = layout.RunRef(Q, run)
        part = ref.part_key(batch, 0, "a")
        record = BatchProgress(
            batch, ref, 2, "complete", {"ACME": Counts(2, 2), "BETA": Counts(1, 1)}, parts={part: Part("", 3)}
        )
        s3.put_object(Bucket=BUCKET, Key=part, Body=parquet(topics))
        s3.put_object(Bucket=BUCKET, Key=ref.progress_key(batch), Body=record.to_json())
    s3.put_object(Bucket=BUCKET, Key=layout.latest_key(Q), Body=json.dumps({"run": RUN}).encode())
    return aws


def test_topics_are_matched_by_their_sentences_and_each_set_of_names_is_described(runs: Aws, ftm: Ftm) -> None:
    result = json.loads(ftm("compare", Q, "--with", OTHER, "--json").stdout)

    assert (result["firms"], result["matched"], result["only_a"], result["only_b"]) == (2, 3, 1, 0)
    assert [(pair["a_topic"], pair["b_topic"]) for pair in result["differ_most"]] == [
        ("BETA_0", "BETA_0"),
        ("ACME_0", "ACME_1"),
        ("ACME_1", "ACME_0"),
    ]
    assert result["differ_most"][0]["similarity"] == 0
    assert result["judge"] is None
    assert result["a"]["generalisable"] == 0.75  # one name contains Acme
    assert result["a"]["shared_names"] == 0.5
    assert result["a"]["fallbacks"] == 0
    assert result["b"]["fallbacks"] == pytest.approx(1 / 3, abs=1e-3)


def test_a_run_compared_with_itself_agrees(runs: Aws, ftm: Ftm) -> None:
    result = json.loads(ftm("compare", Q, "--with", RUN, "--json").stdout)

    assert (result["agreement"], result["same_names"], result["matched"]) == (1, 1, 4)


def test_a_file_is_compared_and_the_result_is_readable(runs: Aws, ftm: Ftm, tmp_path: Path) -> None:
    path = tmp_path / "hosted.parquet"
    path.write_bytes(parquet(B))

    text = ftm("compare", Q, "--with", str(path), "--show", "1").stdout

    assert "fallbacks to keywords\t0.0%\t33.3%" in text
    assert "BETA_0\t0.00\tGross margin expansion\trates, currency, dollar" in text


def test_inputs_that_cannot_be_compared_are_rejected(runs: Aws, ftm: Ftm, tmp_path: Path) -> None:
    path = tmp_path / "other.parquet"
    path.write_bytes(parquet(B, quarter="2020Q1"))
    assert "names topics of 2020Q1, not of 2023Q1" in ftm("compare", Q, "--with", str(path), exit_code=2).stderr
    path.write_text("no Parquet")
    assert "is not a readable Parquet file" in ftm("compare", Q, "--with", str(path), exit_code=2).stderr
    assert "neither a file nor a run" in ftm("compare", Q, "--with", "nothing", exit_code=2).stderr
    path.write_bytes(damaged(parquet(B)))
    assert f"{path} is not a readable Parquet file" in ftm("compare", Q, "--with", str(path), exit_code=2).stderr
    assert "has no run 20200101_000000" in ftm("compare", Q, "--with", "20200101_000000", exit_code=3).stderr


def damaged(body: bytes) -> bytes:
    """The file with zeros in its first pages. Its metadata, at the end, is intact."""
    return body[:4] + bytes(200) + body[204:]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"sentence_ids": ["x1"]}, "have no topic in common, by their sentences"),
        ({"firm_id": "GAMMA"}, "have no firm in common"),
        ({"sentence_ids": "s6"}, "sentence_ids of the topic BETA_0 is not a list"),
        ({"sentence_ids": None}, "sentence_ids of the topic BETA_0 is not a list"),
        ({"name": None}, "the topic BETA_0 of the firm BETA has no name"),
        ({"topic_id": None}, "the topic None of the firm BETA has no topic_id"),
    ],
)
def test_a_file_with_unusable_topics_is_rejected(
    runs: Aws, ftm: Ftm, tmp_path: Path, change: dict[str, Any], sentence: str
) -> None:
    path = tmp_path / "named.parquet"
    (row,) = pq.read_table(pa.BufferReader(parquet(B[2:]))).to_pylist()
    pq.write_table(pa.Table.from_pylist([row | change]), path)

    refused = ftm("compare", Q, "--with", str(path), exit_code=2)

    assert sentence in refused.stderr
    assert not refused.stdout


EMBEDDER = """
class SentenceTransformer:
    def __init__(self, model, local_files_only=False):
        assert local_files_only, "the network is slow when it is not there"
        if HAS_NO_MODEL: raise OSError(model)
    def encode(self, names, **_):
        import numpy
        return numpy.eye(len(names))
"""


@pytest.mark.parametrize(("lacks_model", "measure"), [(False, "all-MiniLM-L6-v2"), (True, "words")])
def test_names_are_compared_by_embeddings_if_the_model_is_installed(
    runs: Aws, ftm: Ftm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacks_model: bool, measure: str
) -> None:
    (tmp_path / "sentence_transformers.py").write_text(EMBEDDER.replace("HAS_NO_MODEL", str(lacks_model)))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.syspath_prepend(tmp_path)

    result = ftm("compare", Q, "--with", OTHER)

    assert f"(by {measure})" in result.stdout
    assert ("hf download sentence-transformers/all-MiniLM-L6-v2" in result.stderr) == lacks_model


class Judge(BaseHTTPRequestHandler):
    """Prefers the label that mentions margins, otherwise the first one; keeps the requests."""

    requests: list[dict[str, Any]]
    keys: set[str | None]
    models: bytes
    status: int

    def do_GET(self) -> None:
        self._reply(Judge.models)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        Judge.requests.append(body)
        Judge.keys.add(self.headers["Authorization"])
        if Judge.status != 200:
            self._reply(b"{}", Judge.status)
            return
        prompt = body["messages"][-1]["content"]
        better = "2" if "margins" in prompt.split("Label 2: ")[1] else "1"
        verdict = json.dumps({"better": better})
        self._reply(json.dumps({"choices": [{"message": {"content": verdict}}]}).encode())

    def _reply(self, body: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def judge(runs: Aws, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.delenv("LLM_API_KEY", raising=False)
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
    Judge.requests, Judge.keys, Judge.status = [], set(), 200
    Judge.models = b'{"data": [{"id": "judge-1"}]}'
    server = HTTPServer(("127.0.0.1", 0), Judge)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


def test_the_judge_gets_sentences_the_chosen_model_and_the_key(
    judge: str, ftm: Ftm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM_API_KEY", "secret")
    monkeypatch.setenv("LLM_MODEL_NAME", "of-the-stack")
    Judge.models = b'{"data": [{"id": "small"}, {"id": "large"}]}'

    result = ftm("compare", Q, "--with", OTHER, "--judge", judge, "--judge-model", "large", "--json")

    counts = {"pairs": 3, "a": 0, "b": 1, "equal": 0, "contradicted": 2, "unanswered": 0}
    assert json.loads(result.stdout)["judge"] == {"model": "large", **counts}
    assert len(Judge.requests) == 6
    assert any("- Sentence number 6." in request["messages"][-1]["content"] for request in Judge.requests)
    assert {request["model"] for request in Judge.requests} == {"large"}
    assert Judge.keys == {"Bearer secret"}


def test_the_readable_output_ends_with_the_judged_pairs(judge: str, ftm: Ftm) -> None:
    lines = ftm("compare", Q, "--with", OTHER, "--judge", judge, "--judged", "2").stdout.splitlines()

    assert lines[0].startswith(Q)
    assert lines[-1].startswith("judged by judge-1, 2 of 3 differing pairs: a better 0, b better ")


def test_identical_names_are_not_judged(judge: str, ftm: Ftm) -> None:
    assert "there is nothing to judge" in ftm("compare", Q, "--with", RUN, "--judge", judge).stderr
    assert not Judge.requests


def test_the_comparison_is_printed_even_if_the_judge_fails(judge: str, ftm: Ftm) -> None:
    Judge.status = 401
    refused = ftm("compare", Q, "--with", OTHER, "--judge", judge, "--json", exit_code=4)

    assert "wants a key (HTTP 401" in refused.stderr
    counted = json.loads(refused.stdout)
    assert (counted["matched"], counted["judge"]) == (3, None)


@pytest.mark.parametrize(
    "url", ["nobody", "", "ftp://host/v1", "http://", "http://[bad", "http://host:91 01/v1", "http://host:port/v1"]
)
def test_an_invalid_address_is_rejected(aws: Aws, ftm: Ftm, url: str) -> None:
    refused = ftm("compare", Q, "--with", OTHER, "--judge", url, exit_code=2)

    assert f"--judge is {url!r}, which is not a valid URL" in refused.stderr


def test_a_password_in_an_address_is_rejected_and_not_shown(aws: Aws, ftm: Ftm) -> None:
    refused = ftm("compare", Q, "--with", OTHER, "--judge", "http://user:k3y@host/v1", exit_code=2)

    assert "--judge has a user or a password in it" in refused.stderr
    assert "k3y" not in refused.output
