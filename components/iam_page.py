"""Generates docs/iam.md: the policy of each role that can be adopted.

`python -m components.iam_page > docs/iam.md` writes it again.
"""

import json
from collections.abc import Iterator

from components import policies
from components.account import Account
from components.vllm_states import SmokeJob, VllmCalls

_ACCOUNT = Account("123456789012", "us-east-1", "aws", "amazonaws.com", "", [])
_BUCKET = _ACCOUNT.bucket_arn("BUCKET")
_TOPIC = _ACCOUNT.arn("sns", "TOPIC")

INTRODUCTION = """\
# Roles and their policies

Pulumi creates a role for each part of the stack. In an account that forbids that, an administrator creates the roles
below, and their ARNs are given in the stack's config. With all of them given, the program makes no IAM call.

Replace the account, the region, BUCKET, TOPIC, SECRET and the prefix `ftm` (`ftm-<stack>` for a stack other than prod).
A statement on a secret, a topic or an image repository is needed only with the setting that uses it. With
`ftm:kmsKeyArn`, add `kms:Decrypt` and `kms:GenerateDataKey` on the key to every role that reads or writes the bucket or
publishes to the topic.

Whoever runs `pulumi up` needs the right to manage the stack's resources, `iam:PassRole` on these roles,
`states:ListExecutions` to be warned of a run in progress, and `iam:CreateServiceLinkedRole` when the account uses ECS,
Batch, Auto Scaling, Application Auto Scaling, Elastic Load Balancing or EC2 Spot for the first time.

Whoever uses `ftm` needs the actions below on the stack's resources. Without those of the last row, the commands still
work and print what they could not find out.

| service | actions |
|---|---|
| S3 | `s3:ListBucket`, `s3:GetObject`, `s3:PutObject`, `s3:DeleteObject` |
| Systems Manager | `ssm:GetParameter` |
| Step Functions | `states:DescribeStateMachine`, `states:ListExecutions`, `states:DescribeExecution`, \
`states:GetExecutionHistory`, `states:StartExecution`, `states:StopExecution` |
| Batch | `batch:DescribeJobQueues`, `batch:DescribeComputeEnvironments`, `batch:DescribeJobDefinitions`, \
`batch:ListJobs`, `batch:DescribeJobs`, `batch:SubmitJob` |
| CloudWatch Logs | `logs:GetLogEvents`, `logs:FilterLogEvents` |
| Auto Scaling | `autoscaling:DescribeAutoScalingGroups`, `autoscaling:DescribeScalingActivities`, \
`autoscaling:SetDesiredCapacity`, `autoscaling:TerminateInstanceInAutoScalingGroup` |
| ECS | `ecs:DescribeServices`, `ecs:UpdateService`, `ecs:DescribeTaskDefinition`, `ecs:ListTasks`, \
`ecs:DescribeTasks`, `ecs:ListContainerInstances`, `ecs:DescribeContainerInstances` |
| Elastic Load Balancing | `elasticloadbalancing:DescribeTargetHealth` |
| for more information | `ec2:DescribeInstances`, `ec2:DescribeSpotPriceHistory`, \
`cloudwatch:GetMetricStatistics`, `cloudwatch:DescribeAlarms`, `ecr:DescribeImages`, `servicequotas:GetServiceQuota` |

This page is generated: `python -m components.iam_page > docs/iam.md`.
"""


def document() -> str:
    """The text of docs/iam.md."""
    return "\n".join([INTRODUCTION, *_roles()])


def _roles() -> Iterator[str]:
    own = policies.trust("ecs-tasks.amazonaws.com", _ACCOUNT)
    image = f"{_ACCOUNT.id}.dkr.ecr.{_ACCOUNT.region}.amazonaws.com/ftm-worker"
    secret = _ACCOUNT.arn("secretsmanager", "secret:SECRET")
    instance = policies.trust("ec2.amazonaws.com")
    # EventBridge starts the machine that cleans up after an execution that was stopped.
    states = policies.trust(["events.amazonaws.com", "states.amazonaws.com"], _ACCOUNT)
    yield from _role("vllmInstanceProfileArn", instance, policies.container_instance(_ACCOUNT, "ftm-vllm-cluster"))
    yield from _role(
        "vllmExecutionRoleArn", own, policies.task_execution(_ACCOUNT, "/ecs/ftm-vllm", "vllm/vllm-openai", [secret])
    )
    yield from _role("batchInstanceProfileArn", instance, policies.container_instance(_ACCOUNT, "*"))
    yield from _role("batchExecutionRoleArn", own, policies.task_execution(_ACCOUNT, "/aws/batch/ftm", image, [secret]))
    yield from _role("batchJobRoleArn", own, policies.batch_job(_BUCKET, None))
    yield from _role("functionsRoleArn", policies.trust("lambda.amazonaws.com"), policies.document(*_functions()))
    yield from _role("stateMachineRoleArn", states, policies.document(*_state_machines()))


def _functions() -> Iterator[policies.Statement]:
    """One role serves all four functions."""
    yield from policies.function_logs(_ACCOUNT, "/aws/lambda/ftm-*")
    yield from policies.prefetch_check_function(_BUCKET, None)
    yield from policies.create_batch_manifest_function(_BUCKET, None)
    yield from policies.summarize_results_function(_BUCKET, None)
    yield from policies.notify_completion_function(_TOPIC, None)


def _state_machines() -> Iterator[policies.Statement]:
    """One role serves both state machines."""
    names = ("prefetch-check", "create-batch-manifest", "summarize-results", "notify-completion")
    functions = [_ACCOUNT.arn("lambda", f"function:ftm-{name}") for name in names]
    queue, family = _ACCOUNT.arn("batch", "job-queue/ftm-batch"), _ACCOUNT.arn("batch", "job-definition/ftm-worker")
    yield from policies.quarter_state_machine(_ACCOUNT, functions, queue, family)
    yield from policies.quarters_state_machine(_ACCOUNT, "ftm-quarter-processor")
    smoke_job = SmokeJob(queue, "", "/aws/batch/ftm", "", "")
    vllm = VllmCalls("ftm-vllm-asg", "ftm-vllm-cluster", "ftm-vllm-service", "", smoke_job, fallback_minutes=1)
    yield from policies.switch_vllm(_ACCOUNT, vllm, ["ftm-quarter-processor", "ftm-quarters"])
    yield from policies.start_quarters(_ACCOUNT, "ftm-quarters")


def _role(key: str, trust: str, policy: str) -> Iterator[str]:
    yield f"## `ftm:{key}`"
    yield ""
    for title, text in (("Trust policy", trust), ("Permissions", policy)):
        yield f"{title}:"
        yield ""
        yield "```json"
        yield json.dumps(json.loads(text), indent=2)
        yield "```"
        yield ""


if __name__ == "__main__":
    print(document(), end="")
