"""The stack's vLLM: its state, and scaling it by hand."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cli.errors import CliError, ConflictError, NotFoundError, UsageError
from cli.stack import Stack

if TYPE_CHECKING:
    from mypy_boto3_autoscaling.type_defs import AutoScalingGroupTypeDef
    from mypy_boto3_ecs.type_defs import ServiceTypeDef

COLD_START_SECONDS = 45 * 60
"""How long to wait for a GPU: Spot capacity, 4 to 6 minutes for the image, 16 GB of weights, compilation, reserve."""


@dataclass(frozen=True)
class Vllm:
    """What the GPU group should have and what runs. One instance holds one task, which is one target."""

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

    @property
    def settled(self) -> bool:
        """Whether everything that was asked for runs, and nothing else."""
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
    """The stack's vLLM as AWS has it now.

    Raises:
        NotFoundError: when the stack has no vLLM.
    """
    group, service = _group(stack), _service(stack)
    targets = stack.elbv2.describe_target_health(TargetGroupArn=stack.output("vllm_target_group_arn"))
    states = [target.get("TargetHealth", {}).get("State") for target in targets["TargetHealthDescriptions"]]
    return Vllm(
        desired=group["DesiredCapacity"],
        minimum=group["MinSize"],
        maximum=group["MaxSize"],
        instances=len(group.get("Instances", [])),
        desired_tasks=service.get("desiredCount", 0),
        running=service.get("runningCount", 0),
        healthy=states.count("healthy"),
        base_url=stack.output("vllm_base_url"),
    )


def scale(stack: Stack, size: int) -> Vllm:
    """Ask for `size` GPU instances with a task each; returns what was there before.

    Up, the group goes first, so that no task waits without an instance. Down, the service goes first, so that tasks
    drain before their instance is taken.

    Raises:
        UsageError: when the group may not have that size.
    """
    before = check_size(stack, size)
    if size >= before.desired:
        _set_instances(stack, size)
        _set_tasks(stack, size)
    else:
        _set_tasks(stack, size)
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
    """RunSnapshot again and again until what runs is what was asked for; the last one yielded is settled.

    Raises:
        CliError: when that takes longer than `limit` seconds, with the reason that AWS gave last.
    """
    deadline = time.monotonic() + limit
    while True:
        vllm = status(stack)
        yield vllm
        if vllm.settled:
            return
        if time.monotonic() > deadline:
            raise CliError(
                f"vLLM is not ready after {limit / 60:.0f} minutes, {vllm.healthy} of {vllm.desired} healthy; "
                f"the reason that AWS gave last: {last_word(stack) or 'none'}"
            )
        time.sleep(stack.poll_interval)


def last_word(stack: Stack) -> str:
    """Why an instance or a task does not start, as the group or the service reports it; empty if neither does."""
    activities = stack.autoscaling.describe_scaling_activities(
        AutoScalingGroupName=stack.output("vllm_asg_name"), MaxRecords=1
    )["Activities"]
    if activities and activities[0].get("StatusCode") in ("Failed", "Cancelled"):
        return str(activities[0].get("StatusMessage", ""))
    events = _service(stack).get("events", [])
    return str(events[0].get("message", "")) if events else ""


def check_healthy(stack: Stack, or_else: str = "") -> Vllm:
    """The stack's vLLM, if it can answer now.

    Args:
        or_else: what else the current command offers for a vLLM that is switched off.

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


def _group(stack: Stack) -> "AutoScalingGroupTypeDef":
    check_part_of(stack)
    name = stack.output("vllm_asg_name")
    groups = stack.autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[name])["AutoScalingGroups"]
    if not groups:
        raise NotFoundError(f"the Auto Scaling group {name} does not exist: is the stack deployed in this region?")
    return groups[0]


def _service(stack: Stack) -> "ServiceTypeDef":
    name = stack.output("vllm_service_name")
    answer = stack.ecs.describe_services(cluster=stack.output("vllm_cluster_name"), services=[name])
    if not answer["services"]:
        raise NotFoundError(f"the ECS service {name} does not exist: is the stack deployed in this region?")
    return answer["services"][0]


def _set_instances(stack: Stack, size: int) -> None:
    stack.autoscaling.set_desired_capacity(
        AutoScalingGroupName=stack.output("vllm_asg_name"), DesiredCapacity=size, HonorCooldown=False
    )


def _set_tasks(stack: Stack, size: int) -> None:
    stack.ecs.update_service(
        cluster=stack.output("vllm_cluster_name"), service=stack.output("vllm_service_name"), desiredCount=size
    )
