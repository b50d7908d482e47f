"""One name for topics of many firms: kept if the topics are similar, withdrawn if they are not."""

import json
from typing import Any

from testing.worker import Bucket, LlmServer, Reply, Worker, completion, sentence

ALIKE = "Gross margin expansion came from freight savings, and gross margin rose by {n} points on freight."
UNLIKE = [
    ALIKE,
    "Apparel margin in stores rose by {n} points as shoppers bought footwear at gross prices.",
    "Drilling margin per barrel of crude grew by {n} percent gross of pipeline tariffs.",
    "Clinical patients lifted gross margin by {n} points after approval of the vaccine.",
    "Insurance premiums and hail claims left an underwriting margin of {n} gross percent.",
]


def calls(texts: list[str]) -> dict[str, list[dict[str, Any]]]:
    firms = ("ALPHA", "BRAVO", "CHARLIE", "DELTA", "ECHO")
    return {
        firm: [sentence(firm, n, text.replace("{n}", str(n))) for n in range(8)]
        for firm, text in zip(firms, texts, strict=True)
    }


def run(bucket: Bucket, llm: LlmServer, worker: Worker, texts: list[str]) -> list[dict[str, Any]]:
    bucket.put_firms(calls(texts))
    answer = json.dumps({"name": "Gross margin gains", "summary": "The gross margin rose.", "coherent": True})
    llm.behave = lambda _number, _request: Reply(body=completion(answer))
    assert worker.run(CHECKPOINT_INTERVAL="50").returncode == 0
    return bucket.topics()


def test_one_name_for_similar_topics_of_many_firms_is_kept(bucket: Bucket, llm: LlmServer, worker: Worker) -> None:
    rows = run(bucket, llm, worker, [ALIKE] * 5)
    assert [row["name"] for row in rows] == ["Gross margin gains"] * 5
    assert [row["coherent"] for row in rows] == [True] * 5


def test_one_name_for_different_topics_of_many_firms_is_withdrawn(
    bucket: Bucket, llm: LlmServer, worker: Worker
) -> None:
    rows = run(bucket, llm, worker, UNLIKE)
    assert {row["naming_method"] for row in rows} == {"keywords"}
    assert all(row["name"] == ", ".join(row["keywords"][:3]) for row in rows)
    counts = bucket.progress().counts
    assert (counts.topics, counts.named) == (5, 0)
    assert set(counts.fallbacks) <= {"repeated_name", "unrelated"}
    assert "was given to" in counts.fallbacks["repeated_name"].example
