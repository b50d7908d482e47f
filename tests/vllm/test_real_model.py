"""A quarter named by a real but too weak model: its answers are handled, and the run reports the problem."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contract import env
from contract.batch import BatchLine
from contract.layout import chunk_key
from local.samples import writer as samples
from testing.vllm_server import VllmServer, build_model
from testing.worker import BATCH, BUCKET, QUARTER, RUN, Bucket, Worker, batch_environment, kill
from worker.naming.content import is_vacuous, loops

FIRMS = 1
"""Six topics; the model takes some seconds for each of them."""
SECONDS = 900


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    folder = tmp_path_factory.mktemp("model") / "smollm2"
    build_model(folder, "smollm2.py")
    server = VllmServer(folder, folder.parent / "vllm.log")
    try:
        server.start()
        yield server
    finally:
        server.kill()


def put_samples(bucket: Bucket, folder: Path) -> None:
    samples.write(folder, QUARTER, FIRMS)
    for chunk in folder.glob("*.parquet"):
        bucket.put(chunk_key(QUARTER, chunk.name), chunk.read_bytes())
    firms = json.loads((folder / "manifest.json").read_text())["firm_to_chunk"]
    bucket.put_manifests(firms)
    bucket.put(RUN.manifest_key, BatchLine(BATCH, QUARTER, list(firms)).to_json().encode())  # and of no other batch


def summarize(monkeypatch: pytest.MonkeyPatch, bucket: Bucket) -> dict[str, Any]:
    """The summary of the run, from the function that decides whether it succeeded."""
    for name, value in {**bucket.aws, "JOB_QUEUE_ARN": "none", "JOB_NAME_PREFIX": "ftm"}.items():
        monkeypatch.setenv(name, value)
    from functions import summarize_results  # creates its clients on import, as in Lambda

    state: Any = {
        "quarter": QUARTER,
        "bucket": BUCKET,
        "manifest": {"run": RUN.run, "batch_ids": [BATCH]},
        "batches": [{"batch_id": BATCH, "status": "SUCCEEDED"}],
    }
    return {**summarize_results.handler({"state": state, "execution": "arn"}, None)}


def test_a_weak_model_does_not_give_a_successful_run(
    smollm2: VllmServer, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_samples(bucket, tmp_path)
    worker = Worker(batch_environment(bucket, smollm2.base_url))

    process = worker.start(**{env.LLM_MODEL_NAME: smollm2.served_model, env.LLM_MAX_CONCURRENT: "4"})
    try:
        stdout, stderr = process.communicate(timeout=SECONDS)
    finally:
        kill(process)

    assert process.returncode == 0, stderr
    assert "Traceback" not in stdout + stderr
    rows, counts = bucket.topics(), bucket.progress().counts
    named = [row for row in rows if row["naming_method"] == "llm"]
    print(json.dumps({row["name"]: row["summary"] for row in named}, indent=1))
    print(json.dumps({kind: vars(fallback) for kind, fallback in counts.fallbacks.items()}, indent=1))
    assert len(rows) == counts.topics >= 2 * FIRMS
    assert len(named) == counts.named < counts.topics / 2
    assert not [row["name"] for row in named if is_vacuous(row["name"]) or loops(row["summary"])]
    assert all(row["name"] == ", ".join(row["keywords"][:3]) for row in rows if row not in named)
    assert sum(fallback.topics for fallback in counts.fallbacks.values()) == counts.topics - counts.named
    assert "vacuous" in counts.fallbacks

    summary = summarize(monkeypatch, bucket)
    assert summary["has_failures"]
    assert f"the LLM named {counts.named} of {counts.topics} topics" in summary["message"]
    assert sum(record["topics"] for record in summary["fallbacks"]) == counts.topics - counts.named
