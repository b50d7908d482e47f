"""Changes resources in the embedded AWS in place, as the provider `aws` does."""

from collections.abc import Callable
from typing import Any

from local.deploy.program import Resource
from local.deploy.resources import EmbeddedCloud
from local.deploy.resources.calls import Aws
from local.deploy.resources.network import launch_template_data
from testing.pulumi_provider.rules import Live


def update(aws: Aws, cloud: EmbeddedCloud, resource: Live) -> dict[str, Any]:
    """Apply the inputs of `resource` to the deployed resource.

    Returns:
        The outputs that change. No call is made for types of which the embedded AWS stores none of the changeable
        inputs, such as compute environments.
    """
    if resource.type in _WRITTEN_AGAIN:
        again = Resource(resource.type, resource.name, dict(resource.inputs), True, "", [], False, False, [])
        return cloud.create(again)[1]
    if change := _CHANGES.get(resource.type):
        return change(aws, resource) or {}
    return {}


_WRITTEN_AGAIN = {
    "aws:batch/jobDefinition:JobDefinition",
    "aws:cloudwatch/dashboard:Dashboard",
    "aws:cloudwatch/eventRule:EventRule",
    "aws:cloudwatch/eventTarget:EventTarget",
    "aws:cloudwatch/metricAlarm:MetricAlarm",
    "aws:iam/rolePolicy:RolePolicy",
    "aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration",
    "aws:s3/bucketPolicy:BucketPolicy",
    "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration",
}
"""Types that AWS creates and changes with the same call, or of which a change is a new revision."""


def _change_group(aws: Aws, resource: Live) -> None:
    inputs = resource.inputs
    aws.client("autoscaling").update_auto_scaling_group(
        AutoScalingGroupName=resource.id,
        MinSize=inputs["minSize"],
        MaxSize=inputs["maxSize"],
        VPCZoneIdentifier=",".join(inputs["vpcZoneIdentifiers"]),
    )


def _change_log_group(aws: Aws, resource: Live) -> None:
    aws.client("logs").put_retention_policy(
        logGroupName=resource.id, retentionInDays=resource.inputs["retentionInDays"]
    )


def _add_template_version(aws: Aws, resource: Live) -> dict[str, Any]:
    made = aws.client("ec2").create_launch_template_version(
        LaunchTemplateId=resource.id, LaunchTemplateData=launch_template_data(aws, resource.inputs)
    )["LaunchTemplateVersion"]
    return {"latestVersion": made["VersionNumber"]}


def _change_service(aws: Aws, resource: Live) -> None:
    inputs = resource.inputs
    aws.client("ecs").update_service(
        cluster=inputs["cluster"], service=inputs["name"], taskDefinition=inputs["taskDefinition"]
    )


def _change_function(aws: Aws, resource: Live) -> None:
    inputs = resource.inputs
    aws.client("lambda").update_function_configuration(
        FunctionName=resource.id,
        Role=inputs["role"],
        Timeout=inputs["timeout"],
        MemorySize=inputs["memorySize"],
        Environment={"Variables": (inputs.get("environment") or {}).get("variables", {})},
    )


def _change_state_machine(aws: Aws, resource: Live) -> None:
    inputs = resource.inputs
    aws.client("stepfunctions").update_state_machine(
        stateMachineArn=resource.id, definition=inputs["definition"], roleArn=inputs["roleArn"]
    )


def _change_parameter(aws: Aws, resource: Live) -> None:
    inputs = resource.inputs
    aws.client("ssm").put_parameter(Name=inputs["name"], Value=inputs["value"], Type=inputs["type"], Overwrite=True)


_CHANGES: dict[str, Callable[[Aws, Live], dict[str, Any] | None]] = {
    "aws:autoscaling/group:Group": _change_group,
    "aws:cloudwatch/logGroup:LogGroup": _change_log_group,
    "aws:ec2/launchTemplate:LaunchTemplate": _add_template_version,
    "aws:ecs/service:Service": _change_service,
    "aws:lambda/function:Function": _change_function,
    "aws:sfn/stateMachine:StateMachine": _change_state_machine,
    "aws:ssm/parameter:Parameter": _change_parameter,
}
