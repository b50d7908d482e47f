"""Executions of one quarter: successful runs, failures and invalid input."""

import json
from typing import Any

import pytest

from contract import layout
from testing.processes import until
from tests.state_machine.conftest import BUCKET, QUARTER, Stack


def test_a_quarter_runs_to_success(stack: Stack) -> None:
    stack.put_prefetch(firms=10)
    ended = stack.run(batch_size=4)
    assert ended.status == "SUCCEEDED", ended.cause
    output = json.loads(ended.described["output"])
    assert output.keys() == {"summary", "notification"}
    assert output["summary"]["batches"] == {"total": 3, "succeeded": 3, "failed": 0}
    assert output["summary"]["firms"] == {"total": 10, "completed": 10, "skipped": 0, "failed": 0}
    assert output["summary"]["topics"] == {"total": 30, "named": 30}
    assert output["notification"] == {"notified": False, "reason": "no SNS topic is configured for this stack"}
    assert latest_run(stack) == output["summary"]["run"]
    assert ended.states == [
        "CheckPrefetch",
        "PrefetchExists?",
        "CreateBatchManifest",
        "ProcessBatches",
        "SummarizeResults",
        "NotifyCompletion",
        "CheckForFailures",
        "QuarterCompletedSuccessfully",
    ]


def latest_run(stack: Stack) -> str | None:
    """The quarter's last run that succeeded."""
    key = layout.latest_key(QUARTER)
    return json.loads(stack.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read())["run"] if stack.keys(key) else None


def test_a_failed_job_fails_the_run_but_not_the_other_batches(stack: Stack) -> None:
    stack.put_prefetch(firms=10)
    failed = f"{QUARTER}_batch_0001"
    (stack.control / failed).write_text("exit")
    ended = stack.run(batch_size=4)
    assert ended.status == "FAILED"
    assert ended.described["error"] == "QuarterCompletedWithFailures"
    assert ended.output_of("ProcessBatches")["batches"] == [
        {"batch_id": f"{QUARTER}_batch_0000", "status": "SUCCEEDED"},
        {"batch_id": failed, "status": "FAILED", "error": "States.TaskFailed"},
        {"batch_id": f"{QUARTER}_batch_0002", "status": "SUCCEEDED"},
    ]
    assert latest_run(stack) is None
    assert ended.cause.startswith(f"2023Q1 failed: 1 of 3 batches failed, the first is {failed}: it left no result")
    assert ended.summary["firms"] == {"total": 10, "completed": 6, "skipped": 0, "failed": 4}
    (failure,) = ended.summary["failures"]
    assert failure["batch_id"] == failed
    assert failure["exit_code"] == 1
    assert failure["attempts"] == 1
    assert failure["status_reason"] == "Essential container in task exited"
    events = stack.client("logs").get_log_events(logGroupName="/aws/batch/job", logStreamName=failure["log_stream"])
    assert [event["message"] for event in events["events"]] == [f"batch {failed}: exit"]
    assert stack.progress(ended.summary["run"], f"{QUARTER}_batch_0002").state == "complete"


def test_batch_retries_a_lost_host_and_the_run_reports_it(stack: Stack) -> None:
    stack.put_prefetch(firms=4)
    (stack.control / f"{QUARTER}_batch_0000").write_text("kill once")
    (stack.control / f"{QUARTER}_batch_0001").write_text("kill")
    ended = stack.run(batch_size=2)
    (failure,) = ended.summary["failures"]
    assert failure["batch_id"] == f"{QUARTER}_batch_0001"
    assert failure["attempts"] == 5
    assert failure["exit_code"] == 137
    assert failure["status_reason"].startswith("Host EC2")


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ('{"quarter": "2023Q1"}', "InvalidInput", "the input lacks 'bucket'"),
        ('{"bucket": "pipeline"}', "InvalidInput", "the input lacks 'quarter'"),
        ('{"quarter": "2023Q1", "bucket": "pipeline", "batch_size": "50"}', "InvalidInput", "write a whole number"),
        ('{"quarter": "2022Q4", "bucket": "pipeline"}', "PrefetchRequired", "2022Q4 has no prefetch"),
        ("{}", "InvalidInput", "the input lacks"),
        ("[]", "InvalidInput", "not an object"),
    ],
)
def test_invalid_input_is_rejected_with_a_sentence_before_any_job_starts(
    stack: Stack, text: str, error: str, words: str
) -> None:
    stack.put_prefetch(firms=1)
    execution = stack.start_with(text)
    described = stack.ended(execution)
    assert (described["status"], described["error"]) == ("FAILED", error)
    assert words in described["cause"]
    assert not stack.keys("manifests/")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"n_firms": 0, "n_chunks": 0, "chunk_sizes": {}, "firm_to_chunk": {}}, "names no firm"),
        ({"firm_to_chunk": {"A": "chunk_0001.parquet"}, "chunk_sizes": {"chunk_0001.parquet": 1}}, "not beside it"),
        ({"firm_to_chunk": {"A" * 10_000: "chunk_0000.parquet"}}, "(10000 characters) cannot be a firm id"),
    ],
)
def test_a_failed_run_names_the_invalid_prefetch_as_its_cause(
    stack: Stack, changes: dict[str, Any], words: str
) -> None:
    stack.put_prefetch(1, **changes)
    ended = stack.run()
    assert ended.status == "FAILED"
    assert words in ended.cause
    assert ended.cause.startswith("2023Q1 failed: ")
    assert ended.summary["run"] == ""
    assert "ProcessBatches" not in ended.states
    assert not stack.keys("manifests/")


def test_output_larger_than_a_state_may_hold_is_reported(stack: Stack) -> None:
    """A function's output is larger than a state may hold. States.ALL does not catch that error."""
    stack.put_prefetch(firms=1)
    code = "def handler(event, context): return {'run': 'x' * 300_000}"
    document = json.loads(stack.states.describe_state_machine(stateMachineArn=stack.quarter_machine)["definition"])
    document["States"]["CreateBatchManifest"]["Resource"] = stack.create_function("flood", code)
    ended = stack.run(machine=stack.create_machine(document))
    assert ended.status == "FAILED"
    assert ended.cause.startswith("2023Q1 failed: States.DataLimitExceeded: ")


def test_a_deleted_queue_fails_every_batch_and_the_run(stack: Stack) -> None:
    stack.put_prefetch(firms=2)
    document = json.loads(stack.states.describe_state_machine(stateMachineArn=stack.quarter_machine)["definition"])
    submit = document["States"]["ProcessBatches"]["ItemProcessor"]["States"]["SubmitBatchJob"]
    submit["Parameters"]["JobQueue"] = "gone"
    ended = stack.run(machine=stack.create_machine(document), batch_size=1)
    assert ended.status == "FAILED"
    assert [outcome["status"] for outcome in ended.output_of("ProcessBatches")["batches"]] == ["FAILED", "FAILED"]
    assert "its job ended with Batch." in ended.cause


def test_stopping_an_execution_stops_its_jobs(stack: Stack) -> None:
    stack.put_prefetch(firms=2)
    for number in range(2):
        (stack.control / f"{QUARTER}_batch_000{number}").write_text("hang")
    execution = stack.start(batch_size=1)
    batch = stack.client("batch")

    def running() -> list[str]:
        pages = batch.list_jobs(jobQueue="ftm-queue", jobStatus="RUNNING")["jobSummaryList"]
        return [job["jobId"] for job in pages]

    until(lambda: len(running()) == 2)
    ids = running()
    stack.states.stop_execution(executionArn=execution)
    until(lambda: not running())
    assert {job["status"] for job in batch.describe_jobs(jobs=ids)["jobs"]} == {"FAILED"}
