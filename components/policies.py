"""IAM policy documents as pure functions. No action is a wildcard; a resource is one only where AWS offers no narrower
one."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from components.account import Account
from components.vllm_states import VllmCalls

Condition = Mapping[str, Mapping[str, str | list[str]]]

NO_NARROWER_RESOURCE = {
    "batch:DescribeJobs": "Batch has no permission for describing a single job",
    "batch:ListJobs": "Batch has no permission for listing a single queue's jobs",
    "autoscaling:DescribeAutoScalingGroups": "Auto Scaling describes no single group",
    "autoscaling:DescribeScalingActivities": "as above",
    "ecr:GetAuthorizationToken": "the token belongs to the account, not to a repository",
    "ecs:DiscoverPollEndpoint": "asks ECS for an address and concerns no resource",
    "elasticloadbalancing:DescribeTargetHealth": "Elastic Load Balancing describes no single target group",
    "logs:CreateLogDelivery": "log deliveries, through which Step Functions logs, have no ARN",
    "logs:DeleteLogDelivery": "as above",
    "logs:DescribeLogGroups": "as above",
    "logs:DescribeResourcePolicies": "as above",
    "logs:GetLogDelivery": "as above",
    "logs:ListLogDeliveries": "as above",
    "logs:PutResourcePolicy": "as above",
    "logs:UpdateLogDelivery": "as above",
    "xray:GetSamplingRules": "X-Ray's traces and sampling rules have no ARN that a writer could name",
    "xray:GetSamplingTargets": "as above",
    "xray:PutTelemetryRecords": "as above",
    "xray:PutTraceSegments": "as above",
}
"""Actions that accept only the resource `*`, with the reason."""


class Statement(TypedDict, total=False):
    Effect: str
    Action: list[str]
    Resource: list[str]
    Condition: Condition


def document(*statements: Statement) -> str:
    """A policy document as JSON."""
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def allow(actions: Sequence[str], resources: Sequence[str], condition: Condition | None = None) -> Statement:
    """Allow `actions` on `resources`."""
    statement: Statement = {"Effect": "Allow", "Action": list(actions), "Resource": list(resources)}
    return {**statement, "Condition": condition} if condition else statement


def trust(service: str | list[str], account: Account | None = None) -> str:
    """Let AWS services, such as `ec2.amazonaws.com`, assume a role; with `account`, only on its behalf."""
    statement: dict[str, Any] = {"Effect": "Allow", "Principal": {"Service": service}, "Action": ["sts:AssumeRole"]}
    if account:
        statement["Condition"] = {"StringEquals": {"aws:SourceAccount": account.id}}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def use_key(kms_key_arn: str | None) -> list[Statement]:
    """Read and write data that the given KMS key encrypts. AWS-managed keys need no permission."""
    return [allow(["kms:Decrypt", "kms:GenerateDataKey"], [kms_key_arn])] if kms_key_arn else []


def tls_only(bucket_arn: str) -> str:
    """A bucket policy that denies every request without TLS."""
    return json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Sid": "TlsOnly",
                    "Effect": "Deny",
                    "Principal": "*",
                    "Action": "s3:*",
                    "Resource": [bucket_arn, f"{bucket_arn}/*"],
                    "Condition": {"Bool": {"aws:SecureTransport": "false"}},
                }
            ],
        }
    )


def container_instance(account: Account, cluster: str) -> str:
    """What the ECS agent on an instance of `cluster` calls. Batch names its clusters itself: pass `*` for them."""
    return document(
        allow(
            [
                "ecs:DeregisterContainerInstance",
                "ecs:RegisterContainerInstance",
                "ecs:SubmitAttachmentStateChanges",
                "ecs:SubmitContainerStateChange",
                "ecs:SubmitTaskStateChange",
            ],
            [account.arn("ecs", f"cluster/{cluster}")],
        ),
        allow(
            ["ecs:Poll", "ecs:StartTelemetrySession", "ecs:UpdateContainerInstancesState"],
            [account.arn("ecs", f"container-instance/{cluster}/*")],
        ),
        allow(["ecs:DiscoverPollEndpoint"], ["*"]),
    )


def task_execution(
    account: Account, log_group: str, image: str, secret_arns: Sequence[str], kms_key_arn: str | None = None
) -> str:
    """What ECS calls to start a container: write its log, pull `image` if it is in ECR, read its secrets."""
    statements = [
        allow(
            ["logs:CreateLogStream", "logs:PutLogEvents"], [account.arn("logs", f"log-group:{log_group}:log-stream:*")]
        )
    ]
    if repository := _repository_arn(account, image):
        statements += [
            allow(["ecr:GetAuthorizationToken"], ["*"]),
            allow(["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"], [repository]),
        ]
    if secret_arns:
        statements.append(allow(["secretsmanager:GetSecretValue"], secret_arns))
        if kms_key_arn:
            statements.append(allow(["kms:Decrypt"], [kms_key_arn]))
    return document(*statements)


def batch_job(bucket_arn: str, kms_key_arn: str | None) -> str:
    """What the worker does: read the prefetch and the batch manifests, keep progress records, write results."""
    readable, writable = (
        ("prefetch", "manifests", "progress", "themes"),
        ("intermediate/firm-topics", "progress", "themes"),
    )
    return document(
        allow(["s3:GetObject"], [f"{bucket_arn}/{prefix}/*" for prefix in readable]),
        allow(["s3:PutObject"], [f"{bucket_arn}/{prefix}/*" for prefix in writable]),
        # An attempt that a newer one has superseded deletes those of its parts that no record lists. A writer whose
        # response was lost recognises its own part by HEAD, which needs s3:GetObject.
        allow(["s3:DeleteObject", "s3:GetObject"], [f"{bucket_arn}/intermediate/firm-topics/*"]),
        # Without this S3 answers 403 instead of 404 for a missing key, such as a first progress record.
        allow(["s3:ListBucket"], [bucket_arn]),
        *use_key(kms_key_arn),
    )


def prefetch_check_function(bucket_arn: str, kms_key_arn: str | None) -> list[Statement]:
    """Check that a prefetch is complete."""
    return [*_read(bucket_arn, "prefetch/*"), *use_key(kms_key_arn)]


def create_batch_manifest_function(bucket_arn: str, kms_key_arn: str | None) -> list[Statement]:
    """Read the prefetch's manifest and, for a resumed run, its results; write the batch manifest."""
    return [
        *_read(bucket_arn, "prefetch/*", "manifests/*", "progress/*"),
        allow(["s3:PutObject"], [f"{bucket_arn}/manifests/*/manifest_*"]),
        *use_key(kms_key_arn),
    ]


def summarize_results_function(bucket_arn: str, kms_key_arn: str | None) -> list[Statement]:
    """Read a run's results and Batch's descriptions of its jobs; write how the run ended, and remove parts that no
    record lists."""
    return [
        *_read(bucket_arn, "manifests/*", "progress/*"),
        allow(["s3:DeleteObject"], [f"{bucket_arn}/intermediate/firm-topics/*"]),
        allow(["s3:PutObject"], [f"{bucket_arn}/manifests/*/summary_*", f"{bucket_arn}/progress/*/latest.json"]),
        allow(["batch:DescribeJobs", "batch:ListJobs"], ["*"]),
        *use_key(kms_key_arn),
    ]


def notify_completion_function(sns_topic_arn: str | None, kms_key_arn: str | None) -> list[Statement]:
    """Publish to the topic, if there is one."""
    if not sns_topic_arn:
        return []
    return [allow(["sns:Publish"], [sns_topic_arn]), *use_key(kms_key_arn)]


def notification_topic(account: Account, topic_arn: str) -> str:
    """Let alarms, budgets and event rules of the account publish to the topic, and deny every request without TLS."""
    services = ("cloudwatch.amazonaws.com", "budgets.amazonaws.com", "events.amazonaws.com")
    return json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Sid": "PublishFromThisAccount",
                    "Effect": "Allow",
                    "Principal": {"Service": list(services)},
                    "Action": "sns:Publish",
                    "Resource": topic_arn,
                    "Condition": {"StringEquals": {"aws:SourceAccount": account.id}},
                },
                {
                    "Sid": "TlsOnly",
                    "Effect": "Deny",
                    "Principal": "*",
                    "Action": "sns:Publish",
                    "Resource": topic_arn,
                    "Condition": {"Bool": {"aws:SecureTransport": "false"}},
                },
            ],
        }
    )


def notification_key(account: Account) -> str:
    """The policy of the topic's key: the account administers it; alarms, budgets, events and publishers use it."""
    use = ["kms:Decrypt", "kms:GenerateDataKey*"]
    return json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Sid": "Administer",
                    "Effect": "Allow",
                    "Principal": {"AWS": f"arn:{account.partition}:iam::{account.id}:root"},
                    "Action": "kms:*",
                    "Resource": "*",
                },
                {
                    "Sid": "PublishFromServices",
                    "Effect": "Allow",
                    # EventBridge passes no source account to KMS, so a condition on it would deny EventBridge.
                    "Principal": {
                        "Service": ["cloudwatch.amazonaws.com", "budgets.amazonaws.com", "events.amazonaws.com"]
                    },
                    "Action": use,
                    "Resource": "*",
                },
                {
                    "Sid": "PublishFromThisAccount",
                    "Effect": "Allow",
                    "Principal": {"AWS": "*"},
                    "Action": use,
                    "Resource": "*",
                    "Condition": {
                        "StringEquals": {
                            "kms:CallerAccount": account.id,
                            "kms:ViaService": f"sns.{account.region}.{account.dns_suffix}",
                        }
                    },
                },
            ],
        }
    )


def function_logs(account: Account, log_group: str) -> list[Statement]:
    """What every function calls: write its own log and its traces."""
    return [
        allow(
            ["logs:CreateLogStream", "logs:PutLogEvents"],
            [account.arn("logs", f"log-group:{log_group}:log-stream:*")],
        ),
        allow(["xray:PutTelemetryRecords", "xray:PutTraceSegments"], ["*"]),
    ]


def quarter_state_machine(
    account: Account, function_arns: Sequence[str], job_queue_arn: str, job_definition_family: str
) -> list[Statement]:
    """Call the four functions, and run the batches' jobs."""
    return [
        allow(["lambda:InvokeFunction"], function_arns),
        *run_jobs(account, job_queue_arn, job_definition_family),
        *_state_machine_logs(),
    ]


def run_jobs(account: Account, job_queue_arn: str, job_definition_family: str) -> list[Statement]:
    """Submit, follow and end jobs.

    The family covers all revisions of the job definition: with a single revision, batches that run during a deployment
    could not be tried again after it. Step Functions follows a job by an EventBridge rule, which it creates itself.
    """
    return [
        allow(["batch:SubmitJob"], [job_queue_arn, job_definition_family, f"{job_definition_family}:*"]),
        allow(["batch:TerminateJob"], [account.arn("batch", "job/*")]),
        allow(["batch:DescribeJobs"], ["*"]),
        _follow(account, "StepFunctionsGetEventsForBatchJobsRule"),
    ]


def quarters_state_machine(account: Account, quarter_machine: str) -> list[Statement]:
    """Start, follow and stop executions of the state machine named `quarter_machine`."""
    return [
        allow(["states:StartExecution"], [account.arn("states", f"stateMachine:{quarter_machine}")]),
        allow(
            ["states:DescribeExecution", "states:StopExecution"],
            [account.arn("states", f"execution:{quarter_machine}:*")],
        ),
        _follow(account, "StepFunctionsGetEventsForStepFunctionsExecutionRule"),
        *_state_machine_logs(),
    ]


def switch_vllm(account: Account, vllm: VllmCalls, machines: Sequence[str]) -> list[Statement]:
    """Switch vLLM on and off, see whether it is healthy, read the log of its smoke test, and find the executions of
    `machines` that may use it."""
    group = account.arn("autoscaling", f"autoScalingGroup:*:autoScalingGroupName/{vllm.group}")
    scale = ["autoscaling:SetDesiredCapacity"]
    if vllm.fallback_minutes:
        scale.append("autoscaling:UpdateAutoScalingGroup")
    return [
        allow(scale, [group]),
        allow(["ecs:UpdateService"], [account.arn("ecs", f"service/{vllm.cluster}/{vllm.service}")]),
        allow(
            [
                "autoscaling:DescribeAutoScalingGroups",
                "autoscaling:DescribeScalingActivities",
                "elasticloadbalancing:DescribeTargetHealth",
            ],
            ["*"],
        ),
        allow(["logs:GetLogEvents"], [account.arn("logs", f"log-group:{vllm.smoke_job.log_group}:log-stream:*")]),
        allow(["states:ListExecutions"], [account.arn("states", f"stateMachine:{name}") for name in machines]),
    ]


def start_quarters(account: Account, quarters_machine: str) -> list[Statement]:
    """Start the machine of a list of quarters, which cleans up after an execution that was stopped."""
    return [allow(["states:StartExecution"], [account.arn("states", f"stateMachine:{quarters_machine}")])]


def _read(bucket_arn: str, *keys: str) -> list[Statement]:
    return [
        allow(["s3:GetObject"], [f"{bucket_arn}/{key}" for key in keys]),
        # Without this S3 answers 403 instead of 404 for a missing key.
        allow(["s3:ListBucket"], [bucket_arn]),
    ]


def _follow(account: Account, rule: str) -> Statement:
    return allow(
        ["events:DescribeRule", "events:PutRule", "events:PutTargets"], [account.arn("events", f"rule/{rule}")]
    )


def _state_machine_logs() -> list[Statement]:
    return [
        allow(
            [
                "logs:CreateLogDelivery",
                "logs:DeleteLogDelivery",
                "logs:DescribeLogGroups",
                "logs:DescribeResourcePolicies",
                "logs:GetLogDelivery",
                "logs:ListLogDeliveries",
                "logs:PutResourcePolicy",
                "logs:UpdateLogDelivery",
                "xray:GetSamplingRules",
                "xray:GetSamplingTargets",
                "xray:PutTelemetryRecords",
                "xray:PutTraceSegments",
            ],
            ["*"],
        )
    ]


def _repository_arn(account: Account, image: str) -> str:
    """The ARN of the ECR repository that `image` is in; "" when it is another registry's."""
    match = re.match(r"(\d{12})\.dkr\.ecr\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?/([^:@]+)", image)
    return f"arn:{account.partition}:ecr:{match[2]}:{match[1]}:repository/{match[3]}" if match else ""
