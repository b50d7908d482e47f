"""Resumed and concurrent runs: no work is repeated, and results of different runs are never mixed."""

import json

from contract import layout
from testing.processes import until
from tests.state_machine.conftest import BUCKET, QUARTER, QUEUE, Stack

FIRST, SECOND, THIRD = (layout.batch_id(QUARTER, number) for number in range(3))


def test_resuming_a_stopped_execution_runs_only_the_incomplete_batches(stack: Stack) -> None:
    stack.put_prefetch(firms=6)
    (stack.control / SECOND).write_text("hang")
    execution = stack.start(batch_size=2)
    until(lambda: len(stack.keys(f"progress/{QUARTER}/")) == 2 and (stack.control / SECOND).read_text() == "hangs")
    stack.states.stop_execution(executionArn=execution)
    (run,) = (layout.run_of_manifest(key).run for key in stack.keys("manifests/"))
    (stack.control / SECOND).unlink()

    again = stack.run(resume=run)
    assert again.status == "SUCCEEDED", again.cause
    assert again.manifest["batch_ids"] == [SECOND]
    assert again.summary["firms"]["completed"] == 6


def test_resuming_writes_deleted_records_and_starts_only_the_jobs_that_it_needs(stack: Stack) -> None:
    stack.put_prefetch(firms=6)
    run = stack.run(batch_size=2).summary["run"]
    for key in (layout.latest_key(QUARTER), layout.RunRef(QUARTER, run).summary_key):
        stack.s3.delete_object(Bucket=BUCKET, Key=key)
    again = stack.run(resume=run)
    assert again.status == "SUCCEEDED", again.cause
    assert again.manifest["batch_ids"] == []
    assert stack.jobs(run) == {FIRST: 1, SECOND: 1, THIRD: 1}
    assert json.loads(stack.s3.get_object(Bucket=BUCKET, Key=layout.latest_key(QUARTER))["Body"].read())["run"] == run

    stack.s3.delete_object(Bucket=BUCKET, Key=layout.RunRef(QUARTER, run).progress_key(THIRD))
    again = stack.run(resume=run)
    assert again.status == "SUCCEEDED", again.cause
    assert stack.jobs(run) == {FIRST: 1, SECOND: 1, THIRD: 2}


def test_resuming_an_unknown_run_fails_with_a_sentence(stack: Stack) -> None:
    stack.put_prefetch(firms=6)
    ended = stack.run(resume="20200101_000000")
    assert ended.status == "FAILED"
    assert ended.cause.startswith("2023Q1 failed: 2023Q1 has no run 20200101_000000: ")


def test_concurrent_executions_never_share_a_run(stack: Stack) -> None:
    stack.put_prefetch(firms=4)
    executions = [stack.start(batch_size=2) for _ in range(2)]
    ended = [json.loads(stack.ended(execution)["output"])["summary"] for execution in executions]
    runs = {summary["run"] for summary in ended}
    assert len(runs) == 2
    assert all(summary["firms"]["completed"] == 4 for summary in ended)
    assert len(stack.keys(f"intermediate/firm-topics/quarter={QUARTER}/")) == 4
    latest = json.loads(stack.s3.get_object(Bucket=BUCKET, Key=layout.latest_key(QUARTER))["Body"].read())
    assert latest["run"] == max(runs)


def test_a_batch_that_times_out_fails_and_its_job_is_terminated(stack: Stack) -> None:
    stack.put_prefetch(firms=2)
    (stack.control / FIRST).write_text("hang")
    ended = stack.run(machine=stack.deploy(batch_timeout=3), batch_size=2)
    assert ended.status == "FAILED"
    (outcome,) = ended.output_of("ProcessBatches")["batches"]
    assert outcome["error"] == "States.Timeout"
    (failure,) = ended.summary["failures"]
    assert failure["reason"] == "it left no result; its job ended with States.Timeout"
    batch = stack.client("batch")
    until(lambda: not batch.list_jobs(jobQueue=QUEUE, jobStatus="RUNNING")["jobSummaryList"])
