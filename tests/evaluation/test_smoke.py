"""`evaluation.smoke_job`: three topics named as a run's jobs would, with what is wrong with the answers."""

import json
import subprocess
from typing import Any

from evaluation import smoke_job
from testing.worker import MODEL, Bucket, LlmServer, Reply, Worker, call, completion


def smoke(worker: Worker, **changes: str) -> subprocess.CompletedProcess[str]:
    return worker.call(smoke_job.main, **changes)


def test_the_largest_topic_of_three_firms_is_named(bucket: Bucket, llm: LlmServer, worker: Worker) -> None:
    bucket.put_firms({firm: call(firm) for firm in ("ALPHA", "BRAVO", "CHARLIE", "DELTA")})
    before = bucket.keys("")

    done = smoke(worker)

    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["model"], result["base_url"]) == (MODEL, llm.url)
    assert [topic["firm_id"] for topic in result["topics"]] == ["ALPHA", "BRAVO", "CHARLIE"]
    assert all(topic["name"] and topic["summary"] and not topic["problem"] for topic in result["topics"])
    assert all(topic["requests"] == 1 and topic["prompt_tokens"] for topic in result["topics"])
    assert bucket.keys("") == before


def test_without_a_quarter_the_built_in_topics_are_named_and_problems_reported(
    bucket: Bucket, llm: LlmServer, worker: Worker
) -> None:
    names = {"wages": "Labor cost inflation", "dollar": "Foreign exchange headwinds", "stores": "Business update"}
    summaries = {
        "wages": "Wages and overtime rose as open positions took longer to fill.",
        "dollar": "A stronger dollar reduced sales growth and operating income.",
        "stores": "Store openings continued, with leases signed for next year.",
    }

    def behave(_number: int, request: dict[str, Any]) -> Reply:
        asked = request["messages"][1]["content"]
        subject = next(word for word in names if f"Keywords: {word}" in asked)
        return Reply(body=completion(json.dumps({"name": names[subject], "summary": summaries[subject]})))

    llm.behave = behave
    done = smoke(worker, QUARTER="")

    assert done.returncode == 0, done.stderr
    good, better, vacuous = json.loads(done.stdout)["topics"]
    assert (good["name"], better["name"]) == ("Labor cost inflation", "Foreign exchange headwinds")
    assert vacuous["name"] == "stores, openings, leases"
    assert "'Business update' would fit any company" in vacuous["problem"]
    assert vacuous["requests"] == 2
