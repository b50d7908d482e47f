"""The GPU group (Auto Scaling) and the service that runs on it (ECS)."""

from typing import Any

from local.deploy.program import Resource
from local.deploy.resources.calls import Aws, physical_name
from local.deploy.resources.registry import Created, answers, creates


@creates("aws:autoscaling/group:Group")
def auto_scaling_group(aws: Aws, resource: Resource) -> Created:
    inputs, name = resource.inputs, physical_name(resource)
    renamed = {
        "vpcZoneIdentifier": ",".join(inputs.get("vpcZoneIdentifiers") or []),
        "newInstancesProtectedFromScaleIn": inputs.get("protectFromScaleIn", False),
    }
    without = ("name", "namePrefix", "vpcZoneIdentifiers", "protectFromScaleIn", "enabledMetrics", "metricsGranularity")
    without += (
        "forceDelete",
        "forceDeleteWarmPool",
        "waitForCapacityTimeout",
        "waitForElbCapacity",
        "suspendedProcesses",
    )
    aws.call("autoscaling", "create_auto_scaling_group", inputs | renamed, without, AutoScalingGroupName=name)
    client = aws.client("autoscaling")
    if processes := inputs.get("suspendedProcesses"):
        client.suspend_processes(AutoScalingGroupName=name, ScalingProcesses=processes)
    made = client.describe_auto_scaling_groups(AutoScalingGroupNames=[name])["AutoScalingGroups"][0]
    outputs = {"name": name, "arn": made["AutoScalingGroupARN"], "desiredCapacity": made["DesiredCapacity"]}
    return name, {**outputs, "minSize": made["MinSize"], "maxSize": made["MaxSize"]}


@creates("aws:autoscaling/policy:Policy")
def scaling_policy(aws: Aws, resource: Resource) -> Created:
    name, group = physical_name(resource), resource.inputs["autoscalingGroupName"]
    aws.call(
        "autoscaling",
        "put_scaling_policy",
        resource.inputs,
        ("name", "autoscalingGroupName"),
        PolicyName=name,
        AutoScalingGroupName=group,
    )
    made = aws.client("autoscaling").describe_policies(AutoScalingGroupName=group, PolicyNames=[name])
    return name, {"name": name, "arn": made["ScalingPolicies"][0]["PolicyARN"]}


@creates("aws:appautoscaling/target:Target")
def scalable_target(aws: Aws, resource: Resource) -> Created:
    made = aws.call("application-autoscaling", "register_scalable_target", resource.inputs)
    return resource.inputs["resourceId"], {"arn": made["ScalableTargetARN"]}


@creates("aws:appautoscaling/policy:Policy")
def application_scaling_policy(aws: Aws, resource: Resource) -> Created:
    name = physical_name(resource)
    made = aws.call("application-autoscaling", "put_scaling_policy", resource.inputs, ("name",), PolicyName=name)
    return name, {"name": name, "arn": made["PolicyARN"]}


@creates("aws:ecs/cluster:Cluster")
def cluster(aws: Aws, resource: Resource) -> Created:
    name = physical_name(resource)
    made = aws.call("ecs", "create_cluster", resource.inputs, ("name",), clusterName=name)["cluster"]
    return made["clusterArn"], {"name": name, "arn": made["clusterArn"]}


@creates("aws:ecs/capacityProvider:CapacityProvider")
def capacity_provider(aws: Aws, resource: Resource) -> Created:
    name = physical_name(resource)
    made = aws.call("ecs", "create_capacity_provider", resource.inputs, ("name",), name=name)["capacityProvider"]
    return made["capacityProviderArn"], {"name": name, "arn": made["capacityProviderArn"]}


@creates("aws:ecs/clusterCapacityProviders:ClusterCapacityProviders")
def cluster_capacity_providers(aws: Aws, resource: Resource) -> Created:
    name = resource.inputs["clusterName"]
    strategies = {"defaultCapacityProviderStrategy": resource.inputs.get("defaultCapacityProviderStrategies") or []}
    without = ("clusterName", "defaultCapacityProviderStrategies")
    aws.call("ecs", "put_cluster_capacity_providers", resource.inputs | strategies, without, cluster=name)
    return name, {}


@creates("aws:ecs/taskDefinition:TaskDefinition")
def task_definition(aws: Aws, resource: Resource) -> Created:
    inputs = resource.inputs | {"volumes": [_volume(volume) for volume in resource.inputs.get("volumes") or []]}
    made = aws.call("ecs", "register_task_definition", inputs, ("skipDestroy", "trackLatest"))["taskDefinition"]
    arn, revision = made["taskDefinitionArn"], made["revision"]
    return made["family"], {"arn": arn, "revision": revision, "arnWithoutRevision": arn.removesuffix(f":{revision}")}


@creates("aws:ecs/service:Service")
def service(aws: Aws, resource: Resource) -> Created:
    name = physical_name(resource)
    inputs = dict(resource.inputs)
    inputs["deploymentConfiguration"] = {
        "maximumPercent": inputs.pop("deploymentMaximumPercent", None),
        "minimumHealthyPercent": inputs.pop("deploymentMinimumHealthyPercent", None),
        "deploymentCircuitBreaker": inputs.pop("deploymentCircuitBreaker", None),
    }
    inputs["capacityProviderStrategy"] = inputs.pop("capacityProviderStrategies", None)
    inputs["placementStrategy"] = inputs.pop("orderedPlacementStrategies", None)
    inputs["enableECSManagedTags"] = inputs.pop("enableEcsManagedTags", None)
    without = ("name", "waitForSteadyState", "forceDelete", "forceNewDeployment", "triggers")
    made = aws.call("ecs", "create_service", inputs, without, serviceName=name)["service"]
    return made["serviceArn"], {"name": name, "arn": made["serviceArn"], "cluster": made["clusterArn"]}


def _volume(volume: dict[str, Any]) -> dict[str, Any]:
    """Pulumi puts a volume's host path next to its name; ECS nests it in `host`."""
    others = {key: value for key, value in volume.items() if key not in ("hostPath", "configureAtLaunch")}
    return {**others, "host": {"sourcePath": volume["hostPath"]}} if volume.get("hostPath") else others


@answers("aws:autoscaling/getAmiIds:getAmiIds")
def list_groups(aws: Aws, args: dict[str, Any]) -> dict[str, Any]:
    """Pulumi's misleading name for the list of Auto Scaling groups."""
    found = aws.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=args.get("names") or [])
    return {"names": [group["AutoScalingGroupName"] for group in found["AutoScalingGroups"]]}


@answers("aws:autoscaling/getGroup:getGroup")
def get_group(aws: Aws, args: dict[str, Any]) -> dict[str, Any]:
    (found,) = aws.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=[args["name"]])[
        "AutoScalingGroups"
    ]
    return {
        "name": args["name"],
        "arn": found["AutoScalingGroupARN"],
        "minSize": found["MinSize"],
        "maxSize": found["MaxSize"],
        "desiredCapacity": found["DesiredCapacity"],
    }
