"""The machine of several quarters scales vLLM up before the first quarter and down at the end, however it ends."""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest

from components import definition
from components.vllm_states import SmokeJob, VllmCalls
from testing.processes import until
from tests.state_machine.conftest import BUCKET, QUARTER, Stack
from tests.state_machine.test_faults import TOPICS, topics

GROUP, CLUSTER, SERVICE = "bracket-asg", "bracket-cluster", "bracket-service"
ROLE = "arn:aws:iam::123456789012:role/any"
LATER = "2023Q2"
WAITS_FOR_LATER = {
    "StartAt": "Later?",
    "States": {
        "Later?": {
            "Type": "Choice",
            "Choices": [{"Variable": "$.quarter", "StringEquals": LATER, "Next": "Wait"}],
            "Default": "Done",
        },
        "Wait": {"Type": "Wait", "Seconds": 600, "Next": "Done"},
        "Done": {"Type": "Succeed"},
    },
}
"""A machine of one quarter without jobs: LATER takes ten minutes, any other quarter ends at once."""


@pytest.fixture(scope="module")
def calls(stack: Stack) -> VllmCalls:
    """A GPU group, a service on it and a target group, connected as the program does it."""
    ec2, scaling, ecs, elb = (stack.client(name) for name in ("ec2", "autoscaling", "ecs", "elbv2"))
    ec2.create_launch_template(
        LaunchTemplateName="bracket", LaunchTemplateData={"ImageId": "ami-12c6146b", "InstanceType": "g6.xlarge"}
    )
    scaling.create_auto_scaling_group(
        AutoScalingGroupName=GROUP,
        MinSize=0,
        MaxSize=2,
        DesiredCapacity=0,
        AvailabilityZones=["us-east-1a"],
        MixedInstancesPolicy={
            "LaunchTemplate": {
                "LaunchTemplateSpecification": {"LaunchTemplateName": "bracket", "Version": "1"},
                "Overrides": [{"InstanceType": "g6.xlarge"}],
            },
            "InstancesDistribution": {"OnDemandBaseCapacity": 0, "OnDemandPercentageAboveBaseCapacity": 0},
        },
    )
    (group,) = scaling.describe_auto_scaling_groups(AutoScalingGroupNames=[GROUP])["AutoScalingGroups"]
    ecs.create_capacity_provider(
        name="bracket", autoScalingGroupProvider={"autoScalingGroupArn": group["AutoScalingGroupARN"]}
    )
    ecs.create_cluster(clusterName=CLUSTER, capacityProviders=["bracket"])
    ecs.register_task_definition(
        family="bracket", containerDefinitions=[{"name": "vllm", "image": "vllm", "memory": 1000}]
    )
    vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    target_group = elb.create_target_group(Name="bracket", Protocol="HTTP", Port=8000, VpcId=vpc)["TargetGroups"][0]
    ecs.create_service(
        cluster=CLUSTER,
        serviceName=SERVICE,
        taskDefinition="bracket",
        desiredCount=0,
        loadBalancers=[
            {"targetGroupArn": target_group["TargetGroupArn"], "containerName": "vllm", "containerPort": 8000}
        ],
    )
    no_queue = SmokeJob("no-queue", "no-worker", "/aws/batch/bracket", BUCKET, "bracket")
    return VllmCalls(GROUP, CLUSTER, SERVICE, target_group["TargetGroupArn"], no_queue, poll_seconds=1)


@pytest.fixture(scope="module")
def never_healthy(stack: Stack, calls: VllmCalls) -> VllmCalls:
    """The same group and service, with a target group in which they never become healthy."""
    vpc = stack.client("ec2").describe_vpcs()["Vpcs"][0]["VpcId"]
    created = stack.client("elbv2").create_target_group(Name="empty", Protocol="HTTP", Port=8000, VpcId=vpc)
    return dataclasses.replace(calls, target_group=created["TargetGroups"][0]["TargetGroupArn"], limit_minutes=0)


@pytest.fixture(scope="module")
def no_jobs(stack: Stack) -> str:
    return stack.create_machine(WAITS_FOR_LATER)


@pytest.fixture
def machine(stack: Stack, calls: VllmCalls) -> str:
    scale(stack, 0)
    return stack.create_machine(definition.quarters(stack.quarter_machine, vllm=calls))


def scale(stack: Stack, size: int) -> None:
    stack.client("autoscaling").set_desired_capacity(AutoScalingGroupName=GROUP, DesiredCapacity=size)
    stack.client("ecs").update_service(cluster=CLUSTER, service=SERVICE, desiredCount=size)


def sizes(stack: Stack) -> tuple[int, int]:
    """The desired numbers of instances and tasks."""
    (group,) = stack.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=[GROUP])[
        "AutoScalingGroups"
    ]
    (service,) = stack.client("ecs").describe_services(cluster=CLUSTER, services=[SERVICE])["services"]
    return group["DesiredCapacity"], service["desiredCount"]


def start(
    stack: Stack, machine: str, size: Any = 1, *, keep: bool = False, quarter: str = QUARTER, smoke_test: bool = False
) -> str:
    item = {"quarter": quarter, "bucket": BUCKET, "batch_size": 2}
    vllm = {"size": size, "keep": keep, "smoke_test": smoke_test}
    return stack.start_with(json.dumps({"quarters": [item], "vllm": vllm}), machine)


def entered_states(stack: Stack, execution: str) -> list[str]:
    """The names of the states that were entered."""
    return [
        event["stateEnteredEventDetails"]["name"]
        for event in stack.events(execution)
        if "stateEnteredEventDetails" in event
    ]


@pytest.mark.parametrize("keep", [False, True])
def test_vllm_is_on_while_the_quarters_run_and_off_afterwards_unless_kept(
    stack: Stack, calls: VllmCalls, no_jobs: str, keep: bool
) -> None:
    scale(stack, 0)
    machine = stack.create_machine(definition.quarters(no_jobs, vllm=calls))
    execution = start(stack, machine, keep=keep)
    ended = stack.ended(execution)
    assert ended["status"] == "SUCCEEDED", ended
    assert json.loads(ended["output"])["summary"] == {"total": 1, "succeeded": [QUARTER], "failed": []}
    entered = entered_states(stack, execution)
    assert entered.index("ScaleServiceUp") < entered.index("ProcessQuarters")
    assert sizes(stack) == ((1, 1) if keep else (0, 0))


def test_a_larger_group_is_not_made_smaller_and_ends_at_the_minimum(
    stack: Stack, calls: VllmCalls, no_jobs: str
) -> None:
    scale(stack, 2)
    with_minimum = dataclasses.replace(calls, minimum=1)
    execution = start(stack, stack.create_machine(definition.quarters(no_jobs, vllm=with_minimum)))
    ended = stack.ended(execution)
    assert ended["status"] == "SUCCEEDED", ended
    assert json.loads(ended["output"])["vllm"]["size"] == 2
    assert sizes(stack) == (1, 1)


@pytest.mark.faults
def test_a_scale_down_step_that_fails_leaves_the_results_and_the_other_step(
    stack: Stack, machine: str, survives: Callable[..., None]
) -> None:
    """The service is not found; the instances are scaled to zero nevertheless."""
    stack.put_prefetch(firms=3)
    document = json.loads(stack.states.describe_state_machine(stateMachineArn=machine)["definition"])
    step = document["States"]["ScaleServiceDown"]
    step["Parameters"]["Service"] = "gone"
    # All of its retries would take minutes of real time.
    step["Retry"] = [{"ErrorEquals": ["States.TaskFailed"], "IntervalSeconds": 1, "MaxAttempts": 1}]
    execution = start(stack, stack.create_machine(document))
    ended = stack.ended(execution)
    assert ended["status"] == "SUCCEEDED", ended
    assert sizes(stack)[0] == 0
    failures = sum(event["type"] == "TaskFailed" for event in stack.events(execution))
    survives("scale-down step fails", failures, TOPICS, topics(stack), "SUCCEEDED, no instance is left")


def test_vllm_is_switched_off_after_a_quarter_that_failed(stack: Stack, machine: str) -> None:
    ended = stack.ended(start(stack, machine))  # there is no prefetch
    assert (ended["status"], ended["error"]) == ("FAILED", "QuartersCompletedWithFailures")
    assert sizes(stack) == (0, 0)


def test_more_instances_than_the_group_may_have_start_no_quarter(stack: Stack, machine: str) -> None:
    stack.put_prefetch(firms=2)
    ended = stack.ended(start(stack, machine, size=3))
    assert ended["status"] == "FAILED"
    assert "above max value 2" in ended["cause"]
    assert sizes(stack) == (0, 0)
    assert stack.keys("manifests/") == []


@pytest.mark.parametrize("keep", [False, True])
def test_a_smoke_test_that_cannot_run_starts_no_quarter(stack: Stack, machine: str, keep: bool) -> None:
    """Smoke tests that run are in tests/end_to_end."""
    stack.put_prefetch(firms=2)
    execution = start(stack, machine, keep=keep, smoke_test=True)
    ended = stack.ended(execution)
    assert (ended["status"], ended["error"]) == ("FAILED", "SmokeTestFailed")
    assert "no quarter was run" in ended["cause"]
    assert f"its job in AWS Batch is bracket-smoke-{execution.split(':')[-1]}" in ended["cause"]
    assert stack.keys("manifests/") == []
    assert sizes(stack) == ((1, 1) if keep else (0, 0))


def put_rule(stack: Stack, machine: str) -> None:
    """The program's EventBridge rule: it starts the machine again, with the event's detail as input."""
    events = stack.client("events")
    detail = {"status": ["ABORTED", "TIMED_OUT"], "stateMachineArn": [machine]}
    pattern = {"source": ["aws.states"], "detail-type": ["Step Functions Execution Status Change"], "detail": detail}
    events.put_rule(Name="stopped", EventPattern=json.dumps(pattern))
    target = {"Id": "stopped", "Arn": machine, "RoleArn": ROLE, "InputPath": "$.detail"}
    events.put_targets(Rule="stopped", Targets=[target])


def test_a_stopped_list_is_cleaned_up_by_the_rule(stack: Stack, machine: str) -> None:
    put_rule(stack, machine)
    stack.put_prefetch(firms=2)
    (stack.control / f"{QUARTER}_batch_0000").write_text("hang")
    execution = start(stack, machine)
    until(lambda: "ProcessQuarters" in entered_states(stack, execution))
    stack.states.stop_execution(executionArn=execution, error="Stopped", cause="an operator stopped it")
    until(lambda: sizes(stack) == (0, 0))


def test_a_stopped_list_that_keeps_vllm_is_left_alone(stack: Stack, machine: str) -> None:
    detail = {"executionArn": "arn", "status": "ABORTED"}
    for given in ({"size": 1, "keep": True}, None):
        scale(stack, 1)
        stopped = json.dumps({"quarters": [], **({"vllm": given} if given else {})})
        ended = stack.ended(stack.start_with(json.dumps({**detail, "input": stopped}), machine))
        assert (ended["status"], sizes(stack)) == ("SUCCEEDED", (1, 1))


def test_a_stopped_list_that_keeps_vllm_still_scales_down_one_that_is_not_healthy(
    stack: Stack, never_healthy: VllmCalls
) -> None:
    scale(stack, 1)
    machine = stack.create_machine(definition.quarters(stack.quarter_machine, vllm=never_healthy))
    stopped = json.dumps({"quarters": [], "vllm": {"size": 1, "keep": True}})
    ended = stack.ended(stack.start_with(json.dumps({"status": "ABORTED", "input": stopped}), machine))
    assert (ended["status"], sizes(stack)) == ("SUCCEEDED", (0, 0))


def test_the_last_execution_to_end_switches_vllm_off(stack: Stack, calls: VllmCalls, no_jobs: str) -> None:
    machine = stack.create_machine(definition.quarters(no_jobs, vllm=calls))
    first, last = (start(stack, machine, quarter=name) for name in ("2023Q1", LATER))
    assert stack.ended(first)["status"] == "SUCCEEDED"
    assert (stack.describe(last)["status"], sizes(stack)) == ("RUNNING", (1, 1))
    stack.states.stop_execution(
        executionArn=f"{no_jobs.replace('stateMachine', 'execution')}:{last.split(':')[-1]}-{LATER}"
    )
    assert stack.ended(last)["status"] == "FAILED"
    assert sizes(stack) == (0, 0)


def test_a_vllm_that_never_becomes_healthy_ends_the_list_with_the_reason(
    stack: Stack, never_healthy: VllmCalls
) -> None:
    scale(stack, 0)
    machine = stack.create_machine(definition.quarters(stack.quarter_machine, vllm=never_healthy))
    ended = stack.ended(start(stack, machine))
    assert (ended["status"], ended["error"]) == ("FAILED", "VllmNotHealthy")
    assert "was not healthy within" in ended["cause"]
    assert sizes(stack) == (0, 0)
