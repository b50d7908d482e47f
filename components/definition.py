"""The state machines' definitions in the Amazon States Language, as functions of what they call.

Pure: no Pulumi, so that a definition can be linted and run as it is. JSONPath dialect. Limits that shaped them are in
contract/run.py beside MAX_BATCHES. `python -m components.definition DIR` writes samples of both for the linters.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract import env
from contract.resource_names import batch_job_name

Document = dict[str, Any]

_DAY = 24 * 60 * 60

QUARTER_TIMEOUT = 30 * _DAY
"""Seconds that one run may take."""

MAX_CONCURRENCY = 40
"""Iterations that Step Functions runs at once in an inline Map, whatever is asked for."""


@dataclass(frozen=True)
class QuarterCalls:
    """What the machine of one quarter calls. The functions are ARNs."""

    prefetch_check: str
    create_batch_manifest: str
    summarize_results: str
    notify_completion: str
    job_queue: str
    """ARN."""
    job_definition: str
    """Without a revision: a batch that is retried after a deployment runs what is deployed then."""
    job_name_prefix: str


def quarter(calls: QuarterCalls, concurrency: int, batch_timeout: int) -> Document:
    """The machine that runs one quarter, `concurrency` batches at once, each within `batch_timeout` seconds.

    The timeout is for everything that a batch may wait for: a Spot host, and Batch's own retries.

    Whatever fails after the checks goes on to the summary, which tells it and ends the run as failed: a state's error
    lies where its answer would be.
    """
    return {
        "Comment": "Topics of one quarter of earnings calls",
        "TimeoutSeconds": QUARTER_TIMEOUT,
        "StartAt": "CheckPrefetch",
        "States": {
            "CheckPrefetch": _function(calls.prefetch_check, 30)
            | {"ResultPath": "$.prefetch", "Next": "PrefetchExists?"},
            "PrefetchExists?": _if("$.prefetch.exists", True, "CreateBatchManifest", otherwise="PrefetchRequired"),
            "PrefetchRequired": {"Type": "Fail", "ErrorPath": "$.prefetch.error", "CausePath": "$.prefetch.cause"},
            "CreateBatchManifest": _function(calls.create_batch_manifest, 5 * 60)
            | {
                "Parameters": {
                    "input.$": "$",
                    "execution.$": "$$.Execution.Id",
                    "started_at.$": "$$.Execution.StartTime",
                },
                "ResultPath": "$.manifest",
                "Catch": _catch("$.manifest", "SummarizeResults"),
                "Next": "ProcessBatches",
            },
            "ProcessBatches": {
                "Type": "Map",
                "ItemsPath": "$.manifest.batch_ids",
                "MaxConcurrency": concurrency,
                "ItemSelector": {
                    "batch_id.$": "$$.Map.Item.Value",
                    "bucket.$": "$.bucket",
                    "quarter.$": "$.quarter",
                    "run.$": "$.manifest.run",
                    "manifest_key.$": "$.manifest.manifest_key",
                },
                "ItemProcessor": _batch(calls, batch_timeout),
                "ResultPath": "$.batches",
                "Catch": _catch("$.batches", "SummarizeResults"),
                "Next": "SummarizeResults",
            },
            # From here on only the summary matters: dropping the rest leaves a full-sized run room in the state.
            "SummarizeResults": _function(calls.summarize_results, 10 * 60)
            | {
                "Parameters": {"state.$": "$", "execution.$": "$$.Execution.Id"},
                "ResultSelector": {"summary.$": "$"},
                "Next": "NotifyCompletion",
            },
            "NotifyCompletion": _function(calls.notify_completion, 60)
            | {
                "Parameters": {"summary.$": "$.summary", "execution.$": "$$.Execution.Id"},
                "ResultPath": "$.notification",
                "Catch": _catch("$.notification", "CheckForFailures"),
                "Next": "CheckForFailures",
            },
            "CheckForFailures": _if(
                "$.summary.has_failures",
                False,
                "QuarterCompletedSuccessfully",
                otherwise="QuarterCompletedWithFailures",
            ),
            "QuarterCompletedWithFailures": {
                "Type": "Fail",
                "Error": "QuarterCompletedWithFailures",
                "CausePath": "$.summary.message",
            },
            "QuarterCompletedSuccessfully": {"Type": "Succeed"},
        },
    }


def quarters(quarter_machine: str) -> Document:
    """The machine that runs a list of quarters through the machine of one quarter, whose ARN it gets.

    Its input is `{"quarters": [{"quarter": ..., "bucket": ...}, ...], "at_once": 1}`, each item one input of the other.
    """
    return {
        "Comment": "Several quarters, one at a time or a few at once",
        "TimeoutSeconds": 360 * _DAY,
        "StartAt": "QuartersGiven?",
        "States": {
            "QuartersGiven?": {
                "Type": "Choice",
                "Choices": [
                    {"Not": {"Variable": "$.quarters[0].quarter", "IsPresent": True}, "Next": "QuartersRequired"},
                    {"Not": {"Variable": "$.at_once", "IsPresent": True}, "Next": "OneAtATime"},
                    {
                        "And": [
                            {"Variable": "$.at_once", "IsNumeric": True},
                            {"Variable": "$.at_once", "NumericGreaterThanEquals": 1},
                            {"Variable": "$.at_once", "NumericLessThanEquals": MAX_CONCURRENCY},
                        ],
                        "Next": "ProcessQuarters",
                    },
                ],
                "Default": "QuartersRequired",
            },
            "QuartersRequired": {
                "Type": "Fail",
                "Error": "InvalidInput",
                "Cause": (
                    'the input is {"quarters": [{"quarter": "2022Q1", "bucket": "..."}, ...], "at_once": 1}, '
                    f"with at least one quarter, and at_once, if given, from 1 to {MAX_CONCURRENCY}"
                ),
            },
            "OneAtATime": {"Type": "Pass", "Result": 1, "ResultPath": "$.at_once", "Next": "ProcessQuarters"},
            "ProcessQuarters": {
                "Type": "Map",
                "ItemsPath": "$.quarters",
                "MaxConcurrencyPath": "$.at_once",
                "ItemSelector": {
                    "input.$": "$$.Map.Item.Value",
                    # The console links an execution to the one that started it by this key.
                    "started_by": {"AWS_STEP_FUNCTIONS_STARTED_BY_EXECUTION_ID.$": "$$.Execution.Id"},
                },
                "ItemProcessor": _one_quarter(quarter_machine),
                "ResultPath": "$.outcomes",
                "Next": "SummarizeQuarters",
            },
            "SummarizeQuarters": {
                "Type": "Pass",
                "Parameters": {
                    "total.$": "States.ArrayLength($.outcomes)",
                    "succeeded.$": "$.outcomes[*].succeeded",
                    "failed.$": "$.outcomes[*].failed",
                },
                "ResultPath": "$.summary",
                "Next": "AnyQuarterFailed?",
            },
            "AnyQuarterFailed?": {
                "Type": "Choice",
                "Choices": [
                    {
                        "Not": {"Variable": "$.summary.failed[0]", "IsPresent": True},
                        "Next": "QuartersCompletedSuccessfully",
                    }
                ],
                "Default": "QuartersCompletedWithFailures",
            },
            "QuartersCompletedWithFailures": {
                "Type": "Fail",
                "Error": "QuartersCompletedWithFailures",
                "CausePath": (
                    "States.Format('of {} quarters these failed: {}', "
                    "$.summary.total, States.JsonToString($.summary.failed))"
                ),
            },
            "QuartersCompletedSuccessfully": {"Type": "Succeed"},
        },
    }


def _batch(calls: QuarterCalls, timeout: int) -> Document:
    """One iteration: a job, of which only the batch's outcome is kept, since 2,000 of them must fit into a state."""
    job_name = batch_job_name(calls.job_name_prefix, "{}", "{}")
    return {
        "ProcessorConfig": {"Mode": "INLINE"},
        "StartAt": "SubmitBatchJob",
        "States": {
            "SubmitBatchJob": {
                "Type": "Task",
                "Resource": "arn:aws:states:::batch:submitJob.sync",
                "TimeoutSeconds": timeout,
                "Parameters": {
                    "JobName.$": f"States.Format('{job_name}', $.run, $.batch_id)",
                    "JobQueue": calls.job_queue,
                    "JobDefinition": calls.job_definition,
                    "ContainerOverrides": {
                        "Environment": [
                            {"Name": env.S3_BUCKET, "Value.$": "$.bucket"},
                            {"Name": env.QUARTER, "Value.$": "$.quarter"},
                            {"Name": env.BATCH_ID, "Value.$": "$.batch_id"},
                            {"Name": env.MANIFEST_S3_KEY, "Value.$": "$.manifest_key"},
                        ]
                    },
                },
                "ResultSelector": {"job_id.$": "$.JobId"},
                "ResultPath": "$.job",
                "Retry": [_BATCH_RETRY],
                "Catch": _catch("$.error", "JobFailed"),
                "Next": "JobSucceeded",
            },
            "JobSucceeded": {
                "Type": "Pass",
                "Parameters": {"batch_id.$": "$.batch_id", "status": "SUCCEEDED"},
                "End": True,
            },
            # The cause holds the whole job, up to 32 KB: only the error's name goes on.
            "JobFailed": {
                "Type": "Pass",
                "Parameters": {"batch_id.$": "$.batch_id", "status": "FAILED", "error.$": "$.error.Error"},
                "End": True,
            },
        },
    }


def _one_quarter(quarter_machine: str) -> Document:
    """One iteration: an execution of the other machine, whose failure is an outcome like its success."""
    return {
        "ProcessorConfig": {"Mode": "INLINE"},
        "StartAt": "QuarterNamed?",
        "States": {
            # Without this an item that lacks its quarter would end the whole list: nothing catches a missing path.
            "QuarterNamed?": {
                "Type": "Choice",
                "Choices": [{"Variable": "$.input.quarter", "IsPresent": True, "Next": "RunQuarter"}],
                "Default": "QuarterUnnamed",
            },
            "QuarterUnnamed": {
                "Type": "Pass",
                "Parameters": {"failed.$": "$.input", "error": "InvalidInput"},
                "End": True,
            },
            "RunQuarter": {
                "Type": "Task",
                "Resource": "arn:aws:states:::states:startExecution.sync:2",
                "TimeoutSeconds": QUARTER_TIMEOUT + _DAY,
                "Parameters": {
                    "StateMachineArn": quarter_machine,
                    "Name.$": "States.Format('{}-{}', $$.Execution.Name, $.input.quarter)",
                    "Input.$": "States.JsonMerge($.input, $.started_by, false)",
                },
                "ResultSelector": {"execution.$": "$.ExecutionArn"},
                "ResultPath": "$.result",
                "Retry": [_retry("StepFunctions.AWSStepFunctionsException", "StepFunctions.SdkClientException")],
                "Catch": _catch("$.error", "QuarterFailed"),
                "Next": "QuarterSucceeded",
            },
            "QuarterSucceeded": {
                "Type": "Pass",
                "Parameters": {"succeeded.$": "$.input.quarter"},
                "End": True,
            },
            "QuarterFailed": {
                "Type": "Pass",
                "Parameters": {"failed.$": "$.input.quarter", "error.$": "$.error.Error"},
                "End": True,
            },
        },
    }


def _retry(*errors: str) -> Document:
    """Patience with a busy service: ten times, at random within 2 to 60 seconds, so that not all come back at once."""
    return {
        "ErrorEquals": list(errors),
        "IntervalSeconds": 2,
        "BackoffRate": 2.0,
        "MaxDelaySeconds": 60,
        "MaxAttempts": 10,
        "JitterStrategy": "FULL",
    }


_LAMBDA_RETRY = _retry(
    "Lambda.ServiceException",
    "Lambda.AWSLambdaException",
    "Lambda.SdkClientException",
    "Lambda.TooManyRequestsException",
    "Lambda.ClientExecutionTimeoutException",
)

# SubmitJob is limited to 50 a second. A job that ran and failed is States.TaskFailed, and is Batch's own to retry.
_BATCH_RETRY = _retry(
    "Batch.AWSBatchException",
    "Batch.ServerException",
    "Batch.TooManyRequestsException",
    "Batch.SdkClientException",
)


def _function(arn: str, timeout: int) -> Document:
    """A task that is a function's answer, and nothing of how it was invoked."""
    return {"Type": "Task", "Resource": arn, "TimeoutSeconds": timeout, "Retry": [_LAMBDA_RETRY]}


def _catch(path: str, goto: str) -> list[Document]:
    # States.ALL does not match States.DataLimitExceeded, and must stand alone.
    return [
        {"ErrorEquals": [error], "ResultPath": path, "Next": goto}
        for error in ("States.DataLimitExceeded", "States.ALL")
    ]


def _if(path: str, value: bool, goto: str, *, otherwise: str) -> Document:
    """A choice that trusts nothing but the boolean itself: no value, a text or a number go the other way."""
    return {
        "Type": "Choice",
        "Choices": [
            {
                "And": [
                    {"Variable": path, "IsPresent": True},
                    {"Variable": path, "IsBoolean": True},
                    {"Variable": path, "BooleanEquals": value},
                ],
                "Next": goto,
            }
        ],
        "Default": otherwise,
    }


def _write_samples(directory: Path) -> None:
    """Both definitions as they would be in some account, one batch at once and as many as there can be."""
    function = "arn:aws:lambda:us-east-1:123456789012:function:ftm"
    calls = QuarterCalls(
        prefetch_check=f"{function}-prefetch-check",
        create_batch_manifest=f"{function}-create-batch-manifest",
        summarize_results=f"{function}-summarize-results",
        notify_completion=f"{function}-notify-completion",
        job_queue="arn:aws:batch:us-east-1:123456789012:job-queue/ftm-queue",
        job_definition="ftm-worker",
        job_name_prefix="ftm",
    )
    samples = {
        "quarter": quarter(calls, 1, _DAY),
        "quarter-at-most": quarter(calls, MAX_CONCURRENCY, _DAY),
        "quarters": quarters("arn:aws:states:us-east-1:123456789012:stateMachine:ftm-quarter-processor"),
    }
    directory.mkdir(parents=True, exist_ok=True)
    for name, document in samples.items():
        (directory / f"{name}.asl.json").write_text(json.dumps(document, indent=2))


if __name__ == "__main__":
    _write_samples(Path(sys.argv[1]))
