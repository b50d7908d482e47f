"""The state machine definitions: the behaviour of each state, and validity."""

import dataclasses
import json
from typing import Any

import pytest
from statelint.linter import Linter

from components import definition
from components.vllm_states import SmokeJob, VllmCalls
from contract.run import MAX_BATCHES

FUNCTION = "arn:aws:lambda:us-east-1:123456789012:function:ftm-"
CALLS = definition.QuarterCalls(
    prefetch_check=f"{FUNCTION}prefetch-check",
    create_batch_manifest=f"{FUNCTION}create-batch-manifest",
    summarize_results=f"{FUNCTION}summarize-results",
    notify_completion=f"{FUNCTION}notify-completion",
    job_queue="arn:aws:batch:us-east-1:123456789012:job-queue/ftm-queue",
    job_definition="ftm-worker",
    job_name_prefix="ftm",
)
QUARTER = definition.quarter(CALLS, concurrency=5, batch_timeout=3600)
QUARTERS = definition.quarters("arn:aws:states:us-east-1:123456789012:stateMachine:ftm-quarter-processor")
TARGET_GROUP = "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/ftm-vllm/0123456789abcdef"
SMOKE_JOB = SmokeJob(CALLS.job_queue, CALLS.job_definition, "/aws/batch/ftm", "ftm-calls", "ftm")
VLLM = VllmCalls("ftm-vllm-asg", "ftm-vllm-cluster", "ftm-vllm-service", TARGET_GROUP, SMOKE_JOB)
BRACKETED = definition.quarters("arn:aws:states:us-east-1:123456789012:stateMachine:quarter", vllm=VLLM)
WITH_FALLBACK = definition.quarters(
    "arn:aws:states:us-east-1:123456789012:stateMachine:quarter",
    vllm=dataclasses.replace(VLLM, fallback_minutes=20, on_demand=1),
)
DOCUMENTS = {"quarter": QUARTER, "quarters": QUARTERS, "bracketed": BRACKETED, "with fallback": WITH_FALLBACK}
BATCH = QUARTER["States"]["ProcessBatches"]["ItemProcessor"]


@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS)
def test_the_linter_finds_no_problem(document: dict[str, Any]) -> None:
    assert Linter.validate(document) == []


def test_the_states_are_those_of_the_design() -> None:
    assert list(QUARTER["States"]) == [
        "CheckPrefetch",
        "PrefetchExists?",
        "PrefetchRequired",
        "CreateBatchManifest",
        "ProcessBatches",
        "SummarizeResults",
        "NotifyCompletion",
        "CheckForFailures",
        "QuarterCompletedWithFailures",
        "QuarterCompletedSuccessfully",
    ]
    assert list(BATCH["States"]) == ["SubmitBatchJob", "JobSucceeded", "JobFailed"]


def test_a_job_gets_keys_and_no_lists() -> None:
    submit = BATCH["States"]["SubmitBatchJob"]["Parameters"]
    assert submit["JobName.$"] == "States.Format('ftm-{}-{}', $.run, $.batch_id)"
    assert {item["Name"]: item["Value.$"] for item in submit["ContainerOverrides"]["Environment"]} == {
        "S3_BUCKET": "$.bucket",
        "QUARTER": "$.quarter",
        "BATCH_ID": "$.batch_id",
        "MANIFEST_S3_KEY": "$.manifest_key",
    }


def test_an_iteration_returns_only_its_outcome() -> None:
    states = BATCH["States"]
    assert states["JobSucceeded"]["Parameters"].keys() == {"batch_id.$", "status"}
    assert states["JobFailed"]["Parameters"] == {
        "batch_id.$": "$.batch_id",
        "status": "FAILED",
        "error.$": "$.error.Error",
    }


def tasks(document: dict[str, Any]) -> list[dict[str, Any]]:
    found = [state for state in document["States"].values() if state["Type"] == "Task"]
    inner = [state["ItemProcessor"] for state in document["States"].values() if state["Type"] == "Map"]
    return found + [task for processor in inner for task in tasks(processor)]


@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS)
def test_every_state_has_a_timeout_and_retries_when_a_service_is_busy(document: dict[str, Any]) -> None:
    assert document["TimeoutSeconds"]
    for task in tasks(document):
        assert task["TimeoutSeconds"] < document["TimeoutSeconds"]
        (retry,) = task["Retry"]
        assert retry["JitterStrategy"] == "FULL"
        assert retry["MaxDelaySeconds"] == 60
        if "aws-sdk" in task["Resource"]:  # these calls are idempotent
            assert (retry["ErrorEquals"], "Catch" in task) == (["States.TaskFailed"], True)
            continue
        assert retry["MaxAttempts"] == 10
        # Failed tasks are not repeated: Batch has its own retries.
        assert not {"States.ALL", "States.TaskFailed", "States.Timeout"} & set(retry["ErrorEquals"])


def test_without_a_fallback_setting_the_purchase_options_are_never_changed() -> None:
    assert "updateAutoScalingGroup" not in json.dumps(BRACKETED)
    updates = [task for task in tasks(WITH_FALLBACK) if "updateAutoScalingGroup" in task["Resource"]]
    policies = [task["Parameters"]["MixedInstancesPolicy"] for task in updates]
    assert policies == [
        {"InstancesDistribution": {"OnDemandBaseCapacity.$": "$.vllm.size"}},
        {"InstancesDistribution": {"OnDemandBaseCapacity": 1}},
    ]


def test_a_run_decides_how_many_requests_a_job_sends_at_once() -> None:
    document = definition.quarter(dataclasses.replace(CALLS, sets_concurrency=True), concurrency=5, batch_timeout=3600)
    process = document["States"]["ProcessBatches"]
    assert process["ItemSelector"]["llm_concurrency.$"] == "$.manifest.llm_concurrency"
    variables = process["ItemProcessor"]["States"]["SubmitBatchJob"]["Parameters"]["ContainerOverrides"]["Environment"]
    assert {"Name": "LLM_MAX_CONCURRENT", "Value.$": "States.Format('{}', $.llm_concurrency)"} in variables


def test_throttled_submissions_are_retried() -> None:
    (retry,) = BATCH["States"]["SubmitBatchJob"]["Retry"]
    assert {"Batch.AWSBatchException", "Batch.TooManyRequestsException"} <= set(retry["ErrorEquals"])


def test_faults_of_s3_are_retried_after_the_functions_own_retries() -> None:
    for name in ("CheckPrefetch", "CreateBatchManifest", "SummarizeResults"):
        (retry,) = QUARTER["States"][name]["Retry"]
        assert "S3UnavailableError" in retry["ErrorEquals"]


def test_output_that_is_too_large_is_caught_by_its_error_name() -> None:
    catching = [
        *(
            QUARTER["States"][name]
            for name in ("CreateBatchManifest", "ProcessBatches", "SummarizeResults", "NotifyCompletion")
        ),
        BATCH["States"]["SubmitBatchJob"],
    ]
    for state in catching:
        assert [catcher["ErrorEquals"] for catcher in state["Catch"]] == [["States.DataLimitExceeded"], ["States.ALL"]]


@pytest.mark.parametrize("name", ["PrefetchExists?", "CheckForFailures"])
def test_only_a_boolean_lets_a_run_continue_or_succeed(name: str) -> None:
    (rule,) = QUARTER["States"][name]["Choices"]
    assert [next(iter(test.keys() - {"Variable"})) for test in rule["And"]] == [
        "IsPresent",
        "IsBoolean",
        "BooleanEquals",
    ]
    otherwise = QUARTER["States"][QUARTER["States"][name]["Default"]]
    assert otherwise["Type"] == "Fail"


def test_the_largest_run_stays_within_the_limits_of_states_and_history() -> None:
    """Calculated here; tests/state_machine measures the sizes in a real execution."""
    ids = [f"2023Q1_batch_{number:04d}" for number in range(MAX_BATCHES)]
    # The longest name of an error of Batch or Step Functions is States.ExceedToleratedFailureThreshold.
    longest_error = "x" * 40
    data = {
        "quarter": "2023Q1",
        "bucket": "b" * 63,
        "batch_size": 10_000,
        "resume": "20230405_101500",
        "AWS_STEP_FUNCTIONS_STARTED_BY_EXECUTION_ID": "x" * 300,
        "prefetch": {"exists": True},
        "manifest": {
            "run": "20230405_101500",
            "manifest_key": "manifests/2023Q1/manifest_20230405_101500.jsonl",
            "firms": 200_000,
            "batch_size": 10_000,
            "note": "x" * 300,
            "batch_ids": ids,
        },
        "batches": [{"batch_id": batch_id, "status": "FAILED", "error": longest_error} for batch_id in ids],
    }
    payload = {"state": data, "execution": "x" * 300}
    size = len(json.dumps(payload, separators=(",", ":")))
    assert size < 256 * 1024, size

    # MapIterationStarted, TaskStateEntered, TaskScheduled, TaskStarted, TaskSubmitted, TaskFailed, TaskStateExited,
    # PassStateEntered, PassStateExited, MapIterationSucceeded; and four functions, two choices and the Map around them.
    events = 10 * MAX_BATCHES + 4 * 5 + 2 * 2 + 4 + 3
    spare = 25_000 - events
    # A throttled submission costs TaskScheduled, TaskStarted and TaskSubmitFailed.
    assert spare // 3 > 1_600
