"""The definitions of the state machines in the Amazon States Language (JSONPath).

The functions are pure and import no Pulumi, so that a definition can be linted and executed without a deployment.
The limits of Step Functions behind the design are in contract/run.py at MAX_BATCHES. `python -m components.definition
DIR` writes samples for the linters.
"""

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from components.asl import SUBMIT_JOB_RETRY, Document, catch, choose, is_boolean, is_present, negate, retry
from components.vllm_states import SmokeJob, VllmCalls, kept, read_stopped, scale_down, scale_up, smoke_test
from contract import env
from contract.bucket import S3UnavailableError
from contract.resource_names import batch_job_name

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
    sets_concurrency: bool = False
    """Whether a run decides how many requests each job sends to the LLM at once."""
    partition: str = "aws"
    """AWS's partition, which is part of the ARNs of service integrations."""


def quarter(calls: QuarterCalls, concurrency: int, batch_timeout: int) -> Document:
    """The machine that runs one quarter, `concurrency` batches at once, each within `batch_timeout` seconds.

    The timeout covers everything that a batch may wait for: a Spot host, and Batch's own retries.

    After the checks, a failed state continues with the summary, which records the failure, and the run then fails. The
    error is stored at the path of the state's result.
    """
    return {
        "Comment": "Topics of one quarter of earnings calls",
        "TimeoutSeconds": QUARTER_TIMEOUT,
        "StartAt": "CheckPrefetch",
        "States": {
            "CheckPrefetch": _function(calls.prefetch_check, 180)
            | {"ResultPath": "$.prefetch", "Next": "PrefetchExists?"},
            "PrefetchExists?": choose("$.prefetch.exists", True, "CreateBatchManifest", otherwise="PrefetchRequired"),
            "PrefetchRequired": {"Type": "Fail", "ErrorPath": "$.prefetch.error", "CausePath": "$.prefetch.cause"},
            "CreateBatchManifest": _function(calls.create_batch_manifest, 5 * 60)
            | {
                "Parameters": {
                    "input.$": "$",
                    "execution.$": "$$.Execution.Id",
                    "started_at.$": "$$.Execution.StartTime",
                },
                "ResultPath": "$.manifest",
                "Catch": catch("$.manifest", "SummarizeResults"),
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
                    **({"llm_concurrency.$": "$.manifest.llm_concurrency"} if calls.sets_concurrency else {}),
                },
                "ItemProcessor": _batch(calls, batch_timeout),
                "ResultPath": "$.batches",
                "Catch": catch("$.batches", "SummarizeResults"),
                "Next": "SummarizeResults",
            },
            # Only the summary is kept from here on: with all batches, a large run would exceed the state's size limit.
            "SummarizeResults": _function(calls.summarize_results, 10 * 60)
            | {
                "Parameters": {"state.$": "$", "execution.$": "$$.Execution.Id"},
                "ResultSelector": {"summary.$": "$"},
                # Stored as the summary's message, so that the run ends with this error if the next state fails too.
                "Catch": catch("$.summary.message", "NotifyCompletion"),
                "Next": "NotifyCompletion",
            },
            # Returns the summary; after a failure of SummarizeResults, one whose message explains the failure.
            "NotifyCompletion": _function(calls.notify_completion, 60)
            | {
                "Parameters": {
                    "summary.$": "$.summary",
                    "quarter.$": "$$.Execution.Input.quarter",
                    "execution.$": "$$.Execution.Id",
                    "started_at.$": "$$.Execution.StartTime",
                    "own_gpu": calls.sets_concurrency,
                },
                "Catch": catch("$.notification", "CheckForFailures"),
                "Next": "CheckForFailures",
            },
            "CheckForFailures": choose(
                "$.summary.has_failures",
                False,
                "QuarterCompletedSuccessfully",
                otherwise="QuarterCompletedWithFailures",
            ),
            "QuarterCompletedWithFailures": {
                "Type": "Fail",
                "Error": "QuarterCompletedWithFailures",
                # The message is a sentence, or an error object, which States.Format converts to text.
                "CausePath": "States.Format('{}', $.summary.message)",
            },
            "QuarterCompletedSuccessfully": {"Type": "Succeed"},
        },
    }


def quarters(quarter_machine: str, partition: str = "aws", vllm: VllmCalls | None = None) -> Document:
    """The machine that runs a list of quarters with the machine of one quarter.

    Its input is `{"quarters": [{"quarter": ..., "bucket": ...}, ...], "at_once": 1}`. Each item is an input of the
    machine of one quarter. With `"vllm": {"size": 1, "keep": false}`, vLLM is switched on first, and switched off at
    the end, also when the quarters fail or the execution is stopped, unless `keep` is true. With
    `"vllm": {"keep": true}`, vLLM is not scaled. In both cases a smoke test precedes the first quarter, unless
    `smoke_test` is false.

    Args:
        quarter_machine: The other machine's ARN.
        vllm: None for a stack without vLLM.
    """
    after = "VllmKept?" if vllm else "QuartersRun?"
    states = _check_quarters(begin="VllmWanted?" if vllm else "ProcessQuarters") | {
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
            "Catch": catch("$.problem", after),
            "Next": after,
        },
        "QuartersRun?": {
            "Type": "Choice",
            "Choices": [
                {**is_present("$.problem"), "Next": "QuartersNotRun"},
                {**is_present("$.outcomes"), "Next": "SummarizeQuarters"},
            ],
            "Default": "CleanedUpAfterStop",
        },
        "QuartersNotRun": {"Type": "Fail", "ErrorPath": "$.problem.Error", "CausePath": "$.problem.Cause"},
        "CleanedUpAfterStop": {"Type": "Succeed"},
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
    }
    if vllm:
        states |= {
            **read_stopped(vllm, partition, bracketed="BeginScaleDown", otherwise="QuartersGiven?"),
            "VllmWanted?": {
                "Type": "Choice",
                "Choices": [
                    {**negate(is_present("$.vllm")), "Next": "ProcessQuarters"},
                    {
                        "And": [negate(is_present("$.vllm.size")), is_boolean("$.vllm.keep", True)],
                        "Next": "SmokeTestWanted?",
                    },
                    {
                        "And": [
                            is_present("$.vllm.size"),
                            {"Variable": "$.vllm.size", "IsNumeric": True},
                            {"Variable": "$.vllm.size", "NumericGreaterThanEquals": 1},
                        ],
                        "Next": "FindSize",
                    },
                ],
                "Default": "QuartersRequired",
            },
            # If vLLM does not become healthy, the requested instances are switched off, even with `keep`.
            **scale_up(vllm, partition, then="SmokeTestWanted?", failed="BeginScaleDown"),
            **smoke_test(vllm.smoke_job, partition, then="ProcessQuarters", failed="VllmKept?"),
            "VllmKept?": kept("QuartersRun?", otherwise="BeginScaleDown"),
            **scale_down(vllm, quarter_machine, partition, then="QuartersRun?"),
        }
    return {
        "Comment": "Several quarters, one at a time or a few at once",
        "TimeoutSeconds": 360 * _DAY,
        "StartAt": "Stopped?" if vllm else "QuartersGiven?",
        "States": states,
    }


def _check_quarters(*, begin: str) -> dict[str, Document]:
    """Check the input, fill in `at_once`, and continue with `begin`."""
    at_once = f"States.ArrayContains(States.ArrayRange(1, {MAX_CONCURRENCY}, 1), $.at_once)"
    return {
        "QuartersGiven?": {
            "Type": "Choice",
            "Choices": [
                {**negate(is_present("$.quarters[0].quarter")), "Next": "QuartersRequired"},
                {**negate(is_present("$.at_once")), "Next": "OneAtATime"},
            ],
            "Default": "CheckAtOnce",
        },
        # A Choice cannot distinguish 1.5 from a whole number; Step Functions would fail on it with States.Runtime.
        "CheckAtOnce": {
            "Type": "Pass",
            "Parameters": {"allowed.$": at_once},
            "ResultPath": "$.checked",
            "Next": "AtOnceAllowed?",
        },
        "AtOnceAllowed?": choose("$.checked.allowed", True, begin, otherwise="QuartersRequired"),
        "QuartersRequired": {
            "Type": "Fail",
            "Error": "InvalidInput",
            "Cause": (
                'the input is {"quarters": [{"quarter": "2022Q1", "bucket": "..."}, ...], "at_once": 1}, '
                f"with at least one quarter, and at_once, if given, a whole number from 1 to {MAX_CONCURRENCY}; with a "
                'stack that has vLLM also "vllm": {"size": 1, "keep": false}'
            ),
        },
        "OneAtATime": {"Type": "Pass", "Result": 1, "ResultPath": "$.at_once", "Next": begin},
    }


def _batch(calls: QuarterCalls, timeout: int) -> Document:
    """One iteration: a job. Only the batch's outcome is kept, since 2,000 of them must fit into the state."""
    of_run = {"Name": env.LLM_MAX_CONCURRENT, "Value.$": "States.Format('{}', $.llm_concurrency)"}
    concurrency = [of_run] if calls.sets_concurrency else []
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
                            *concurrency,
                        ]
                    },
                },
                "ResultSelector": {"job_id.$": "$.JobId"},
                "ResultPath": "$.job",
                "Retry": [SUBMIT_JOB_RETRY],
                "Catch": catch("$.error", "JobFailed"),
                "Next": "JobSucceeded",
            },
            "JobSucceeded": {
                "Type": "Pass",
                "Parameters": {"batch_id.$": "$.batch_id", "status": "SUCCEEDED"},
                "End": True,
            },
            # The cause contains the whole job, up to 32 KB: only the error's name is kept.
            "JobFailed": {
                "Type": "Pass",
                "Parameters": {"batch_id.$": "$.batch_id", "status": "FAILED", "error.$": "$.error.Error"},
                "End": True,
            },
        },
    }


def _one_quarter(quarter_machine: str, partition: str) -> Document:
    """One iteration: an execution of the machine of one quarter. A failure becomes an outcome, as a success does."""
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
                "Retry": [retry("StepFunctions.AWSStepFunctionsException", "StepFunctions.SdkClientException")],
                "Catch": catch("$.error", "QuarterFailed"),
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


_LAMBDA_RETRY = retry(
    "Lambda.ServiceException",
    "Lambda.AWSLambdaException",
    "Lambda.SdkClientException",
    "Lambda.TooManyRequestsException",
    "Lambda.ClientExecutionTimeoutException",
    # The functions have repeated a request to S3 for a minute, or timed out while it stalled.
    S3UnavailableError.__name__,
    "Sandbox.Timedout",
)


def _function(arn: str, timeout: int) -> Document:
    """A task whose output is the function's answer, without details of the invocation."""
    return {"Type": "Task", "Resource": arn, "TimeoutSeconds": timeout, "Retry": [_LAMBDA_RETRY]}


def _write_samples(directory: Path) -> None:
    """Write the definitions with ARNs of some account: for one batch at once and for as many as possible, without and
    with vLLM."""
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
    machine = "arn:aws:states:us-east-1:123456789012:stateMachine:ftm-quarter-processor"
    target_group = "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/ftm-vllm/0123456789abcdef"
    smoke_job = SmokeJob(calls.job_queue, calls.job_definition, "/aws/batch/ftm", "ftm-calls", "ftm")
    vllm = VllmCalls(
        "ftm-vllm-asg", "ftm-vllm-cluster", "ftm-vllm-service", target_group, smoke_job, fallback_minutes=20
    )
    samples = {
        "quarter": quarter(calls, 1, _DAY),
        "quarter-at-most": quarter(calls, MAX_CONCURRENCY, _DAY),
        "quarter-with-vllm": quarter(replace(calls, sets_concurrency=True), 5, _DAY),
        "quarters": quarters(machine),
        "quarters-with-vllm": quarters(machine, vllm=vllm),
    }
    directory.mkdir(parents=True, exist_ok=True)
    for name, document in samples.items():
        (directory / f"{name}.asl.json").write_text(json.dumps(document, indent=2))


if __name__ == "__main__":
    _write_samples(Path(sys.argv[1]))
