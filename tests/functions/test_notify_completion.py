import json
from datetime import UTC, datetime, timedelta
from types import ModuleType
from typing import Any

import boto3
import pytest

from tests.functions.conftest import EXECUTION, QUARTER, RUN

SUMMARY: dict[str, Any] = {
    "quarter": QUARTER,
    "run": RUN,
    "has_failures": False,
    "message": "2023Q1 succeeded: 6 of 6 firms completed.",
    "batches": {"total": 3, "succeeded": 3, "failed": 0},
    "firms": {"total": 6, "completed": 6, "skipped": 0, "failed": 0},
    "topics": {"total": 20, "named": 20},
    "tokens": {"prompt": 0, "cached": 0, "completion": 0},
    "seconds": 4.5,
    "failures": [],
}


@pytest.fixture
def notify(modules: dict[str, ModuleType], s3: Any, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.delenv("SNS_TOPIC_ARN", raising=False)
    return modules["notify_completion"]


@pytest.fixture
def inbox(notify: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that reads the published messages from a queue subscribed to the topic."""
    sns, sqs = boto3.client("sns"), boto3.client("sqs")
    topic = sns.create_topic(Name="runs")["TopicArn"]
    queue = sqs.create_queue(QueueName="inbox")["QueueUrl"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint="arn:aws:sqs:us-east-1:123456789012:inbox")
    monkeypatch.setenv("SNS_TOPIC_ARN", topic)
    return lambda: [json.loads(message["Body"]) for message in sqs.receive_message(QueueUrl=queue).get("Messages", [])]


def test_without_an_sns_topic_the_output_says_that_nothing_was_sent(notify: ModuleType) -> None:
    assert notify.handler({"summary": SUMMARY, "execution": EXECUTION}, None)["notification"] == {
        "notified": False,
        "reason": "no SNS topic is configured for this stack",
    }


def test_a_success_is_published(notify: ModuleType, inbox: Any) -> None:
    answer = notify.handler({"summary": SUMMARY, "execution": EXECUTION}, None)["notification"]
    assert answer["notified"] is True
    (message,) = inbox()
    assert message["Subject"] == f"ftm: 2023Q1 succeeded (run {RUN})"
    assert message["Message"].startswith(SUMMARY["message"])
    assert EXECUTION in message["Message"]
    assert "\nCost: about $0.00, see ftm cost 2023Q1\nSee the topics: ftm topics 2023Q1\n" in message["Message"]
    assert "ftm resume" not in message["Message"]


@pytest.mark.parametrize(
    ("own_gpu", "cost"),
    # Ten hours of jobs are $0.40; with them two hours of a GPU, or a million fresh and a million completion tokens.
    [(True, "Cost: about $1.10 to $1.40, see"), (False, "Cost: about $1.10, see")],
)
def test_the_cost_is_that_of_the_jobs_and_of_a_gpu_or_the_hosted_api(
    notify: ModuleType, inbox: Any, own_gpu: bool, cost: str
) -> None:
    tokens = {"prompt": 1_000_000, "cached": 0, "completion": 1_000_000}
    summary = SUMMARY | {"seconds": 36_000.0, "tokens": tokens}
    started_at = (datetime.now(UTC) - timedelta(hours=2)).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    notify.handler({"summary": summary, "execution": EXECUTION, "started_at": started_at, "own_gpu": own_gpu}, None)
    (message,) = inbox()
    assert cost in message["Message"]


def test_the_message_about_a_failure_names_each_batch_and_the_next_step(notify: ModuleType, inbox: Any) -> None:
    failure = {
        "batch_id": "2023Q1_batch_0001",
        "reason": "it left no result",
        "status_reason": "Host EC2 terminated",
        "exit_code": 137,
        "attempts": 3,
        "log_stream": "ftm/default/abc",
    }
    summary = SUMMARY | {"has_failures": True, "failures": [failure, {"batch_id": "b2", "reason": "gone"}]}
    notify.handler({"summary": summary, "execution": EXECUTION}, None)
    (message,) = inbox()
    assert message["Subject"] == f"ftm: 2023Q1 failed (run {RUN})"
    assert "- 2023Q1_batch_0001: it left no result\n" in message["Message"]
    assert (
        "Batch reports Host EC2 terminated, exit code 137, attempts 3, log stream ftm/default/abc" in message["Message"]
    )
    assert "- b2: gone\n" in message["Message"]
    assert f"ftm resume 2023Q1 {RUN}" in message["Message"]


def test_a_deleted_sns_topic_never_fails_the_run(notify: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNS_TOPIC_ARN", "arn:aws:sns:us-east-1:123456789012:gone")
    answer = notify.handler({"summary": SUMMARY, "execution": EXECUTION}, None)["notification"]
    assert answer["notified"] is False
    assert answer["reason"].startswith("SNS refused the message: ")


def test_a_run_that_could_not_be_counted_is_published_with_the_reason(notify: ModuleType, inbox: Any) -> None:
    sentence = "S3 failed to read s3://b/k for 61 s: the connection broke off (ReadTimeoutError); try again later"
    failure = {"Error": "S3UnavailableError", "Cause": json.dumps({"errorMessage": sentence})}
    answer = notify.handler({"summary": {"message": failure}, "quarter": QUARTER, "execution": EXECUTION}, None)
    assert (answer["summary"]["has_failures"], answer["notification"]["notified"]) == (True, True)
    (message,) = inbox()
    assert message["Subject"] == "ftm: 2023Q1 failed"
    assert sentence in message["Message"]
    assert "`ftm resume 2023Q1` counts them again" in message["Message"]
