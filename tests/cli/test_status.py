"""The commands that describe a stack: `ftm status`, `runs`, `logs`, `cost`, `doctor`, `outputs`, `console`."""

import json
import time
from typing import Any

import pytest

from contract import env, layout
from contract.batch import BatchLine

from .conftest import (
    BUCKET,
    FAILS,
    RUN,
    SUCCEEDS,
    WAITS,
    Aws,
    Ftm,
    make_vllm_healthy,
    put_job_definition,
    put_manifest,
    put_run,
    register,
    summary,
)
from .test_watch import put_record


@pytest.fixture
def quarters(aws: Aws) -> Aws:
    """Four quarters: one failed, one succeeded, one is running and one was never run."""
    make_vllm_healthy(aws)
    put_run(aws, SUCCEEDS)
    put_record(aws, FAILS, failed=True)
    put_manifest(aws, WAITS)
    put_manifest(aws, "2020Q1")
    return aws


def test_all_quarters_with_their_last_run(quarters: Aws, ftm: Ftm) -> None:
    ftm("run-quarter", WAITS, "--yes", "--detach")

    found = {item["quarter"]: item for item in json.loads(ftm("status", "--json").stdout)}

    assert list(found) == [WAITS, FAILS, SUCCEEDS, "2020Q1"]
    assert [item["status"] for item in found.values()] == ["RUNNING", "FAILED", "UNFINISHED", None]
    assert found[FAILS]["started_by"] == "alice"
    assert found[FAILS]["seconds"] == 600
    assert json.loads(ftm("status", FAILS, "--json").stdout)["report"]["seconds"] == 600
    text = ftm("status").stdout
    assert f"{FAILS}\tFAILED\t{RUN}\t2/3\t3/3\t0:10:00\t1 of 2 batches failed" in text
    assert "2020Q1\tnever run" in text


def test_one_run_by_its_quarter_or_by_its_id(quarters: Aws, ftm: Ftm) -> None:
    by_quarter = json.loads(ftm("status", SUCCEEDS.lower(), "--json").stdout)
    (batch,) = by_quarter["batches"]

    assert (batch["batch_id"], batch["state"], batch["completed"], batch["skipped"]) == (
        layout.batch_id(SUCCEEDS, 0),
        "complete",
        2,
        1,
    )
    quarters.client("s3").delete_object(Bucket=BUCKET, Key=layout.RunRef(FAILS, RUN).manifest_key)
    assert json.loads(ftm("status", RUN, "--json").stdout)["report"]["quarter"] == SUCCEEDS


def test_a_batch_without_a_result_is_shown_as_lost(quarters: Aws, ftm: Ftm) -> None:
    put_manifest_line(quarters)

    text = ftm("status", FAILS).stdout

    assert f"{FAILS}_batch_0001\tlost\t1\t0/1\t0/0\t0:00:00\tthe worker gave up" in text


INVALID: list[tuple[list[str], str, int]] = [
    (["status", "20200101_000000"], "there is no run 20200101_000000", 3),
    (["status", "2020Q2"], "2020Q2 has no run", 3),
    (["status", "yesterday"], "is neither a quarter such as 2023Q1 nor a run", 2),
    (["status", "--watch"], "--watch needs a QUARTER or RUN", 2),
    (["logs", "2020Q2"], "2020Q2 has no run", 3),
    (["logs", SUCCEEDS, "--since", "soon"], "write 30s, 10m, 2h or 1d", 2),
    (["logs", SUCCEEDS, "--batch", "x"], "has no batch x", 3),
    (["logs", SUCCEEDS, "--follow", "--json"], "leave one of them out", 2),
    (["functions", "logs", "prefetch-check", "--follow", "--json"], "leave one of them out", 2),
    (["functions", "logs", "nothing"], "there is no function 'nothing'", 2),
    (["cost", "2020Q2"], "or pass --firms N", 3),
    (["console"], "has no AWS console", 3),
    (["outputs", "nothing"], "has no output 'nothing'", 3),
    (["prefetch", "show", "2020Q2"], "2020Q2 has no prefetch", 3),
]


def test_an_unknown_quarter_or_run_and_invalid_options_are_reported(quarters: Aws, ftm: Ftm) -> None:
    for arguments, message, exit_code in INVALID:
        assert message in ftm(*arguments, exit_code=exit_code).stderr


def test_the_history_of_runs(quarters: Aws, ftm: Ftm) -> None:
    runs = json.loads(ftm("runs", "--json").stdout)

    assert {(item["quarter"], item["status"]) for item in runs} == {(FAILS, "FAILED"), (SUCCEEDS, "UNFINISHED")}
    (failed,) = json.loads(ftm("runs", FAILS, "--failed", "--json").stdout)
    assert failed["topics"] == {"total": 3, "named": 3}
    assert failed["dollars"] > 0
    assert f"{RUN}\t{FAILS}\tFAILED\talice\t0:10:00" in ftm("runs").stdout


def put_log(aws: Aws, group: str, stream: str, *lines: str) -> None:
    logs = aws.client("logs")
    logs.create_log_group(logGroupName=group)
    logs.create_log_stream(logGroupName=group, logStreamName=stream)
    now = round(time.time() * 1000)
    events = [{"timestamp": now + number, "message": line} for number, line in enumerate(lines)]
    logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=events)


def test_logs_of_a_run_whose_jobs_batch_has_forgotten(quarters: Aws, ftm: Ftm) -> None:
    put_manifest_line(quarters)
    put_log(quarters, "/aws/batch/ftm-local", "s/1", "reading", "waiting for the LLM")

    text = ftm("logs", FAILS).stdout
    assert f"== {FAILS}_batch_0001 attempt 1: the worker gave up" in text
    assert "waiting for the LLM" in text
    found = ftm("logs", FAILS, "--search", "llm").stdout
    assert "waiting for the LLM" in found
    assert "reading" not in found


def test_the_attempts_of_a_batch_are_distinguished(quarters: Aws, ftm: Ftm) -> None:
    put_manifest_line(quarters)
    batch = quarters.client("batch")
    job = batch.submit_job(
        jobName=f"ftm-local-{RUN}-{FAILS}_batch_0001",
        jobQueue=quarters.outputs["job_queue_arn"],
        jobDefinition=quarters.outputs["job_definition_arn"],
    )

    (attempt,) = json.loads(ftm("logs", FAILS, "--json").stdout)

    assert attempt["number"] == 1
    assert attempt["batch_id"] == f"{FAILS}_batch_0001"
    assert batch.describe_jobs(jobs=[job["jobId"]])["jobs"][0]["status"] in attempt["status"] or attempt["log_stream"]


def put_manifest_line(aws: Aws) -> None:
    line = BatchLine(f"{FAILS}_batch_0001", FAILS, ["F9"]).to_json()
    aws.client("s3").put_object(Bucket=BUCKET, Key=layout.RunRef(FAILS, RUN).manifest_key, Body=line.encode())


def test_the_logs_of_vllm_and_of_a_function(quarters: Aws, ftm: Ftm) -> None:
    quarters.outputs["vllm_log_group"] = "/ecs/ftm-local-vllm"
    register(quarters)
    put_log(quarters, "/ecs/ftm-local-vllm", "vllm/1", "loading weights")
    put_log(quarters, "/aws/lambda/ftm-local-summarize-results", "1", "START")

    assert "loading weights" in ftm("vllm", "logs").stdout
    assert [line["text"] for line in json.loads(ftm("vllm", "logs", "--json").stdout)] == ["loading weights"]
    assert "START" in ftm("functions", "logs", "summarize-results").stdout
    assert "has no such lines" in ftm("vllm", "logs", "--search", "ERROR").stderr
    assert "there is no log group" in ftm("functions", "logs", "prefetch-check", exit_code=3).stderr


def test_the_estimated_cost_and_that_of_the_last_run(quarters: Aws, ftm: Ftm) -> None:
    found = json.loads(ftm("cost", FAILS, "--firms", "5000", "--json").stdout)

    estimate = found["estimate"]
    assert estimate["topics"] == 65_000
    assert 0 < estimate["dollars"]["low"] < estimate["dollars"]["high"] < 5
    assert any("no run has succeeded yet" in text for text in estimate["assumptions"])
    assert found["last_run"]["run"] == RUN
    assert found["last_run"]["gpu_hours"] == pytest.approx(1 / 6, abs=1e-3)


@pytest.mark.parametrize(
    ("times", "minutes", "speed"),
    [
        # 3,000 topics in 600 seconds: 300 topics take a minute, with an uncertainty of a quarter.
        (1000, {"low": 0.8, "high": 1.25}, ""),
        # 3 topics are too few to measure speed.
        (1, {"low": 0.25, "high": 0.833}, ", but 6 to 20 requests a second per GPU"),
    ],
)
def test_the_estimate_uses_the_rates_of_the_last_successful_run(
    quarters: Aws, ftm: Ftm, times: int, minutes: dict[str, float], speed: str
) -> None:
    counted = summary(SUCCEEDS, failed=False)
    for counts in ("firms", "topics", "tokens"):
        counted[counts] = {key: count * times for key, count in counted[counts].items()}
    put_record(quarters, SUCCEEDS, failed=False, summary=counted)
    s3 = quarters.client("s3")
    body = s3.get_object(Bucket=BUCKET, Key=layout.RunRef(SUCCEEDS, RUN).summary_key)["Body"].read()
    s3.put_object(Bucket=BUCKET, Key=layout.latest_key(SUCCEEDS), Body=body)

    estimate = json.loads(ftm("cost", SUCCEEDS, "--firms", "200", "--json").stdout)["estimate"]

    assert estimate["topics"] == 300  # 3 topics of 2 firms
    assert f"as in run {RUN} of {SUCCEEDS}" in estimate["assumptions"][0]
    assert estimate["assumptions"][0].endswith(f"firms){speed}")
    assert estimate["minutes"] == minutes


def test_a_dry_run_shows_the_plan_with_its_cost_and_starts_nothing(quarters: Aws, ftm: Ftm) -> None:
    result = ftm("run-quarter", WAITS, "--dry-run", "--json")

    plan = json.loads(result.stdout)
    assert plan["quarters"][0]["firms"] == 3
    assert plan["estimate"]["firms"] == 3
    assert "cost\t$0.0" in result.stderr
    machine = quarters.outputs["state_machine_arn"]
    assert not quarters.client("stepfunctions").list_executions(stateMachineArn=machine)["executions"]


def findings(ftm: Ftm, exit_code: int = 0) -> dict[str, dict[str, Any]]:
    found = json.loads(ftm("doctor", "--json", exit_code=exit_code).stdout)
    return {finding["check"]: finding for finding in found}


def test_a_healthy_stack(quarters: Aws, ftm: Ftm) -> None:
    quarters.client("ssm").put_parameter(
        Name="/ftm-local/vllm/base_url", Value=quarters.outputs["vllm_base_url"], Type="String"
    )
    found = findings(ftm)

    assert {name for name, finding in found.items() if finding["level"] == "ok"} >= {
        *("credentials", "region", "outputs", "bucket", "prefetch", "state machine", "Batch queue", "address"),
    }
    assert found["idle GPUs"]["level"] == "warning"
    assert "vllm scale 0" in found["idle GPUs"]["text"]
    assert not [key for key in keys(quarters) if "doctor" in key]


def keys(aws: Aws) -> list[str]:
    return [item["Key"] for item in aws.client("s3").list_objects_v2(Bucket=BUCKET)["Contents"]]


def test_an_unhealthy_stack(quarters: Aws, ftm: Ftm) -> None:
    quarters.client("ssm").put_parameter(Name="/ftm-local/vllm/base_url", Value="http://old/v1", Type="String")
    quarters.client("stepfunctions").delete_state_machine(stateMachineArn=quarters.outputs["state_machine_arn"])
    quarters.outputs["job_definition_arn"] += "0"
    del quarters.outputs["batch_log_group"]
    register(quarters)

    found = findings(ftm, exit_code=1)

    assert {name for name, finding in found.items() if finding["level"] == "failure"} >= {
        *("outputs", "state machine", "worker image", "address"),
    }
    assert "lacks batch_log_group: deploy it again with `pulumi up`" in found["outputs"]["text"]


def test_a_stack_without_vllm_needs_a_key(aws: Aws, ftm: Ftm) -> None:
    del aws.outputs["vllm_asg_name"]
    aws.outputs["job_definition_arn"] = put_job_definition(aws)
    register(aws)

    assert env.LLM_API_KEY in findings(ftm, exit_code=1)["API key"]["text"]


def test_a_prefetch_is_replaced_only_on_request(aws: Aws, ftm: Ftm) -> None:
    ftm("prefetch", "sample", SUCCEEDS, "--firms", "2")

    assert "replace it with --force" in ftm("prefetch", "sample", SUCCEEDS, "--firms", "3", exit_code=5).stderr
    stale = layout.chunk_key(SUCCEEDS, "chunk_0099.parquet")
    aws.client("s3").put_object(Bucket=BUCKET, Key=stale, Body=b"")
    ftm("prefetch", "sample", SUCCEEDS, "--firms", "3", "--force")
    assert stale not in keys(aws)
    (item,) = json.loads(ftm("prefetch", "list", "--json").stdout)
    assert (item["quarter"], item["firms"], item["problem"]) == (SUCCEEDS, 3, "")
    shown = json.loads(ftm("prefetch", "show", SUCCEEDS, "--json").stdout)
    assert shown["sentences"] == sum(chunk["sentences"] for chunk in shown["chunks"]) > 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("ftm topics 20", [SUCCEEDS, "2020Q1"]),
        (f"ftm topics {SUCCEEDS} --firm F", ["F0", "F1", "F2"]),
        (f"ftm logs {SUCCEEDS} --batch 2", [f"{SUCCEEDS}_batch_0000"]),
    ],
)
def test_shell_completion(aws: Aws, ftm: Ftm, monkeypatch: pytest.MonkeyPatch, words: str, expected: list[str]) -> None:
    put_manifest(aws, SUCCEEDS)
    put_manifest(aws, "2020Q1")
    put_run(aws, SUCCEEDS)
    monkeypatch.setenv("_FTM_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))

    assert ftm().stdout.split() == expected
