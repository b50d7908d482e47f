"""ECS services: tasks run on the instances of an Auto Scaling group and are registered with the load balancer.

A service runs one task per instance, up to its desired count, and follows a change of either number at once. moto
does not connect the two: it reports the desired count as running even without instances.
"""

import threading
from typing import Any

from moto.autoscaling.exceptions import ValidationError
from moto.autoscaling.models import AutoScalingBackend, FakeAutoScalingGroup
from moto.ecs.exceptions import InvalidParameterException
from moto.ecs.models import EC2ContainerServiceBackend, Service, ecs_backends
from moto.elbv2.models import ELBv2Backend, elbv2_backends

from local.emulator.patching import replace


class EcsServices:
    """Keeps the tasks of every service consistent with the instances of its group."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        replace(EC2ContainerServiceBackend, "create_service", "ecba80299ad6", self._create_service)
        replace(EC2ContainerServiceBackend, "update_service", "67910723b60a", self._after_ecs)
        replace(FakeAutoScalingGroup, "set_desired_capacity", "4a026bb5666e", self._after_scaling)
        # AWS keeps the parts of a mixed instances policy that an update does not mention; moto drops them.
        replace(FakeAutoScalingGroup, "update", "0da22806fe8c", _update_group)
        # AWS rejects a capacity outside the group's limits; moto does not.
        replace(AutoScalingBackend, "set_desired_capacity", "4f07307b13b8", _set_desired_capacity)

    def _create_service(
        self,
        original: Any,
        backend: EC2ContainerServiceBackend,
        cluster_str: str,
        service_name: str,
        *args: Any,
        **kwargs: Any,
    ) -> Service:
        """AWS refuses a name that an active service of the cluster has; moto replaces the service."""
        cluster = backend._get_cluster(cluster_str).name
        services = backend.services.values()
        if any((one.cluster_name, one.name, one.status) == (cluster, service_name, "ACTIVE") for one in services):
            raise InvalidParameterException("Creation of service was not idempotent.")
        return self._after_ecs(original, backend, cluster_str, service_name, *args, **kwargs)

    def _after_ecs(self, original: Any, backend: EC2ContainerServiceBackend, *args: Any, **kwargs: Any) -> Service:
        with self._lock:
            service: Service = original(backend, *args, **kwargs)
            self._settle(backend)
            return service

    def _after_scaling(self, original: Any, group: FakeAutoScalingGroup, capacity: int | None) -> None:
        with self._lock:
            known = [member.instance.id for member in group.instance_states]
            original(group, capacity)
            _apply_mixed_instances_policy(group, known)
            backend = group.autoscaling_backend
            self._settle(ecs_backends[backend.account_id][backend.region_name])

    def _settle(self, backend: EC2ContainerServiceBackend) -> None:
        from moto.autoscaling.models import autoscaling_backends

        groups = autoscaling_backends[backend.account_id][backend.region_name].autoscaling_groups
        balancers = elbv2_backends[backend.account_id][backend.region_name]
        for service in backend.services.values():
            instances = [
                state.instance.id
                for name in _group_names(backend, service)
                if name in groups
                for state in groups[name].active_instances()
            ]
            running = sorted(instances)[: service.desired_count] if service.status == "ACTIVE" else []
            _register_instances(backend, service.cluster_name, instances, running)
            service.running_count = len(running)
            service.pending_count = max(0, service.desired_count - len(running))
            for deployment in service.deployments:
                settled = service.pending_count == 0
                deployment.update(
                    desiredCount=service.desired_count,
                    runningCount=service.running_count,
                    pendingCount=service.pending_count,
                    rolloutState="COMPLETED" if settled else "IN_PROGRESS",
                )
            for balancer in service.load_balancers:
                _register(balancers, balancer, running)


def _apply_mixed_instances_policy(group: FakeAutoScalingGroup, known: list[str]) -> None:
    """Give instances that are not `known` a type of the group's policy; those above the on-demand base are Spot.

    moto reads neither from the policy, and leaves the type empty.
    """
    policy = group.mixed_instances_policy or {}
    overrides = policy.get("LaunchTemplate", {}).get("Overrides", [])
    base = int(policy.get("InstancesDistribution", {}).get("OnDemandBaseCapacity", 0))
    on_demand = sum(
        member.instance.lifecycle is None for member in group.instance_states if member.instance.id in known
    )
    for member in group.instance_states:
        if not overrides or member.instance.id in known:
            continue
        member.instance_type = member.instance.instance_type = overrides[0]["InstanceType"]
        member.instance.lifecycle = None if on_demand < base else "spot"
        on_demand += member.instance.lifecycle is None


def _group_names(backend: EC2ContainerServiceBackend, service: Service) -> list[str]:
    """The Auto Scaling groups behind the capacity providers of a service's cluster."""
    cluster = backend._get_cluster(service.cluster_name)
    providers = [backend._get_provider(name) for name in cluster.capacity_providers or []]
    arns = [provider.auto_scaling_group_provider["autoScalingGroupArn"] for provider in providers if provider]
    return [arn.rsplit("/", 1)[-1] for arn in arns]


def _register_instances(
    backend: EC2ContainerServiceBackend, cluster: str, instances: list[str], running: list[str]
) -> None:
    """Set a cluster's container instances to the given ones, of which those in `running` run a task."""
    known = backend.container_instances.setdefault(cluster, {})
    for key in [key for key, one in known.items() if one.ec2_instance_id not in instances]:
        del known[key]
    for instance in set(instances) - {one.ec2_instance_id for one in known.values()}:
        backend.register_container_instance(cluster, instance)
    for one in known.values():
        one.running_tasks_count = int(one.ec2_instance_id in running)
    backend.clusters[cluster].registered_container_instances_count = len(known)


def _register(balancers: ELBv2Backend, balancer: dict[str, Any], instances: list[str]) -> None:
    """Set a target group's targets to the given instances, at the container's port."""
    arn = balancer.get("targetGroupArn") or balancer.get("target_group_arn")
    group = balancers.target_groups.get(str(arn))
    if group is None:
        return
    port = balancer.get("containerPort") or balancer.get("container_port") or group.port
    gone = [target for name, target in group.targets.items() if name not in instances]
    if gone:
        group.deregister(gone)
    group.register([{"Id": instance, "Port": port} for instance in instances])


def _update_group(original: Any, group: FakeAutoScalingGroup, **changes: Any) -> None:
    before, given = group.mixed_instances_policy or {}, changes.pop("mixed_instances_policy") or {}
    if "LaunchTemplate" in given:
        original(group, **changes, mixed_instances_policy={**before, **given})
        return
    original(group, **changes, mixed_instances_policy=None)
    distribution = {**before.get("InstancesDistribution", {}), **given.get("InstancesDistribution", {})}
    group.mixed_instances_policy = {**before, "InstancesDistribution": distribution} if before else None


def _set_desired_capacity(original: Any, backend: AutoScalingBackend, group_name: str, capacity: int | None) -> None:
    group = backend.autoscaling_groups.get(group_name)
    if group is None:
        raise ValidationError(f"AutoScalingGroup name not found - {group_name}")
    if capacity is not None and capacity > int(group.max_size or 0):
        raise ValidationError(
            f"New SetDesiredCapacity value {capacity} is above max value {group.max_size} for the AutoScalingGroup."
        )
    if capacity is not None and capacity < int(group.min_size or 0):
        raise ValidationError(
            f"New SetDesiredCapacity value {capacity} is below min value {group.min_size} for the AutoScalingGroup."
        )
    original(backend, group_name, capacity)
