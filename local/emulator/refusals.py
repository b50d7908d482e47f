"""Rejects requests that AWS rejects and moto accepts: invalid descriptions, taken names, deletion of what is in use."""

import re
from collections.abc import Iterable
from typing import Any

from moto.autoscaling.exceptions import AutoscalingClientError
from moto.autoscaling.models import AutoScalingBackend
from moto.autoscaling.responses import AutoScalingResponse
from moto.batch.exceptions import ClientException
from moto.batch.models import BatchBackend
from moto.core.exceptions import AWSError
from moto.ec2.exceptions import DependencyViolationError, InvalidParameterValueError
from moto.ec2.models.security_groups import SecurityGroup, SecurityGroupBackend
from moto.ecs.exceptions import EcsClientException, ECSException
from moto.ecs.models import EC2ContainerServiceBackend
from moto.elbv2.exceptions import DuplicateListenerError, DuplicateLoadBalancerName, ValidationError
from moto.elbv2.models import ELBv2Backend, elbv2_backends
from moto.stepfunctions.parser.models import StepFunctionsParserBackend

from local.emulator.patching import replace

_DESCRIPTION = re.compile(r"[a-zA-Z0-9. _\-:/()#,@\[\]+=&;{}!$*]{0,255}")
"""What EC2 accepts as the description of a security group or a rule."""

_MAX_BALANCER_NAME = 32


class _StateMachineAlreadyExistsError(AWSError):
    TYPE = "StateMachineAlreadyExists"
    STATUS = 400


def refuse_as_aws_does() -> None:
    """Replace the methods of moto that accept too much."""
    replace(SecurityGroupBackend, "create_security_group", "e2bd7d8f5c24", _create_security_group)
    replace(SecurityGroupBackend, "authorize_security_group_ingress", "0c3e32a6bb16", _authorize)
    replace(SecurityGroupBackend, "authorize_security_group_egress", "2690aca94880", _authorize)
    replace(SecurityGroupBackend, "delete_security_group", "69b57f1f47c2", _delete_security_group)
    replace(AutoScalingBackend, "create_auto_scaling_group", "6134d039b543", _create_auto_scaling_group)
    replace(AutoScalingResponse, "delete_auto_scaling_group", "073cd426ddc7", _delete_auto_scaling_group)
    replace(ELBv2Backend, "create_load_balancer", "dd53c4e98de0", _create_load_balancer)
    replace(ELBv2Backend, "create_listener", "51a390befda9", _create_listener)
    replace(EC2ContainerServiceBackend, "delete_cluster", "35243f75596d", _delete_cluster)
    replace(EC2ContainerServiceBackend, "create_capacity_provider", "c46c752eb66a", _create_capacity_provider)
    replace(EC2ContainerServiceBackend, "delete_capacity_provider", "fd63be87e21d", _delete_capacity_provider)
    replace(BatchBackend, "delete_compute_environment", "d2af36f974a9", _delete_compute_environment)
    replace(BatchBackend, "delete_job_queue", "e0908abd7d90", _delete_job_queue)
    replace(StepFunctionsParserBackend, "create_state_machine", "dc56ec54216f", _create_state_machine)


def _create_security_group(
    original: Any, backend: SecurityGroupBackend, name: str, description: str, *args: Any, **kwargs: Any
) -> Any:
    _check_descriptions([description])
    return original(backend, name, description, *args, **kwargs)


def _authorize(original: Any, backend: SecurityGroupBackend, *args: Any, **kwargs: Any) -> Any:
    parts = [part for value in (*args, *kwargs.values()) if isinstance(value, list) for part in value]
    _check_descriptions(part.get("Description") or "" for part in parts if isinstance(part, dict))
    return original(backend, *args, **kwargs)


def _check_descriptions(descriptions: Iterable[str]) -> None:
    for description in descriptions:
        if not _DESCRIPTION.fullmatch(description):
            raise InvalidParameterValueError(
                f"({description}) for the description: at most 255 of the characters a-zA-Z0-9. _-:/()#,@[]+=&;{{}}!$*"
            )


def _delete_security_group(
    original: Any, backend: SecurityGroupBackend, name: str | None = None, group_id: str | None = None
) -> None:
    others = [group for groups in backend.groups.values() for group in groups.values() if group.id != group_id]
    balancers = elbv2_backends[backend.account_id][backend.region_name].load_balancers.values()  # type: ignore[attr-defined]
    if any(_refers_to(group, group_id) for group in others) or any(
        group_id in (balancer.security_groups or []) for balancer in balancers
    ):
        raise DependencyViolationError(f"resource {group_id} has a dependent object")
    original(backend, name, group_id)


def _refers_to(group: SecurityGroup, group_id: str | None) -> bool:
    rules = [*group.ingress_rules, *group.egress_rules]
    return any(rule.source_group.get("GroupId") == group_id for rule in rules)


def _create_auto_scaling_group(original: Any, backend: AutoScalingBackend, name: str, *args: Any, **kwargs: Any) -> Any:
    if name in backend.autoscaling_groups:
        raise AutoscalingClientError("AlreadyExists", f"AutoScalingGroup by this name already exists: {name}")
    return original(backend, name, *args, **kwargs)


def _delete_auto_scaling_group(original: Any, response: AutoScalingResponse) -> Any:
    group = response.autoscaling_backend.autoscaling_groups.get(response._get_param("AutoScalingGroupName"))
    if group and group.instance_states and not response._get_bool_param("ForceDelete"):
        raise AutoscalingClientError(
            "ResourceInUse", "You cannot delete an AutoScalingGroup while there are instances still in the group."
        )
    return original(response)


def _create_load_balancer(original: Any, backend: ELBv2Backend, name: str, *args: Any, **kwargs: Any) -> Any:
    if len(name) > _MAX_BALANCER_NAME:
        raise ValidationError(
            f"The load balancer name '{name}' cannot be longer than '{_MAX_BALANCER_NAME}' characters"
        )
    if any(balancer.name == name for balancer in backend.load_balancers.values()):
        raise DuplicateLoadBalancerName
    return original(backend, name, *args, **kwargs)


def _create_listener(
    original: Any, backend: ELBv2Backend, load_balancer_arn: str, protocol: str, port: str, *args: Any, **kwargs: Any
) -> Any:
    balancer = backend.load_balancers.get(load_balancer_arn)
    if balancer and any(str(listener.port) == str(port) for listener in balancer.listeners.values()):
        raise DuplicateListenerError
    return original(backend, load_balancer_arn, protocol, port, *args, **kwargs)


def _delete_cluster(original: Any, backend: EC2ContainerServiceBackend, cluster_str: str) -> Any:
    name = backend._get_cluster(cluster_str).name
    if any(service.cluster_name == name and service.status == "ACTIVE" for service in backend.services.values()):
        raise ECSException(
            "ClusterContainsServicesException", "The Cluster cannot be deleted while Services are active."
        )
    return original(backend, cluster_str)


def _create_capacity_provider(
    original: Any, backend: EC2ContainerServiceBackend, name: str, *args: Any, **kwargs: Any
) -> Any:
    if name in backend.capacity_providers:
        raise EcsClientException("The specified capacity provider already exists.")
    return original(backend, name, *args, **kwargs)


def _delete_capacity_provider(original: Any, backend: EC2ContainerServiceBackend, name_or_arn: str) -> Any:
    provider = backend._get_provider(name_or_arn)
    clusters = [cluster for cluster in backend.clusters.values() if cluster.status == "ACTIVE"]
    if provider and any(provider.name in (cluster.capacity_providers or []) for cluster in clusters):
        raise ECSException(
            "ResourceInUseException", "The capacity provider cannot be deleted because it is associated with a cluster."
        )
    return original(backend, name_or_arn)


def _delete_compute_environment(original: Any, backend: BatchBackend, compute_environment_name: str) -> None:
    environment = backend.get_compute_environment(compute_environment_name)
    if environment and environment.state == "ENABLED":
        raise ClientException("Cannot delete, resource must be disabled first")
    if environment and any(environment in queue.environments for queue in backend._job_queues.values()):
        raise ClientException("Cannot delete, found existing JobQueue relationship")
    original(backend, compute_environment_name)


def _delete_job_queue(original: Any, backend: BatchBackend, queue_name: str) -> None:
    queue = backend.get_job_queue(queue_name)
    if queue and queue.state == "ENABLED":
        raise ClientException("Cannot delete, resource must be disabled first")
    original(backend, queue_name)


def _create_state_machine(
    original: Any, backend: StepFunctionsParserBackend, name: str, definition: str, *args: Any, **kwargs: Any
) -> Any:
    """Creating the same state machine twice is allowed."""
    if any(machine.name == name and machine.definition != definition for machine in backend.state_machines):
        raise _StateMachineAlreadyExistsError(f"State Machine Already Exists: {name}")
    return original(backend, name, definition, *args, **kwargs)
