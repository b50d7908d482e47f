"""Which inputs AWS cannot change in place, and which resources it refuses to delete while others use them."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_NAMES = ("name", "namePrefix")

_FIXED: dict[str, tuple[str, ...]] = {
    "aws:appautoscaling/policy:Policy": ("name", "resourceId", "scalableDimension", "serviceNamespace"),
    "aws:appautoscaling/target:Target": ("resourceId", "scalableDimension", "serviceNamespace"),
    "aws:autoscaling/group:Group": _NAMES,
    "aws:autoscaling/policy:Policy": ("name", "autoscalingGroupName"),
    "aws:batch/computeEnvironment:ComputeEnvironment": (
        *_NAMES,
        "type",
        "computeResources.type",
        "computeResources.allocationStrategy",
    ),
    "aws:batch/jobDefinition:JobDefinition": ("name", "type"),
    "aws:batch/jobQueue:JobQueue": ("name",),
    "aws:budgets/budget:Budget": _NAMES,
    "aws:cloudwatch/dashboard:Dashboard": ("dashboardName",),
    "aws:cloudwatch/eventRule:EventRule": (*_NAMES, "eventBusName"),
    "aws:cloudwatch/eventTarget:EventTarget": ("rule", "targetId"),
    "aws:cloudwatch/logGroup:LogGroup": (*_NAMES, "logGroupClass"),
    "aws:cloudwatch/logMetricFilter:LogMetricFilter": ("name", "logGroupName"),
    "aws:cloudwatch/metricAlarm:MetricAlarm": ("name",),
    "aws:ec2/launchTemplate:LaunchTemplate": _NAMES,
    "aws:ec2/securityGroup:SecurityGroup": (*_NAMES, "description", "vpcId"),
    "aws:ecr/lifecyclePolicy:LifecyclePolicy": ("repository", "policy"),
    "aws:ecr/repository:Repository": ("name", "encryptionConfigurations"),
    "aws:ecs/capacityProvider:CapacityProvider": ("name", "autoScalingGroupProvider.autoScalingGroupArn"),
    "aws:ecs/cluster:Cluster": ("name",),
    "aws:ecs/clusterCapacityProviders:ClusterCapacityProviders": ("clusterName",),
    "aws:ecs/service:Service": ("name", "cluster", "launchType", "schedulingStrategy"),
    "aws:iam/instanceProfile:InstanceProfile": (*_NAMES, "path"),
    "aws:iam/role:Role": (*_NAMES, "path"),
    "aws:iam/rolePolicy:RolePolicy": (*_NAMES, "role"),
    "aws:kms/key:Key": ("customerMasterKeySpec", "keyUsage"),
    "aws:lambda/function:Function": ("name", "packageType"),
    "aws:lb/listener:Listener": ("loadBalancerArn",),
    "aws:lb/loadBalancer:LoadBalancer": (*_NAMES, "internal", "loadBalancerType"),
    "aws:lb/targetGroup:TargetGroup": (*_NAMES, "port", "protocol", "protocolVersion", "targetType", "vpcId"),
    "aws:s3/bucket:Bucket": ("bucket", "bucketPrefix"),
    "aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration": ("bucket",),
    "aws:s3/bucketLogging:BucketLogging": ("bucket",),
    "aws:s3/bucketPolicy:BucketPolicy": ("bucket",),
    "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock": ("bucket",),
    "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration": ("bucket",),
    "aws:s3/bucketVersioning:BucketVersioning": ("bucket",),
    "aws:sfn/stateMachine:StateMachine": (*_NAMES, "type"),
    "aws:sns/topic:Topic": _NAMES,
    "aws:sns/topicPolicy:TopicPolicy": ("arn",),
    "aws:sns/topicSubscription:TopicSubscription": ("endpoint", "protocol", "topic"),
    "aws:ssm/parameter:Parameter": ("name",),
    "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule": ("securityGroupId",),
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule": ("securityGroupId",),
}
"""Inputs whose change replaces the resource. Every change of a task definition does, so it is not listed."""

_TASK_DEFINITION = "aws:ecs/taskDefinition:TaskDefinition"

_REVISED: dict[str, tuple[str, ...]] = {
    "aws:batch/jobDefinition:JobDefinition": ("arn", "revision"),
    "aws:ec2/launchTemplate:LaunchTemplate": ("latestVersion",),
}
"""Outputs that an update changes, which are therefore unknown in its preview."""

_RULES = (
    "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule",
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule",
)
_USERS: dict[str, tuple[str, ...]] = {
    "aws:batch/computeEnvironment:ComputeEnvironment": ("aws:batch/jobQueue:JobQueue",),
    "aws:ec2/securityGroup:SecurityGroup": (
        "aws:batch/computeEnvironment:ComputeEnvironment",
        "aws:lb/loadBalancer:LoadBalancer",
        *_RULES,
    ),
    "aws:ecs/capacityProvider:CapacityProvider": (
        "aws:ecs/clusterCapacityProviders:ClusterCapacityProviders",
        "aws:ecs/service:Service",
    ),
    "aws:ecs/cluster:Cluster": ("aws:ecs/service:Service",),
    "aws:iam/role:Role": ("aws:iam/instanceProfile:InstanceProfile", "aws:iam/rolePolicy:RolePolicy"),
    "aws:lb/targetGroup:TargetGroup": ("aws:lb/listener:Listener",),
}
"""Types of resources that prevent the deletion of resources they refer to."""


class InUseError(Exception):
    """A deletion that AWS refuses because another resource uses the resource."""


@dataclass(frozen=True)
class Live:
    """An existing resource."""

    urn: str
    id: str
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]

    def __str__(self) -> str:
        return describe(self.urn)

    @property
    def stack(self) -> str:
        return self.urn.split(":")[2]

    @property
    def type(self) -> str:
        return type_of(self.urn)

    @property
    def name(self) -> str:
        return self.urn.split("::")[3]

    @property
    def handles(self) -> set[str]:
        """The texts by which other resources refer to this one."""
        return {self.id} | {str(self.outputs[key]) for key in ("arn", "name") if key in self.outputs}


def type_of(urn: str) -> str:
    return urn.split("::")[2].split("$")[-1]


def describe(urn: str) -> str:
    """`name (type)`."""
    return f"{urn.split('::')[3]} ({type_of(urn)})"


def replacing(type_: str, changed: Iterable[str]) -> list[str]:
    """Those of the changed inputs, such as `computeResources.type`, that AWS cannot change in place.

    Raises:
        LookupError: for a type that this module does not know.
    """
    changed = list(changed)
    if type_ == _TASK_DEFINITION:
        return [path for path in changed if not path.startswith(("tags", "skipDestroy", "trackLatest"))]
    if type_ not in _FIXED:
        raise LookupError(f"testing/pulumi_provider/rules.py does not know which inputs of {type_} replace it")
    return [
        path
        for path in changed
        if any(
            path == fixed or path.startswith((f"{fixed}.", f"{fixed}[")) or fixed.startswith(f"{path}.")
            for fixed in _FIXED[type_]
        )
    ]


def named_by_program(inputs: Mapping[str, Any]) -> bool:
    """Whether a replacement would have the same name, so that the provider deletes first."""
    return any(inputs.get(key) for key in ("name", "bucket", "family", "dashboardName"))


def revised(type_: str) -> tuple[str, ...]:
    """The outputs that an update of this type changes."""
    return _REVISED.get(type_, ())


def refuse_if_used(resource: Live, others: Iterable[Live]) -> None:
    """Raise InUseError if AWS would not delete `resource` because one of `others` uses it."""
    users = _USERS.get(resource.type, ())
    for other in others:
        if other.type not in users or (other.id == resource.id and other.type == resource.type):
            continue
        own_rule = other.type in _RULES and other.inputs.get("securityGroupId") == resource.id
        if not own_rule and resource.handles & set(_texts(other.inputs)):
            raise InUseError(f"{resource} is in use by {other}: AWS answers DependencyViolation or ResourceInUse")


def find_lost_agents(group: Live, live: Iterable[Live]) -> str | None:
    """Why the instances of an Auto Scaling group can no longer reach ECS, or None if they can.

    Their agents stop tasks and deregister only while their role has its policy and their security group lets HTTPS out;
    otherwise a service stays DRAINING until the deletion times out.
    """
    live = list(live)
    mentioned = set(_texts(group.inputs))
    templates = [one for one in live if one.type == "aws:ec2/launchTemplate:LaunchTemplate" and one.id in mentioned]
    if not templates:
        return f"the launch template of {group} is deleted already"
    named = set(_texts(templates[0].inputs))
    groups = {one.id for one in live if one.type == "aws:ec2/securityGroup:SecurityGroup"} & named
    egress = "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule"
    if groups and not [one for one in live if one.type == egress and one.inputs["securityGroupId"] in groups]:
        return f"no rule lets the instances of {group} out any more"
    profiles = [one for one in live if one.type == "aws:iam/instanceProfile:InstanceProfile" and one.handles & named]
    roles = {profile.inputs["role"] for profile in profiles}
    policy = "aws:iam/rolePolicy:RolePolicy"
    if roles and not [one for one in live if one.type == policy and one.inputs["role"] in roles]:
        return f"the role of the instances of {group} has lost its policy"
    return None


def group_behind(service: Live, live: Iterable[Live]) -> Live | None:
    """The Auto Scaling group on whose instances an ECS service runs."""
    live = list(live)
    mentioned = set(_texts(service.inputs))
    for provider in live:
        if provider.type == "aws:ecs/capacityProvider:CapacityProvider" and provider.handles & mentioned:
            behind = set(_texts(provider.inputs))
            groups = (one for one in live if one.type == "aws:autoscaling/group:Group" and one.handles & behind)
            return next(groups, None)
    return None


def changes(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """The paths at which two inputs differ, such as `computeResources.instanceTypes`; lists are compared as a whole."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted(old.keys() | new.keys()):
            yield from changes(old.get(key), new.get(key), f"{path}.{key}" if path else key)
    elif old != new:
        yield path


def _texts(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case Mapping():
            for item in value.values():
                yield from _texts(item)
        case list():
            for item in value:
                yield from _texts(item)
