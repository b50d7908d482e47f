"""The definitions of the state machines in the Amazon States Language (JSONPath).

The functions are pure and import no Pulumi, so that a definition can be linted and executed without a deployment.
contract/run.py has the limits of Step Functions that shaped them, beside MAX_BATCHES. `python -m components.definition
DIR` writes samples for the linters.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract import env
from contract.bucket import S3UnavailableError
from contract.resource_names import batch_job_name

Document = dict[str, Any]

_DAY = 24 * 60 * 60

QUARTER_TIMEOUT = 30 * _DAY
"""Seconds that one run may take."""

MAX_CONCURRENCY = 40
"""The largest number of iterations that Step Functions runs at once in an inline Map."""


@dataclass(frozen=True)
class QuarterCalls:
    """What the machine of one quarter calls. The four functions are given by their ARNs."""

    prefetch_check: str
    create_batch_manifest: str
    summarize_results: str
    notify_completion: str
    job_queue: str
    """The queue's ARN."""
    job_definition: str
    """The name without a revision: a batch that starts after a deployment runs the new revision."""
    job_name_prefix: str
    partition: str = "aws"
    """AWS's partition, which is part of the ARNs of service integrations."""


def quarter(calls: QuarterCalls, concurrency: int, batch_timeout: int) -> Document:
    """The machine that runs one quarter, `concurrency` batches at once, each within `batch_timeout` seconds.

    The timeout covers everything that a batch may wait for: a Spot host, and Batch's own retries.

    A failure after the checks continues with the summary, which records it and lets the run end as failed. The state's
    error is stored at the path of its result.
    """
    return {
        "Comment": "Topics of one quarter of earnings calls",
        "TimeoutSeconds": QUARTER_TIMEOUT,
        "StartAt": "CheckPrefetch",
        "States": {
            "CheckPrefetch": _function(calls.prefetch_check, 180)
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
            # Only the summary is needed from here on: a run of full size would otherwise reach the state's size limit.
            "SummarizeResults": _function(calls.summarize_results, 10 * 60)
            | {
                "Parameters": {"state.$": "$", "execution.$": "$$.Execution.Id"},
                "ResultSelector": {"summary.$": "$"},
                "Catch": _catch("$.summary", "NotifyCompletion"),
                "Next": "NotifyCompletion",
            },
            # Returns the summary too: after a failure of SummarizeResults it is one that says so.
            "NotifyCompletion": _function(calls.notify_completion, 60)
            | {
                "Parameters": {
                    "summary.$": "$.summary",
                    "quarter.$": "$$.Execution.Input.quarter",
                    "execution.$": "$$.Execution.Id",
                },
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


def quarters(quarter_machine: str, partition: str = "aws") -> Document:
    """The machine that runs a list of quarters with the machine of one quarter.

    Its input is `{"quarters": [{"quarter": ..., "bucket": ...}, ...], "at_once": 1}`. Each item is an input of the
    machine of one quarter.

    Args:
        quarter_machine: The other machine's ARN.
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
                ],
                "Default": "CheckAtOnce",
            },
            # A Choice cannot tell 1.5 from a whole number, with which Step Functions would end as States.Runtime.
            "CheckAtOnce": {
                "Type": "Pass",
                "Parameters": {
                    "quarters.$": "$.quarters",
                    "at_once.$": "$.at_once",
                    "allowed.$": f"States.ArrayContains(States.ArrayRange(1, {MAX_CONCURRENCY}, 1), $.at_once)",
                },
                "Next": "AtOnceAllowed?",
            },
            "AtOnceAllowed?": _if("$.allowed", True, "ProcessQuarters", otherwise="QuartersRequired"),
            "QuartersRequired": {
                "Type": "Fail",
                "Error": "InvalidInput",
                "Cause": (
                    'the input is {"quarters": [{"quarter": "2022Q1", "bucket": "..."}, ...], "at_once": 1}, '
                    f"with at least one quarter, and at_once, if given, a whole number from 1 to {MAX_CONCURRENCY}"
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
                "ItemProcessor": _one_quarter(quarter_machine, partition),
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
    """One iteration: a job. Only the batch's outcome is kept, since 2,000 of them must fit into the state."""
    job_name = batch_job_name(calls.job_name_prefix, "{}", "{}")
    return {
        "ProcessorConfig": {"Mode": "INLINE"},
        "StartAt": "SubmitBatchJob",
        "States": {
            "SubmitBatchJob": {
                "Type": "Task",
                "Resource": f"arn:{calls.partition}:states:::batch:submitJob.sync",
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
            # The cause holds the whole job, up to 32 KB: only the error's name is kept.
            "JobFailed": {
                "Type": "Pass",
                "Parameters": {"batch_id.$": "$.batch_id", "status": "FAILED", "error.$": "$.error.Error"},
                "End": True,
            },
        },
    }


def _one_quarter(quarter_machine: str, partition: str) -> Document:
    """One iteration: an execution of the other machine. Its failure is an outcome, as its success is."""
    return {
        "ProcessorConfig": {"Mode": "INLINE"},
        "StartAt": "QuarterNamed?",
        "States": {
            # Without this, an item without its quarter would end the whole list: Catch does not handle a missing path.
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
                "Resource": f"arn:{partition}:states:::states:startExecution.sync:2",
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
    """Try again up to ten times when a service is busy, after random delays of up to 60 seconds."""
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
    # The functions have repeated a request to S3 for a minute, or timed out while it stalled.
    S3UnavailableError.__name__,
    "Sandbox.Timedout",
)

# SubmitJob is limited to 50 calls a second. A job that ran and failed is States.TaskFailed: Batch itself retries that.
_BATCH_RETRY = _retry(
    "Batch.AWSBatchException",
    "Batch.ServerException",
    "Batch.TooManyRequestsException",
    "Batch.SdkClientException",
)


def _function(arn: str, timeout: int) -> Document:
    """A task whose output is the function's answer, without details of the invocation."""
    return {"Type": "Task", "Resource": arn, "TimeoutSeconds": timeout, "Retry": [_LAMBDA_RETRY]}


def _catch(path: str, goto: str) -> list[Document]:
    # States.ALL does not match States.DataLimitExceeded, and must be alone in its list.
    return [
        {"ErrorEquals": [error], "ResultPath": path, "Next": goto}
        for error in ("States.DataLimitExceeded", "States.ALL")
    ]


def _if(path: str, value: bool, goto: str, *, otherwise: str) -> Document:
    """Choose by a boolean. A missing value, a text or a number goes the other way."""
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
    """Write both definitions with ARNs of some account, for one batch at once and for as many as possible."""
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
