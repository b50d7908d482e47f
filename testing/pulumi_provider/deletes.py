"""Deletes resources from the embedded AWS, like the provider `aws`, and refuses when AWS would."""

import json
from collections.abc import Callable, Iterable
from contextlib import suppress

from botocore.exceptions import ClientError

from local.deploy.resources.calls import Aws
from testing.pulumi_provider import rules
from testing.pulumi_provider.rules import Live


class RefusedError(Exception):
    """AWS would refuse the deletion, or not complete it in time."""


def delete(aws: Aws, resource: Live, live: Iterable[Live]) -> None:
    """Delete `resource`, one of the resources in `live`.

    Raises:
        LookupError: for a type that this module does not know.
        ClientError, RefusedError: when AWS refuses.
    """
    if resource.type in _ON_INSTANCES:
        _refuse_without_agents(aws, resource, list(live))
    if special := _SPECIAL.get(resource.type):
        special(aws, resource)
        return
    if resource.type not in _CALLS:
        raise LookupError(f"testing/pulumi_provider/deletes.py does not know how to delete {resource.type}")
    service, method, parameter, key = _CALLS[resource.type]
    value = resource.id if key == "id" else resource.outputs.get(key) or resource.inputs[key]
    getattr(aws.client(service), method)(**{parameter: [value] if parameter.endswith("Names") else value})


_GROUP = "aws:autoscaling/group:Group"
_ON_INSTANCES = (_GROUP, "aws:ecs/service:Service")
_CALLS: dict[str, tuple[str, str, str, str]] = {
    "aws:batch/jobDefinition:JobDefinition": ("batch", "deregister_job_definition", "jobDefinition", "arn"),
    "aws:cloudwatch/dashboard:Dashboard": ("cloudwatch", "delete_dashboards", "DashboardNames", "id"),
    "aws:cloudwatch/eventRule:EventRule": ("events", "delete_rule", "Name", "id"),
    "aws:cloudwatch/logGroup:LogGroup": ("logs", "delete_log_group", "logGroupName", "name"),
    "aws:cloudwatch/metricAlarm:MetricAlarm": ("cloudwatch", "delete_alarms", "AlarmNames", "name"),
    "aws:ec2/launchTemplate:LaunchTemplate": ("ec2", "delete_launch_template", "LaunchTemplateId", "id"),
    "aws:ec2/securityGroup:SecurityGroup": ("ec2", "delete_security_group", "GroupId", "id"),
    "aws:ecr/lifecyclePolicy:LifecyclePolicy": ("ecr", "delete_lifecycle_policy", "repositoryName", "id"),
    "aws:ecs/capacityProvider:CapacityProvider": ("ecs", "delete_capacity_provider", "capacityProvider", "name"),
    "aws:ecs/cluster:Cluster": ("ecs", "delete_cluster", "cluster", "name"),
    "aws:ecs/taskDefinition:TaskDefinition": ("ecs", "deregister_task_definition", "taskDefinition", "arn"),
    "aws:iam/role:Role": ("iam", "delete_role", "RoleName", "id"),
    "aws:kms/key:Key": ("kms", "schedule_key_deletion", "KeyId", "id"),
    "aws:lambda/function:Function": ("lambda", "delete_function", "FunctionName", "id"),
    "aws:lb/listener:Listener": ("elbv2", "delete_listener", "ListenerArn", "id"),
    "aws:lb/targetGroup:TargetGroup": ("elbv2", "delete_target_group", "TargetGroupArn", "id"),
    "aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration": (
        "s3",
        "delete_bucket_lifecycle",
        "Bucket",
        "id",
    ),
    "aws:s3/bucketPolicy:BucketPolicy": ("s3", "delete_bucket_policy", "Bucket", "id"),
    "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock": ("s3", "delete_public_access_block", "Bucket", "id"),
    "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration": (
        "s3",
        "delete_bucket_encryption",
        "Bucket",
        "id",
    ),
    "aws:sfn/stateMachine:StateMachine": ("stepfunctions", "delete_state_machine", "stateMachineArn", "id"),
    "aws:sns/topic:Topic": ("sns", "delete_topic", "TopicArn", "id"),
    "aws:sns/topicSubscription:TopicSubscription": ("sns", "unsubscribe", "SubscriptionArn", "id"),
    "aws:ssm/parameter:Parameter": ("ssm", "delete_parameter", "Name", "name"),
}
"""Service, method, and the parameter for the id or the named output."""


def _refuse_without_agents(aws: Aws, resource: Live, live: list[Live]) -> None:
    """A service or a group with running instances can be deleted only while their agents reach ECS."""
    group = resource if resource.type == _GROUP else rules.group_behind(resource, live)
    if group is None:
        raise RefusedError("its capacity provider is deleted already: the service stays DRAINING")
    found = aws.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=[group.id])
    running = [one for known in found["AutoScalingGroups"] for one in known["Instances"]]
    if running and (reason := rules.find_lost_agents(group, live)):
        raise RefusedError(f"timeout while waiting for it to end: {reason}")


def _delete_bucket(aws: Aws, resource: Live) -> None:
    aws.client("s3").delete_bucket(Bucket=resource.id)


def _suspend_versioning(aws: Aws, resource: Live) -> None:
    aws.client("s3").put_bucket_versioning(Bucket=resource.id, VersioningConfiguration={"Status": "Suspended"})


def _stop_logging(aws: Aws, resource: Live) -> None:
    aws.client("s3").put_bucket_logging(Bucket=resource.id, BucketLoggingStatus={})


def _delete_repository(aws: Aws, resource: Live) -> None:
    force = bool(resource.inputs.get("forceDelete"))
    aws.client("ecr").delete_repository(repositoryName=resource.id, force=force)


def _delete_role_policy(aws: Aws, resource: Live) -> None:
    role, name = resource.id.split(":")
    aws.client("iam").delete_role_policy(RoleName=role, PolicyName=name)


def _delete_instance_profile(aws: Aws, resource: Live) -> None:
    role, iam = resource.inputs["role"], aws.client("iam")
    iam.remove_role_from_instance_profile(InstanceProfileName=resource.id, RoleName=role)
    iam.delete_instance_profile(InstanceProfileName=resource.id)


def _revoke_ingress(aws: Aws, resource: Live) -> None:
    group = resource.inputs["securityGroupId"]
    aws.client("ec2").revoke_security_group_ingress(GroupId=group, SecurityGroupRuleIds=[resource.id])


def _revoke_egress(aws: Aws, resource: Live) -> None:
    group = resource.inputs["securityGroupId"]
    aws.client("ec2").revoke_security_group_egress(GroupId=group, SecurityGroupRuleIds=[resource.id])


def _delete_group(aws: Aws, resource: Live) -> None:
    aws.client("autoscaling").update_auto_scaling_group(AutoScalingGroupName=resource.id, MinSize=0)
    aws.client("autoscaling").delete_auto_scaling_group(AutoScalingGroupName=resource.id, ForceDelete=True)


def _delete_scaling_policy(aws: Aws, resource: Live) -> None:
    group = resource.inputs["autoscalingGroupName"]
    aws.client("autoscaling").delete_policy(AutoScalingGroupName=group, PolicyName=resource.id)


def _delete_application_scaling_policy(aws: Aws, resource: Live) -> None:
    keys = ("serviceNamespace", "scalableDimension", "resourceId")
    which = {key[0].upper() + key[1:]: resource.inputs[key] for key in keys}
    aws.client("application-autoscaling").delete_scaling_policy(PolicyName=resource.outputs["name"], **which)


def _deregister_target(aws: Aws, resource: Live) -> None:
    keys = ("serviceNamespace", "scalableDimension", "resourceId")
    which = {key[0].upper() + key[1:]: resource.inputs[key] for key in keys}
    aws.client("application-autoscaling").deregister_scalable_target(**which)


def _remove_event_target(aws: Aws, resource: Live) -> None:
    aws.client("events").remove_targets(Rule=resource.inputs["rule"], Ids=[resource.outputs["targetId"]])


def _release_capacity_providers(aws: Aws, resource: Live) -> None:
    aws.client("ecs").put_cluster_capacity_providers(
        cluster=resource.id, capacityProviders=[], defaultCapacityProviderStrategy=[]
    )


def _delete_service(aws: Aws, resource: Live) -> None:
    """Scale the group to zero, then delete it, as the provider does."""
    cluster, ecs = resource.inputs["cluster"], aws.client("ecs")
    ecs.update_service(cluster=cluster, service=resource.outputs["name"], desiredCount=0)
    ecs.delete_service(cluster=cluster, service=resource.outputs["name"])


def _delete_load_balancer(aws: Aws, resource: Live) -> None:
    """AWS refuses it while deletion protection is on; the embedded one does not."""
    if resource.inputs.get("enableDeletionProtection"):
        raise RefusedError("OperationNotPermitted: deletion protection is on")
    aws.client("elbv2").delete_load_balancer(LoadBalancerArn=resource.id)


def _delete_queue(aws: Aws, resource: Live) -> None:
    """Delete the queue, which terminates its jobs."""
    batch = aws.client("batch")
    batch.update_job_queue(jobQueue=resource.id, state="DISABLED")
    for status in ("SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING"):
        for job in batch.list_jobs(jobQueue=resource.id, jobStatus=status)["jobSummaryList"]:
            batch.terminate_job(jobId=job["jobId"], reason="the queue is deleted")
    batch.delete_job_queue(jobQueue=resource.id)


def _delete_compute_environment(aws: Aws, resource: Live) -> None:
    batch = aws.client("batch")
    batch.update_compute_environment(computeEnvironment=resource.id, state="DISABLED")
    batch.delete_compute_environment(computeEnvironment=resource.id)


def _delete_metric_filter(aws: Aws, resource: Live) -> None:
    group = resource.inputs["logGroupName"]
    aws.client("logs").delete_metric_filter(logGroupName=group, filterName=resource.id)


def _delete_budget(aws: Aws, resource: Live) -> None:
    account, name = resource.id.split(":")
    aws.client("budgets").delete_budget(AccountId=account, BudgetName=name)


def _delete_topic_policy(aws: Aws, resource: Live) -> None:
    with suppress(ClientError):  # the topic may have been deleted
        # SNS has no call that removes a policy; the provider writes an empty one.
        empty = json.dumps({"Version": "2012-10-17", "Statement": []})
        aws.client("sns").set_topic_attributes(TopicArn=resource.id, AttributeName="Policy", AttributeValue=empty)


_SPECIAL: dict[str, Callable[[Aws, Live], None]] = {
    "aws:appautoscaling/policy:Policy": _delete_application_scaling_policy,
    "aws:appautoscaling/target:Target": _deregister_target,
    "aws:cloudwatch/eventTarget:EventTarget": _remove_event_target,
    "aws:autoscaling/group:Group": _delete_group,
    "aws:autoscaling/policy:Policy": _delete_scaling_policy,
    "aws:batch/computeEnvironment:ComputeEnvironment": _delete_compute_environment,
    "aws:batch/jobQueue:JobQueue": _delete_queue,
    "aws:budgets/budget:Budget": _delete_budget,
    "aws:cloudwatch/logMetricFilter:LogMetricFilter": _delete_metric_filter,
    "aws:ecr/repository:Repository": _delete_repository,
    "aws:ecs/clusterCapacityProviders:ClusterCapacityProviders": _release_capacity_providers,
    "aws:ecs/service:Service": _delete_service,
    "aws:iam/instanceProfile:InstanceProfile": _delete_instance_profile,
    "aws:iam/rolePolicy:RolePolicy": _delete_role_policy,
    "aws:lb/loadBalancer:LoadBalancer": _delete_load_balancer,
    "aws:s3/bucket:Bucket": _delete_bucket,
    "aws:s3/bucketLogging:BucketLogging": _stop_logging,
    "aws:s3/bucketVersioning:BucketVersioning": _suspend_versioning,
    "aws:sns/topicPolicy:TopicPolicy": _delete_topic_policy,
    "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule": _revoke_egress,
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule": _revoke_ingress,
}
