"""The stack's vLLM: its state, and scaling it by hand."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cli.errors import CliError, ConflictError, NotFoundError, UsageError
from cli.stack import Stack

if TYPE_CHECKING:
    from mypy_boto3_autoscaling.type_defs import AutoScalingGroupTypeDef, InstanceTypeDef
    from mypy_boto3_ecs.type_defs import ContainerInstanceTypeDef, ServiceTypeDef

COLD_START_SECONDS = 45 * 60
"""How long to wait for a GPU: Spot capacity, 4 to 6 minutes for the image, 16 GB of weights, compilation, reserve."""

_DRAIN_SECONDS = 5 * 60
"""A stopping task has 45 s to finish its requests and 65 s to shut down."""


@dataclass(frozen=True)
class Vllm:
    """Desired and running instances, tasks and targets. One instance holds one task, which is one target."""

    desired: int
    """Instances that the Auto Scaling group should have."""
    minimum: int
    maximum: int
    instances: int
    desired_tasks: int
    running: int
    """Tasks that run, with a model loaded or still loading."""
    healthy: int
    """Targets that the load balancer sends requests to."""
    base_url: str
    model: str
    """The model that the deployed task definition serves, by its name in requests."""
    revision: str
    """The task definition that is deployed, such as `ftm-vllm:7`."""
    rollout: str
    """The state of its deployment: COMPLETED, IN_PROGRESS or FAILED, with ECS's reason unless it is completed."""

    @property
    def settled(self) -> bool:
        """Whether exactly the requested instances and tasks run."""
        wanted = self.desired
        if wanted == 0:
            return self.running == self.instances == 0
        return self.desired_tasks == wanted and self.healthy >= wanted


def is_part_of(stack: Stack) -> bool:
    return bool(stack.outputs.get("vllm_asg_name"))


def check_part_of(stack: Stack) -> None:
    """Raises:
    NotFoundError: when the stack has no vLLM.
    """
    if not is_part_of(stack):
        raise NotFoundError(f"the stack {stack.name} has no vLLM: its jobs use a hosted API")


def status(stack: Stack) -> Vllm:
    """The current state of the stack's vLLM.

    Raises:
        NotFoundError: when the stack has no vLLM.
    """
    found, service = group(stack), _service(stack)
    targets = stack.elbv2.describe_target_health(TargetGroupArn=stack.output("vllm_target_group_arn"))
    states = [target.get("TargetHealth", {}).get("State") for target in targets["TargetHealthDescriptions"]]
    return Vllm(
        desired=found["DesiredCapacity"],
        minimum=found["MinSize"],
        maximum=found["MaxSize"],
        instances=len(found.get("Instances", [])),
        desired_tasks=service.get("desiredCount", 0),
        running=service.get("runningCount", 0),
        healthy=states.count("healthy"),
        base_url=stack.output("vllm_base_url"),
        model=_model(stack, service.get("taskDefinition", "")),
        revision=service.get("taskDefinition", "").rpartition("/")[2],
        rollout=_rollout(service),
    )


def group(stack: Stack) -> "AutoScalingGroupTypeDef":
    """The Auto Scaling group of the GPU instances.

    Raises:
        NotFoundError: when the stack has no vLLM, or its group was deleted.
    """
    check_part_of(stack)
    name = stack.output("vllm_asg_name")
    groups = stack.autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[name])["AutoScalingGroups"]
    if not groups:
        raise NotFoundError(f"the Auto Scaling group {name} does not exist: is the stack deployed in this region?")
    return groups[0]


def scale(stack: Stack, size: int) -> Vllm:
    """Scale to `size` GPU instances with a task each; returns the state before.

    Up, the group goes first, so that no task waits without an instance. Down, the service goes first, so that tasks
    drain before their instance is taken. ECS chooses which task ends and Auto Scaling which instance goes: when some
    are to stay, this waits for the task to end, and then ends its instance and no other.

    Raises:
        UsageError: when the group may not have that size.
        CliError: when no task ends in time.
    """
    before = check_size(stack, size)
    if size >= before.desired:
        _set_instances(stack, size)
        _set_tasks(stack, size)
        return before
    _set_tasks(stack, size)
    if size:
        _remove_idle_instances(stack, size)
    else:
        _set_instances(stack, size)
    return before


def check_size(stack: Stack, size: int) -> Vllm:
    """The stack's vLLM, if it can be scaled to `size`.

    Raises:
        UsageError: when the group may not have that size.
    """
    vllm = status(stack)
    if vllm.minimum <= size <= vllm.maximum:
        return vllm
    raise UsageError(
        f"vLLM cannot be scaled to {size}: the group {stack.output('vllm_asg_name')} holds {vllm.minimum} to "
        f"{vllm.maximum} instances (the stack's config sets the limits)"
    )


def settle(stack: Stack, limit: float = COLD_START_SECONDS) -> Iterator[Vllm]:
    """Yield vLLM's state until it has the requested size; the last one yielded is settled.

    Raises:
        CliError: when that takes longer than `limit` seconds, with the reason that AWS gave last; at once when the
            account's quota is used up or the deployment has failed.
    """
    # A minute for clocks that differ: an older failure is of an earlier attempt.
    deadline, since = time.monotonic() + limit, datetime.now(UTC) - timedelta(minutes=1)
    while True:
        vllm = status(stack)
        yield vllm
        _check_rollout(stack, vllm)
        if vllm.settled:
            return
        _check_quota(stack, since)
        if time.monotonic() > deadline:
            raise CliError(
                f"vLLM is not ready after {limit / 60:.0f} minutes, {vllm.healthy} of {vllm.desired} healthy; "
                f"the reason that AWS gave last: {last_word(stack) or 'none'}"
            )
        time.sleep(stack.poll_interval)


def last_word(stack: Stack) -> str:
    """Why an instance or a task does not start, as the group or the service reports it; empty if neither does."""
    if reason := _failed_activity(stack):
        return reason
    if reason := stopped_reason(stack):
        return reason
    events = _service(stack).get("events", [])
    return str(events[0].get("message", "")) if events else ""


def stopped_reason(stack: Stack) -> str:
    """Why a task could not start or ended by itself within the last hour; empty if none did."""
    cluster, service = stack.output("vllm_cluster_name"), stack.output("vllm_service_name")
    stopped = stack.ecs.list_tasks(cluster=cluster, serviceName=service, desiredStatus="STOPPED")["taskArns"]
    if not stopped:
        return ""
    tasks = stack.ecs.describe_tasks(cluster=cluster, tasks=stopped[:100])["tasks"]
    failed = [task for task in tasks if task.get("stopCode") in ("TaskFailedToStart", "EssentialContainerExited")]
    if not failed:
        return ""
    newest = max(failed, key=lambda task: task.get("stoppedAt") or datetime.fromtimestamp(0, UTC))
    words = [newest.get("stoppedReason", "")]
    for container in newest.get("containers", []):
        words.append(container.get("reason", ""))
        if "exitCode" in container:
            words.append(f"exit code {container['exitCode']}")
    return "; ".join(filter(None, words))


def came_up_at(stack: Stack) -> datetime:
    """When the deployed revision was deployed, or the newest instance joined: the later of the two."""
    deployed = [
        one.get("createdAt") for one in _service(stack).get("deployments", []) if one.get("status") == "PRIMARY"
    ]
    joined = [one.get("registeredAt") for one in _container_instances(stack)]
    return max((at for at in [*deployed, *joined] if at), default=datetime.now(UTC))


def on_demand_base(stack: Stack) -> int:
    """How many of the group's instances are on-demand ones before Spot is used."""
    distribution = group(stack).get("MixedInstancesPolicy", {}).get("InstancesDistribution", {})
    return distribution.get("OnDemandBaseCapacity", 0)


def check_healthy(stack: Stack, or_else: str = "") -> Vllm:
    """The stack's vLLM, if it can answer now.

    Args:
        or_else: what else the command offers when vLLM is scaled to zero, for the message.

    Raises:
        CliError: with the command that makes it healthy.
    """
    vllm = status(stack)
    if vllm.healthy and vllm.running:
        return vllm
    scale_up = f"{stack.command} vllm scale {max(vllm.desired, 1)} --wait"
    if not vllm.desired or not vllm.desired_tasks:
        raise NotFoundError(f"vLLM is scaled to zero: scale it up with `{scale_up}`{or_else}")
    raise ConflictError(f"vLLM is not healthy yet ({vllm.healthy} of {vllm.desired}): wait for it with `{scale_up}`")


def _service(stack: Stack) -> "ServiceTypeDef":
    name = stack.output("vllm_service_name")
    answer = stack.ecs.describe_services(cluster=stack.output("vllm_cluster_name"), services=[name])
    if not answer["services"]:
        raise NotFoundError(f"the ECS service {name} does not exist: is the stack deployed in this region?")
    return answer["services"][0]


def _check_rollout(stack: Stack, vllm: Vllm) -> None:
    if vllm.desired and vllm.rollout.startswith("FAILED"):
        reason = stopped_reason(stack) or vllm.rollout
        raise CliError(
            f"the deployment of {vllm.revision} has failed: {reason}; see `{stack.command} vllm logs`, correct the "
            "stack's config, and `pulumi up --refresh`"
        )


def _check_quota(stack: Stack, since: datetime) -> None:
    reason = _failed_activity(stack, since)
    if any(error in reason for error in ("MaxSpotInstanceCountExceeded", "VcpuLimitExceeded")):
        raise CliError(
            f"the account's quota of GPU instances is used up ({reason}): `{stack.command} doctor` says what to request"
        )


def _failed_activity(stack: Stack, since: datetime | None = None) -> str:
    """The message of the group's last activity, if it failed, and after `since` if given; empty otherwise."""
    activities = stack.autoscaling.describe_scaling_activities(
        AutoScalingGroupName=stack.output("vllm_asg_name"), MaxRecords=1
    )["Activities"]
    if not activities or activities[0].get("StatusCode") not in ("Failed", "Cancelled"):
        return ""
    if since and activities[0]["StartTime"] < since:
        return ""
    return str(activities[0].get("StatusMessage", ""))


def _model(stack: Stack, task_definition: str) -> str:
    """The name under which a task definition serves its model; empty when its command names none."""
    if not task_definition:
        return ""
    described = stack.ecs.describe_task_definition(taskDefinition=task_definition)["taskDefinition"]
    containers = described.get("containerDefinitions", [])
    command = containers[0].get("command", []) if containers else []
    option = "--served-model-name"
    return command[command.index(option) + 1] if option in command[:-1] else next(iter(command), "")


def _rollout(service: "ServiceTypeDef") -> str:
    """The deployment's state. A failed one takes precedence over the one that ECS rolls back to."""
    deployments = service.get("deployments", [])
    failed = [one for one in deployments if one.get("rolloutState") == "FAILED"]
    primary = [one for one in deployments if one.get("status") == "PRIMARY"]
    for one in failed + primary:
        state, reason = one.get("rolloutState", ""), one.get("rolloutStateReason", "")
        return state if state == "COMPLETED" or not reason else f"{state}: {reason}"
    return ""


def _remove_idle_instances(stack: Stack, size: int) -> None:
    """Take instances without a task out of the group until `size` are left."""
    name, deadline = stack.output("vllm_asg_name"), time.monotonic() + _DRAIN_SECONDS
    while True:
        instances = [one["InstanceId"] for one in group(stack).get("Instances", []) if _is_there(one)]
        if len(instances) <= size:
            stack.autoscaling.set_desired_capacity(AutoScalingGroupName=name, DesiredCapacity=size, HonorCooldown=False)
            return
        idle = [instance for instance in instances if instance not in _instances_with_task(stack)]
        if surplus := idle[: len(instances) - size]:
            # Instances that were requested and never started are not replaced.
            stack.autoscaling.set_desired_capacity(
                AutoScalingGroupName=name, DesiredCapacity=len(instances), HonorCooldown=False
            )
            for instance in surplus:
                stack.autoscaling.terminate_instance_in_auto_scaling_group(
                    InstanceId=instance, ShouldDecrementDesiredCapacity=True
                )
            continue
        if time.monotonic() > deadline:
            raise CliError(
                f"no task of {stack.output('vllm_service_name')} has ended within {_DRAIN_SECONDS // 60} minutes, so "
                f"that no instance could be removed: run `{stack.command} vllm scale {size}` again"
            )
        time.sleep(stack.poll_interval)


def _is_there(instance: "InstanceTypeDef") -> bool:
    return not instance["LifecycleState"].startswith(("Terminat", "Detach"))


def _instances_with_task(stack: Stack) -> set[str]:
    return {
        one.get("ec2InstanceId", "")
        for one in _container_instances(stack)
        if one.get("runningTasksCount", 0) or one.get("pendingTasksCount", 0)
    }


def _container_instances(stack: Stack) -> "list[ContainerInstanceTypeDef]":
    cluster = stack.output("vllm_cluster_name")
    arns = stack.ecs.list_container_instances(cluster=cluster)["containerInstanceArns"]
    if not arns:
        return []
    return stack.ecs.describe_container_instances(cluster=cluster, containerInstances=arns)["containerInstances"]


def _set_instances(stack: Stack, size: int) -> None:
    stack.autoscaling.set_desired_capacity(
        AutoScalingGroupName=stack.output("vllm_asg_name"), DesiredCapacity=size, HonorCooldown=False
    )


def _set_tasks(stack: Stack, size: int) -> None:
    stack.ecs.update_service(
        cluster=stack.output("vllm_cluster_name"), service=stack.output("vllm_service_name"), desiredCount=size
    )
