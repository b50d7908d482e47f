"""`ftm run-quarter`, `watch` and `stop`: checks, plan, executions, output and exit codes."""

import json
import os
import signal

import pytest

from contract import layout

from .conftest import (
    BREAKS,
    BUCKET,
    FAILS,
    RUN,
    SUCCEEDS,
    UNNAMED,
    WAITS,
    Aws,
    Ftm,
    make_vllm_healthy,
    put_manifest,
    put_run,
    register,
    wait_until_none_runs,
)
from .terminal import in_background


@pytest.fixture
def ready(aws: Aws) -> Aws:
    """The stack with a prefetch of each quarter and vLLM running."""
    make_vllm_healthy(aws)
    for quarter in (SUCCEEDS, FAILS, BREAKS, WAITS, UNNAMED):
        put_manifest(aws, quarter)
    return aws


def executions(aws: Aws) -> list[dict[str, str]]:
    return aws.client("stepfunctions").list_executions(stateMachineArn=aws.outputs["state_machine_arn"])["executions"]


def test_success_exits_0_with_the_summary_as_json_and_the_execution_has_the_requested_input(
    ready: Aws, ftm: Ftm
) -> None:
    result = ftm("run-quarter", SUCCEEDS, "--batch-size", "2", "--yes", "--json")

    report = json.loads(result.stdout)
    assert report.pop("seconds") >= 0
    execution = ready.client("stepfunctions").describe_execution(executionArn=report.pop("execution_arn"))
    assert report == {
        "quarter": SUCCEEDS,
        "run": RUN,
        "status": "SUCCEEDED",
        "message": "",
        "failures": [],
        "batches": {"total": 2, "succeeded": 2, "failed": 0},
        "firms": {"total": 3, "completed": 2, "skipped": 1, "failed": 0},
        "topics": {"total": 3, "named": 3},
        "tokens": {"prompt": 100, "cached": 80, "completion": 30},
        "fallbacks": [],
    }
    assert json.loads(execution["input"]) == {"quarter": SUCCEEDS, "bucket": BUCKET, "batch_size": 2}
    assert layout.run_id(execution["startDate"])[:8] == execution["name"][:8]
    assert SUCCEEDS in execution["name"]
    assert len(execution["name"]) <= 80


def test_the_plan_is_printed_before_the_run_and_the_counts_after_it(ready: Aws, ftm: Ftm) -> None:
    result = ftm("run-quarter", SUCCEEDS, "--batch-size", "2", "--yes")

    assert "3 firms, 2 batches of up to 2 firms, 5 at once" in result.stderr
    assert f"{SUCCEEDS} SUCCEEDED" in result.stdout
    assert "firms\t3\t2\t1\t0" in result.stdout
    assert "80% cached" in result.stdout
    assert "vllm scale 0" in result.stderr  # a GPU left running costs money


def test_a_quarter_can_be_run_again_and_an_expired_claim_does_not_prevent_it(ready: Aws, ftm: Ftm) -> None:
    """The claim is that of a killed process. The progress shown is of another execution's batch."""
    claim = {"execution": "never-started", "claimed_at": "2023-04-05T10:15:00+00:00"}
    ready.client("s3").put_object(Bucket=BUCKET, Key=layout.claim_key(SUCCEEDS), Body=json.dumps(claim))
    put_run(ready, SUCCEEDS)

    assert "batches 0/2; firms 0/3" in ftm("run-quarter", SUCCEEDS, "--yes").stderr
    ftm("run-quarter", SUCCEEDS, "--yes")

    assert len(executions(ready)) == 2


def test_the_default_batch_size_spreads_the_firms_over_all_concurrent_jobs(ready: Aws, ftm: Ftm) -> None:
    for firms, planned in (
        (40, "40 firms, 1 batch of up to 50 firms"),
        (9_000, "9,000 firms, 9 batches of up to 1,000 firms"),
        (448, "448 firms, 5 batches of up to 90 firms"),
    ):
        put_manifest(ready, SUCCEEDS, firms)
        assert f"{planned}, 5 at once" in ftm("run-quarter", SUCCEEDS, "--dry-run").stderr

    arn = ftm("run-quarter", SUCCEEDS, "--yes", "--detach").stdout.strip()

    request = json.loads(ready.client("stepfunctions").describe_execution(executionArn=arn)["input"])
    assert request["batch_size"] == 90


def test_a_failed_run_exits_1_and_names_the_batch_and_the_reason(ready: Aws, ftm: Ftm) -> None:
    result = ftm("run-quarter", FAILS, "--yes", exit_code=1)

    assert "1 of 2 batches failed" in result.stdout
    assert "2023Q2_batch_0001\tthe worker gave up\t1" in result.stdout
    assert f"resume {FAILS} {RUN}" in result.stderr
    assert f"ftm --stack local logs {FAILS} --run {RUN} --batch 2023Q2_batch_0001" in result.stderr


def test_a_run_that_failed_for_too_few_names_can_be_resumed_for_the_missing_names(ready: Aws, ftm: Ftm) -> None:
    result = ftm("run-quarter", UNNAMED, "--yes", exit_code=1)

    assert "1 of 3 topics was named" in result.stdout
    assert "2\trequest_refused\tHTTP 422: no such field" in result.stdout
    assert f'logs {UNNAMED} --run {RUN} --search "keep their keywords"' in result.stderr
    assert f"topics {UNNAMED} --run {RUN}" in result.stderr
    assert f"resume {UNNAMED} {RUN}" in result.stderr


def test_a_failed_run_keeps_stdout_to_one_json_document(ready: Aws, ftm: Ftm) -> None:
    result = ftm("run-quarter", FAILS, "--yes", "--json", exit_code=1)

    assert json.loads(result.stdout)["batches"] == {"total": 2, "succeeded": 1, "failed": 1}
    assert "2023Q2_batch_0001\tthe worker gave up" in result.stderr


def test_a_run_that_ends_before_its_summary_prints_the_functions_error(ready: Aws, ftm: Ftm) -> None:
    result = ftm("run-quarter", BREAKS, "--yes", "--json", exit_code=1)

    assert "PrefetchRequired: the prefetch of 2023Q3 is broken\n" in result.stderr
    assert json.loads(result.stdout)["run"] is None
    assert json.loads(result.stdout)["status"] == "FAILED"


def test_detach_returns_at_once_and_the_same_quarter_again_is_a_conflict_unless_forced(ready: Aws, ftm: Ftm) -> None:
    result = ftm("run-quarter", WAITS, "--yes", "--detach")

    (running,) = executions(ready)
    assert result.stdout.strip() == running["executionArn"]
    assert f"ftm --stack local watch {WAITS}" in result.stderr
    assert "stop-execution --execution-arn arn:" in result.stderr
    assert running["name"] in ftm("run-quarter", WAITS, "--yes", exit_code=5).stderr
    assert len(executions(ready)) == 1

    report = json.loads(ftm("run-quarter", WAITS, "--yes", "--detach", "--force", "--json").stdout)

    assert (report["status"], report["run"]) == ("RUNNING", None)
    assert len(executions(ready)) == 2


def test_an_execution_started_in_the_console_is_a_conflict_too(ready: Aws, ftm: Ftm) -> None:
    ready.client("stepfunctions").start_execution(
        stateMachineArn=ready.outputs["state_machine_arn"],
        name="5f2c7b1e-0000-4000-8000-000000000000",
        input=json.dumps({"quarter": WAITS, "bucket": BUCKET}),
    )

    ftm("run-quarter", WAITS, "--yes", exit_code=5)


def test_the_fresh_claim_of_another_operator_is_a_conflict(ready: Aws, ftm: Ftm) -> None:
    """The claim decides between two operators who both saw no running execution."""
    ftm("run-quarter", WAITS, "--yes", "--detach")
    s3 = ready.client("s3")
    claim = json.loads(s3.get_object(Bucket=BUCKET, Key=layout.claim_key(WAITS))["Body"].read())
    ftm("stop", WAITS, "--yes")
    wait_until_none_runs(ready)
    s3.put_object(
        Bucket=BUCKET, Key=layout.claim_key(WAITS), Body=json.dumps({**claim, "execution": "not-yet-to-be-seen"})
    )

    result = ftm("run-quarter", WAITS, "--yes", exit_code=5)

    assert "not-yet-to-be-seen" in result.stderr


@pytest.mark.parametrize("quarter", ["2023Q5", "23Q1", "q1", ""])
def test_an_invalid_quarter_is_rejected(ftm: Ftm, quarter: str) -> None:
    result = ftm("run-quarter", quarter, exit_code=2)

    assert "is not a quarter: write the year and Q1 to Q4, such as 2023Q1" in result.stderr


def test_an_invalid_batch_size_is_rejected(ready: Aws, ftm: Ftm) -> None:
    for size in ("0", "-1", "1000000", "many"):
        assert "--batch-size" in ftm("run-quarter", SUCCEEDS, "--yes", "--batch-size", size, exit_code=2).stderr

    assert not executions(ready)


def test_a_quarter_without_prefetch_is_rejected(aws: Aws, ftm: Ftm) -> None:
    result = ftm("run-quarter", SUCCEEDS, "--yes", exit_code=3)

    assert f"{SUCCEEDS} has no prefetch in {BUCKET}" in result.stderr
    assert "prefetch put" in result.stderr


def test_a_prefetch_without_one_of_its_chunks_is_rejected(ready: Aws, ftm: Ftm) -> None:
    ready.client("s3").delete_object(Bucket=BUCKET, Key=layout.chunk_key(SUCCEEDS, "chunk_0000.parquet"))

    result = ftm("run-quarter", SUCCEEDS, "--yes", exit_code=3)

    assert "chunk_0000.parquet" in result.stderr


def test_an_invalid_prefetch_manifest_is_rejected(ready: Aws, ftm: Ftm) -> None:
    put_manifest(ready, SUCCEEDS, n_firms=99)

    result = ftm("run-quarter", SUCCEEDS, "--yes", exit_code=2)

    assert "n_firms = 99" in result.stderr
    assert "manifest.json" in result.stderr


def test_with_vllm_scaled_to_zero_the_error_names_the_command_that_scales_it(aws: Aws, ftm: Ftm) -> None:
    put_manifest(aws, SUCCEEDS)

    result = ftm("run-quarter", SUCCEEDS, "--yes", exit_code=3)

    assert "`ftm --stack local vllm scale 1 --wait`" in result.stderr
    assert not executions(aws)


def test_with_vllm_a_list_of_the_one_quarter_switches_it_on_and_off(aws: Aws, ftm: Ftm) -> None:
    put_manifest(aws, WAITS)
    aws.outputs["vllm_requests_per_gpu"] = 31
    register(aws)
    result = ftm("run-quarter", WAITS, "--vllm", "2", "--yes", "--detach", "--json")

    report = json.loads(result.stdout)
    assert (report["quarter"], report["status"]) == (WAITS, "RUNNING")
    assert "scaled to 2 first and switched off at the end" in result.stderr
    assert "requests at once\t62 from each batch" in result.stderr
    started = aws.client("stepfunctions").describe_execution(executionArn=report["execution_arn"])
    assert started["stateMachineArn"] == aws.outputs["quarters_state_machine_arn"]
    item = {"quarter": WAITS, "bucket": BUCKET, "batch_size": 50, "llm_concurrency": 62}
    assert json.loads(started["input"]) == {"quarters": [item], "at_once": 1, "vllm": {"size": 2, "keep": False}}
    ftm("run-quarter", WAITS, "--vllm", "1", "--yes", exit_code=5)
    assert json.loads(ftm("status", "--json").stdout)[0]["message"].startswith("vLLM: 0 of ")
    assert json.loads(ftm("status", WAITS, "--json").stdout)["report"] | {"seconds": 0} == report | {"seconds": 0}

    assert "AWS switches vLLM off" in ftm("stop", WAITS, "--yes").stderr
    assert f"{WAITS}\tABORTED" in ftm("status").stdout
    assert f"{WAITS} ABORTED" in ftm("watch", WAITS, exit_code=1).stdout
    assert "the execution was stopped" in ftm("watch", exit_code=1).stderr
    assert json.loads(ftm("runs", "--failed", "--json").stdout)[0]["run"] is None


def test_the_smoke_test_can_be_left_out(aws: Aws, ftm: Ftm) -> None:
    put_manifest(aws, WAITS)
    result = ftm("run-quarter", WAITS, "--vllm", "1", "--no-smoke-test", "--yes", "--detach", "--json")
    started = aws.client("stepfunctions").describe_execution(executionArn=json.loads(result.stdout)["execution_arn"])
    assert json.loads(started["input"])["vllm"] == {"size": 1, "keep": False, "smoke_test": False}
    ftm("stop", WAITS, "--yes")


def test_keep_vllm_needs_vllm(ready: Aws, ftm: Ftm) -> None:
    assert "give --vllm too" in ftm("run-quarter", SUCCEEDS, "--keep-vllm", "--yes", exit_code=2).stderr


def test_more_vllm_instances_than_the_group_allows_are_rejected(aws: Aws, ftm: Ftm) -> None:
    put_manifest(aws, SUCCEEDS)

    result = ftm("run-quarter", SUCCEEDS, "--yes", "--vllm", "3", exit_code=2)

    assert "0 to 2 instances" in result.stderr


def test_without_a_terminal_the_error_names_the_option_yes(ready: Aws, ftm: Ftm) -> None:
    result = ftm("run-quarter", SUCCEEDS, exit_code=2)

    assert "--yes" in result.stderr
    assert not executions(ready)


def test_a_deleted_state_machine_is_reported(ready: Aws, ftm: Ftm) -> None:
    ready.client("stepfunctions").delete_state_machine(stateMachineArn=ready.outputs["state_machine_arn"])

    result = ftm("run-quarter", SUCCEEDS, "--yes", exit_code=3)

    assert "the state machine does not exist" in result.stderr


def test_a_deleted_bucket_is_reported(ready: Aws, ftm: Ftm) -> None:
    bucket = ready.client("s3")
    for item in bucket.list_objects_v2(Bucket=BUCKET)["Contents"]:
        bucket.delete_object(Bucket=BUCKET, Key=item["Key"])
    bucket.delete_bucket(Bucket=BUCKET)

    result = ftm("run-quarter", SUCCEEDS, "--yes", exit_code=3)

    assert f"the bucket does not exist ({BUCKET})" in result.stderr


def test_ctrl_c_says_that_the_run_continues_and_how_to_stop_it(ready: Aws) -> None:
    process = in_background("run-quarter", WAITS, "--yes")
    with process.stdout, process.stderr as lines:
        for line in lines:
            if "batches 0/2" in line:
                break
        os.kill(process.pid, signal.SIGINT)
        stderr = lines.read()

    assert process.wait() == 130
    assert f"{WAITS} continues in AWS" in stderr
    assert f"ftm --stack local stop {WAITS}" in stderr
    assert "Traceback" not in stderr
    assert executions(ready)[0]["status"] == "RUNNING"


def test_watch_ends_as_the_run_does(ready: Aws, ftm: Ftm) -> None:
    ftm("run-quarter", WAITS, "--yes", "--detach")
    process = in_background("watch", WAITS, "--json")
    with process.stdout, process.stderr as lines:
        for line in lines:
            if "batches 0/2" in line:
                break
        ftm("stop", WAITS, "--yes")
        report, stderr = json.loads(process.stdout.read()), lines.read()

    assert process.wait() == 1
    assert report["status"] == "ABORTED"
    assert "the execution was stopped" in stderr


def test_nothing_to_watch_or_to_stop(ready: Aws, ftm: Ftm) -> None:
    assert f"{SUCCEEDS} has no run: start one with" in ftm("watch", SUCCEEDS, exit_code=3).stderr
    assert f"{SUCCEEDS} is not running" in ftm("stop", SUCCEEDS, "--yes", exit_code=3).stderr


def test_of_two_concurrent_starts_one_is_rejected(ready: Aws) -> None:
    both = [in_background("run-quarter", WAITS, "--yes", "--detach") for _ in range(2)]
    stderr = [process.stderr.read() for process in both]

    assert sorted(process.wait() for process in both) == [0, 5], stderr
    assert len(executions(ready)) == 1
