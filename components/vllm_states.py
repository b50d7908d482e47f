"""The states of the machine of a list of quarters that switch vLLM on and test it before the quarters, and switch it
off after them.

They call AWS's APIs directly from Step Functions, without a Lambda function. They use two paths of the state:
`$.vllm` is that part of the input, `{"size": 1, "keep": false}`; `$.problem` is the error that prevented the quarters
from running, `{"Error", "Cause"}`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from components.alarms import COLD_START_MINUTES
from components.asl import SUBMIT_JOB_RETRY, Document, catch, choose, is_boolean, is_present, negate, retry
from contract import env

POLL_SECONDS = 15

_QUOTA_ERRORS = ("MaxSpotInstanceCountExceeded", "VcpuLimitExceeded")
"""EC2's error codes when the account's Spot or on-demand quota is used up. Waiting does not help."""

SMOKE_TEST_SECONDS = 60 * 60
"""Upper bound on the smoke test, including the start of a host for its job."""


@dataclass(frozen=True)
class SmokeJob:
    """The Batch job that has vLLM name three topics."""

    job_queue: str
    """The queue's ARN."""
    job_definition: str
    """The worker's, without a revision."""
    log_group: str
    bucket: str
    name_prefix: str


@dataclass(frozen=True)
class VllmCalls:
    """The resources that the states call, by name; the target group by ARN."""

    group: str
    cluster: str
    service: str
    target_group: str
    smoke_job: SmokeJob
    minimum: int = 0
    """Instances that always run: vLLM is scaled down to them."""
    on_demand: int = 0
    """The group's deployed on-demand base capacity."""
    fallback_minutes: int = 0
    """Minutes without any instance after which on-demand ones are started; 0: never."""
    limit_minutes: int = COLD_START_MINUTES
    """How long to wait for healthy instances."""
    poll_seconds: int = POLL_SECONDS


def scale_up(calls: VllmCalls, partition: str, *, then: str, failed: str) -> dict[str, Document]:
    """Request `$.vllm.size` instances and wait until that many are healthy; starts at `FindSize`.

    A larger group keeps its size, which is the minimum or was requested by another execution or an operator. After the
    time limit, one healthy instance suffices. If there is none, `$.problem` has the reason, and `failed` comes next.
    """
    checks = calls.limit_minutes * 60 // calls.poll_seconds
    in_time = {"Variable": "$.waited.checks", "NumericLessThan": checks}
    all_healthy = {
        "And": [
            {"Variable": "$.waited.targets", "NumericGreaterThanEqualsPath": "$.vllm.size"},
            {"Variable": "$.waited.states[0]", "StringEquals": "healthy"},
            negate(is_present("$.waited.states[1]")),
        ]
    }
    quota_used_up = {
        "And": [
            is_present("$.activity.message[0]"),
            # An older message is of an earlier attempt.
            {"Variable": "$.activity.started[0]", "TimestampGreaterThanPath": "$.waited.since"},
            {"Or": [{"Variable": "$.activity.message[0]", "StringMatches": f"*{one}*"} for one in _QUOTA_ERRORS]},
        ]
    }
    choices = [
        {**all_healthy, "Next": then},
        {"And": [negate(in_time), is_boolean("$.waited.any", True)], "Next": then},
        {**negate(in_time), "Next": "VllmTooLate"},
        {"And": [quota_used_up, is_boolean("$.waited.any", True)], "Next": then},
        {**quota_used_up, "Next": "QuotaExceeded"},
    ]
    states: dict[str, Document] = {
        "FindSize": _call(partition, "autoscaling:describeAutoScalingGroups", {"AutoScalingGroupNames": [calls.group]})
        | {
            "ResultSelector": {"size.$": "$.AutoScalingGroups[0].DesiredCapacity"},
            "ResultPath": "$.found",
            "Catch": catch("$.problem", failed),
            "Next": "LargerAlready?",
        },
        "LargerAlready?": {
            "Type": "Choice",
            "Choices": [
                {"Variable": "$.found.size", "NumericGreaterThanPath": "$.vllm.size", "Next": "KeepLargerSize"}
            ],
            "Default": "ScaleGroupUp",
        },
        "KeepLargerSize": {
            "Type": "Pass",
            "InputPath": "$.found.size",
            "ResultPath": "$.vllm.size",
            "Next": "ScaleGroupUp",
        },
        "ScaleGroupUp": _set_group(calls, partition, {"DesiredCapacity.$": "$.vllm.size"}, attempts=3)
        | {"Catch": catch("$.problem", failed), "Next": "ScaleServiceUp"},
        "ScaleServiceUp": _set_service(calls, partition, {"DesiredCount.$": "$.vllm.size"}, attempts=3)
        | {"Catch": catch("$.problem", failed), "Next": "BeginWaiting"},
        "BeginWaiting": {
            "Type": "Pass",
            "Parameters": {"checks": 0, "since.$": "$$.Execution.StartTime"},
            "ResultPath": "$.waited",
            "Next": "CheckTargets",
        },
        "CheckTargets": _call(
            partition, "elasticloadbalancingv2:describeTargetHealth", {"TargetGroupArn": calls.target_group}
        )
        | {
            "ResultSelector": {"states.$": "$.TargetHealthDescriptions[*].TargetHealth.State"},
            "ResultPath": "$.targets",
            "Catch": catch("$.problem", failed),
            "Next": "CheckGroup",
        },
        "CheckGroup": _call(
            partition, "autoscaling:describeAutoScalingGroups", {"AutoScalingGroupNames": [calls.group]}
        )
        | {
            "ResultSelector": {"instances.$": "$.AutoScalingGroups[0].Instances[*].InstanceId"},
            "ResultPath": "$.group",
            "Catch": catch("$.problem", failed),
            "Next": "CheckActivity",
        },
        "CheckActivity": _call(
            partition,
            "autoscaling:describeScalingActivities",
            {"AutoScalingGroupName": calls.group, "MaxRecords": 1},
        )
        | {
            "ResultSelector": {
                "message.$": "$.Activities[*].StatusMessage",
                "started.$": "$.Activities[*].StartTime",
            },
            "ResultPath": "$.activity",
            "Catch": catch("$.problem", failed),
            "Next": "CountHealthy",
        },
        "CountHealthy": {
            "Type": "Pass",
            "Parameters": {
                "checks.$": "States.MathAdd($.waited.checks, 1)",
                "since.$": "$.waited.since",
                "targets.$": "States.ArrayLength($.targets.states)",
                "states.$": "States.ArrayUnique($.targets.states)",
                "any.$": "States.ArrayContains($.targets.states, 'healthy')",
            },
            "ResultPath": "$.waited",
            "Next": "VllmHealthy?",
        },
        "VllmHealthy?": {"Type": "Choice", "Choices": choices, "Default": "WaitForVllm"},
        "WaitForVllm": {"Type": "Wait", "Seconds": calls.poll_seconds, "Next": "CheckTargets"},
        "VllmTooLate": _problem(
            "VllmNotHealthy",
            f"States.Format('vLLM was not healthy within {calls.limit_minutes} minutes. Instances: {{}}. The last "
            "message of the Auto Scaling group: {}', States.ArrayLength($.group.instances), "
            "States.JsonToString($.activity.message))",
            failed,
        ),
        "QuotaExceeded": _problem(
            "VllmQuotaExceeded",
            "States.Format('The quota of the account for GPU instances is used up: request more vCPUs under Service "
            "Quotas, L-3819A6DF for Spot or L-DB2E81BA on demand. The Auto Scaling group says: {}', "
            "$.activity.message[0])",
            failed,
        ),
    }
    if calls.fallback_minutes:
        due = {
            "And": [
                {"Variable": "$.waited.checks", "NumericEquals": calls.fallback_minutes * 60 // calls.poll_seconds},
                negate(is_present("$.group.instances[0]")),
            ]
        }
        choices.append({**due, "Next": "StartOnDemand"})
        states["StartOnDemand"] = _set_on_demand(calls, partition, {"OnDemandBaseCapacity.$": "$.vllm.size"}) | {
            "Catch": catch("$.problem", failed),
            "Next": "WaitForVllm",
        }
    return states


def smoke_test(job: SmokeJob, partition: str, *, then: str, failed: str) -> dict[str, Document]:
    """Have vLLM name three topics of the first quarter before the whole run is paid for; starts at `SmokeTestWanted?`.

    If that fails, `$.problem` has the last line of the job's log, and `failed` comes next.
    """
    job_name = f"{job.name_prefix}-smoke-{{}}"
    of_first_quarter = {"Name": env.QUARTER, "Value.$": "States.Format('{}', $.quarters[0].quarter)"}
    return {
        "SmokeTestWanted?": choose("$.vllm.smoke_test", False, then, otherwise="RunSmokeTest"),
        "RunSmokeTest": {
            "Type": "Task",
            "Resource": f"arn:{partition}:states:::batch:submitJob.sync",
            "TimeoutSeconds": SMOKE_TEST_SECONDS,
            "Parameters": {
                "JobName.$": f"States.Format('{job_name}', $$.Execution.Name)",
                "JobQueue": job.job_queue,
                "JobDefinition": job.job_definition,
                "ContainerOverrides": {
                    "Command": ["python", "-m", "evaluation.smoke_job"],
                    "Environment": [{"Name": env.S3_BUCKET, "Value": job.bucket}, of_first_quarter],
                },
                "Timeout": {"AttemptDurationSeconds": SMOKE_TEST_SECONDS // 2},
            },
            "ResultPath": None,
            "Retry": [SUBMIT_JOB_RETRY],
            "Catch": catch("$.smoke_test", "SmokeTestRan?"),
            "Next": then,
        },
        # If the job failed, the cause is Batch's description of the job as JSON; for any other error, a sentence.
        "SmokeTestRan?": {
            "Type": "Choice",
            "Choices": [
                {
                    "And": [
                        is_present("$.smoke_test.Cause"),
                        {"Variable": "$.smoke_test.Cause", "StringMatches": '{*"LogStreamName"*'},
                    ],
                    "Next": "FindSmokeTestLog",
                }
            ],
            "Default": "SmokeTestHasNoLog",
        },
        "FindSmokeTestLog": {
            "Type": "Pass",
            "Parameters": {"job.$": "States.StringToJson($.smoke_test.Cause)", "Error.$": "$.smoke_test.Error"},
            "ResultPath": "$.smoke_test",
            "Next": "ReadSmokeTestLog",
        },
        "ReadSmokeTestLog": _call(
            partition,
            "cloudwatchlogs:getLogEvents",
            {
                "LogGroupName": job.log_group,
                "LogStreamName.$": "$.smoke_test.job.Container.LogStreamName",
                "StartFromHead": False,
                "Limit": 1,
            },
        )
        | {
            "ResultSelector": {"lines.$": "$.Events[*].Message"},
            "ResultPath": "$.smoke_test.log",
            "Catch": catch("$.smoke_test.log", "SmokeTestHasNoLog"),
            "Next": "SmokeTestLogged?",
        },
        "SmokeTestLogged?": {
            "Type": "Choice",
            "Choices": [{**is_present("$.smoke_test.log.lines[0]"), "Next": "SmokeTestFailed"}],
            "Default": "SmokeTestHasNoLog",
        },
        "SmokeTestFailed": _problem(
            "SmokeTestFailed",
            "States.Format('no quarter was run, because the smoke test of vLLM has failed: {}', "
            "$.smoke_test.log.lines[0])",
            failed,
        ),
        "SmokeTestHasNoLog": _problem(
            "SmokeTestFailed",
            "States.Format('no quarter was run, because the smoke test of vLLM has failed ({}), and there is no log of "
            f"it; its job in AWS Batch is {job_name}', $.smoke_test.Error, $$.Execution.Name)",
            failed,
        ),
    }


def scale_down(calls: VllmCalls, quarter_machine: str, partition: str, *, then: str) -> dict[str, Document]:
    """Scale down to the minimum, unless another execution may need vLLM; starts at `BeginScaleDown`.

    The last execution to end scales down. Step Functions lists executions with a delay, so they are listed again after
    a while. An error does not change how the execution ends: the alarm on idle GPUs then switches them off.
    """
    lists = "$.others.lists[1]"  # this execution is one of them
    last = "ResetOnDemand" if calls.fallback_minutes else then
    running = {"StatusFilter": "RUNNING"}
    states: dict[str, Document] = {
        "BeginScaleDown": {"Type": "Pass", "Result": {"searches": 0}, "ResultPath": "$.others", "Next": "FindRuns"},
        "FindRuns": _call(
            partition, "sfn:listExecutions", {"StateMachineArn": quarter_machine, "MaxResults": 1, **running}
        )
        | {
            "ResultSelector": {"names.$": "$.Executions[*].Name"},
            "ResultPath": "$.others.runs",
            "Catch": catch("$.scale_down", then),
            "Next": "FindLists",
        },
        "FindLists": _call(
            partition, "sfn:listExecutions", {"StateMachineArn.$": "$$.StateMachine.Id", "MaxResults": 2, **running}
        )
        | {
            "ResultSelector": {"names.$": "$.Executions[*].Name"},
            "ResultPath": "$.others.lists",
            "Catch": catch("$.scale_down", then),
            "Next": "CountSearch",
        },
        "CountSearch": {
            "Type": "Pass",
            "Parameters": {
                "searches.$": "States.MathAdd($.others.searches, 1)",
                "runs.$": "$.others.runs.names",
                "lists.$": "$.others.lists.names",
            },
            "ResultPath": "$.others",
            "Next": "VllmInUse?",
        },
        "VllmInUse?": {
            "Type": "Choice",
            "Choices": [
                {
                    "And": [negate(is_present("$.others.runs[0]")), negate(is_present(lists))],
                    "Next": "ScaleServiceDown",
                },
                {"Variable": "$.others.searches", "NumericGreaterThanEquals": 2, "Next": then},
            ],
            "Default": "WaitForOthers",
        },
        "WaitForOthers": {"Type": "Wait", "Seconds": 4 * calls.poll_seconds, "Next": "FindRuns"},
        # The service first, so that its tasks drain before their instances go.
        "ScaleServiceDown": _set_service(calls, partition, {"DesiredCount": calls.minimum}, attempts=8)
        | {"Catch": catch("$.scale_down", "ScaleGroupDown"), "Next": "ScaleGroupDown"},
        "ScaleGroupDown": _set_group(calls, partition, {"DesiredCapacity": calls.minimum}, attempts=8)
        | {"Catch": catch("$.scale_down", last), "Next": last},
    }
    if calls.fallback_minutes:
        # Only now: with instances, the group would replace on-demand ones by Spot.
        states["ResetOnDemand"] = _set_on_demand(calls, partition, {"OnDemandBaseCapacity": calls.on_demand}) | {
            "Catch": catch("$.scale_down", then),
            "Next": then,
        }
    return states


def read_stopped(calls: VllmCalls, partition: str, *, bracketed: str, otherwise: str) -> dict[str, Document]:
    """Find out whether an execution that was stopped had switched vLLM on; starts at `Stopped?`.

    A stopped execution cannot clean up after itself. An EventBridge rule starts another one whose input is the event's
    detail, in which `input` is the stopped execution's input as text. With `keep`, vLLM stays on only if it is healthy:
    instances that were still starting when the execution was stopped would run unused.
    """
    size = is_present("$.stopped.vllm.size")
    return {
        "Stopped?": {
            "Type": "Choice",
            "Choices": [
                {"And": [is_present("$.input"), {"Variable": "$.input", "IsString": True}], "Next": "ReadStopped"}
            ],
            "Default": otherwise,
        },
        "ReadStopped": {
            "Type": "Pass",
            "Parameters": {"stopped.$": "States.StringToJson($.input)"},
            "Next": "StoppedWithVllm?",
        },
        "StoppedWithVllm?": {
            "Type": "Choice",
            "Choices": [
                {"And": [size, is_boolean("$.stopped.vllm.keep", True)], "Next": "CheckKeptTargets"},
                {**size, "Next": bracketed},
            ],
            "Default": "NothingToScaleDown",
        },
        "CheckKeptTargets": _call(
            partition, "elasticloadbalancingv2:describeTargetHealth", {"TargetGroupArn": calls.target_group}
        )
        | {
            "ResultSelector": {"states.$": "$.TargetHealthDescriptions[*].TargetHealth.State"},
            "ResultPath": "$.targets",
            "Catch": catch("$.targets", "NothingToScaleDown"),
            "Next": "FindHealthyTarget",
        },
        "FindHealthyTarget": {
            "Type": "Pass",
            "Parameters": {"any.$": "States.ArrayContains($.targets.states, 'healthy')"},
            "ResultPath": "$.targets",
            "Next": "KeptVllmHealthy?",
        },
        "KeptVllmHealthy?": choose("$.targets.any", True, "NothingToScaleDown", otherwise=bracketed),
        "NothingToScaleDown": {"Type": "Succeed"},
    }


def kept(then: str, *, otherwise: str) -> Document:
    """Continue at `then` if vLLM stays on after the quarters: the input has `keep`, or has no `vllm` at all."""
    keep = choose("$.vllm.keep", True, then, otherwise=otherwise)
    keep["Choices"].append({**negate(is_present("$.vllm")), "Next": then})
    return keep


def _set_group(calls: VllmCalls, partition: str, size: Mapping[str, object], attempts: int) -> Document:
    arguments = {"AutoScalingGroupName": calls.group, "HonorCooldown": False, **size}
    return _call(partition, "autoscaling:setDesiredCapacity", arguments, attempts) | {"ResultPath": None}


def _set_service(calls: VllmCalls, partition: str, size: Mapping[str, object], attempts: int) -> Document:
    arguments = {"Cluster": calls.cluster, "Service": calls.service, **size}
    return _call(partition, "ecs:updateService", arguments, attempts) | {"ResultPath": None}


def _set_on_demand(calls: VllmCalls, partition: str, base: Mapping[str, object]) -> Document:
    """Update the group's instances distribution; properties that `base` does not have stay unchanged."""
    arguments = {
        "AutoScalingGroupName": calls.group,
        "MixedInstancesPolicy": {"InstancesDistribution": dict(base)},
    }
    return _call(partition, "autoscaling:updateAutoScalingGroup", arguments) | {"ResultPath": None}


def _call(partition: str, api: str, arguments: Mapping[str, object], attempts: int = 8) -> Document:
    """Call an AWS API. All calls here are idempotent, so every error is retried."""
    return {
        "Type": "Task",
        "Resource": f"arn:{partition}:states:::aws-sdk:{api}",
        "TimeoutSeconds": 60,
        "Parameters": dict(arguments),
        "Retry": [retry("States.TaskFailed", attempts=attempts)],
    }


def _problem(error: str, cause: str, then: str) -> Document:
    return {
        "Type": "Pass",
        "Parameters": {"Error": error, "Cause.$": cause},
        "ResultPath": "$.problem",
        "Next": then,
    }
