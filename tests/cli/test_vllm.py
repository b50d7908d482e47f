"""`ftm vllm`: scaling GPUs up and down, in the right order and within the limits of the group."""

import json
import logging
from datetime import UTC, datetime
from typing import Any

import botocore.client
import pytest

from .conftest import WAITS, Aws, Ftm, make_vllm_healthy, put_manifest, register


def answer(monkeypatch: pytest.MonkeyPatch, answers: dict[str, Any]) -> None:
    """Let AWS give these answers, by operation, which moto cannot give."""
    call = botocore.client.BaseClient._make_api_call  # pyright: ignore[reportAttributeAccessIssue]

    def answered(client: Any, operation: str, arguments: Any) -> Any:
        given = answers.get(operation)
        return call(client, operation, arguments) if given is None else given(arguments) if callable(given) else given

    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", answered)


def answer_quotas(monkeypatch: pytest.MonkeyPatch, vcpus: dict[str, float]) -> None:
    answer(monkeypatch, {"GetServiceQuota": lambda asked: {"Quota": {"Value": vcpus[asked["QuotaCode"]]}}})


def test_status_at_zero(aws: Aws, ftm: Ftm) -> None:
    vllm = json.loads(ftm("vllm", "status", "--json").stdout)

    assert vllm["desired"] == vllm["running"] == vllm["healthy"] == 0
    assert vllm["maximum"] == 2
    assert vllm["base_url"] == "http://127.0.0.1:9/v1"


def test_status_of_a_healthy_vllm(aws: Aws, ftm: Ftm) -> None:
    make_vllm_healthy(aws)

    assert json.loads(ftm("vllm", "status", "--json").stdout)["healthy"] == 1
    assert "1\t1\t1\t1\t2\thttp://127.0.0.1:9/v1" in ftm("vllm", "status").stdout


def test_scaling_sets_group_and_service(aws: Aws, ftm: Ftm) -> None:
    ftm("vllm", "scale", "2")

    vllm = json.loads(ftm("vllm", "status", "--json").stdout)
    assert (vllm["desired"], vllm["desired_tasks"]) == (2, 2)


@pytest.mark.parametrize(
    ("before", "after", "order"),
    [("0", "1", ["SetDesiredCapacity", "UpdateService"]), ("1", "0", ["UpdateService", "SetDesiredCapacity"])],
)
def test_up_the_group_goes_first_and_down_the_service(
    ftm: Ftm, caplog: pytest.LogCaptureFixture, before: str, after: str, order: list[str]
) -> None:
    ftm("vllm", "scale", before)
    caplog.set_level(logging.DEBUG, logger="botocore.endpoint")
    caplog.clear()
    ftm("vllm", "scale", after)

    assert sorted(order, key=caplog.text.index) == order


def test_of_two_instances_the_one_without_a_task_goes(aws: Aws, ftm: Ftm, caplog: pytest.LogCaptureFixture) -> None:
    ftm("vllm", "scale", "2")
    ecs, cluster = aws.client("ecs"), "ftm-local-vllm-cluster"
    scaling = aws.client("autoscaling")
    (group,) = scaling.describe_auto_scaling_groups(AutoScalingGroupNames=["ftm-local-vllm-asg"])["AutoScalingGroups"]
    busy, idle = (instance["InstanceId"] for instance in group["Instances"])  # the group itself would remove the first
    joined = {}
    for instance in (busy, idle):
        document = json.dumps({"instanceId": instance})
        made = ecs.register_container_instance(cluster=cluster, instanceIdentityDocument=document)
        joined[instance] = made["containerInstance"]["containerInstanceArn"]
    ecs.start_task(cluster=cluster, taskDefinition="vllm", containerInstances=[joined[busy]])
    ftm("vllm", "scale", "1")

    (group,) = scaling.describe_auto_scaling_groups(AutoScalingGroupNames=["ftm-local-vllm-asg"])["AutoScalingGroups"]
    assert (group["DesiredCapacity"], [one["InstanceId"] for one in group["Instances"]]) == (1, [busy])


@pytest.mark.parametrize(
    ("vcpus", "size", "exit_code", "says"),
    [
        (0, 1, 2, "the account may use 0 vCPUs of Spot GPU instances at once, and 1 instance needs 4"),
        (4, 2, 0, "the account may use 4 vCPUs of Spot GPU instances at once, and 2 instances need 8"),
        (8, 2, 0, ""),
    ],
)
def test_the_quota_is_read_before_scaling(
    aws: Aws, ftm: Ftm, monkeypatch: pytest.MonkeyPatch, vcpus: int, size: int, exit_code: int, says: str
) -> None:
    answer_quotas(monkeypatch, {"L-3819A6DF": vcpus})
    result = ftm("vllm", "scale", str(size), exit_code=exit_code)

    assert says in result.stderr
    assert ("--quota-code L-3819A6DF --desired-value" in result.stderr) == bool(says)
    wanted = 0 if exit_code else size
    assert json.loads(ftm("vllm", "status", "--json").stdout)["desired"] == wanted


def test_waiting_ends_at_once_when_the_quota_is_used_up(ftm: Ftm, monkeypatch: pytest.MonkeyPatch) -> None:
    message = "Could not launch Spot Instances. MaxSpotInstanceCountExceeded - Max spot instance count exceeded."
    failed = {"StatusCode": "Failed", "StatusMessage": message, "StartTime": datetime.now(UTC)}
    answer(monkeypatch, {"DescribeScalingActivities": {"Activities": [failed]}})
    result = ftm("vllm", "scale", "1", "--wait", exit_code=1)

    assert "quota of GPU instances is used up" in result.stderr
    assert "`ftm --stack local doctor` says what to request" in result.stderr


def test_waiting_ends_with_the_reason_of_a_task_when_the_rollout_has_failed(
    aws: Aws, ftm: Ftm, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = aws.client("ecs").describe_services(cluster="ftm-local-vllm-cluster", services=["ftm-local-vllm-service"])
    (one,) = service["services"]
    failed = {"status": "ACTIVE", "rolloutState": "FAILED", "rolloutStateReason": "tasks failed to start"}
    task = {
        "stopCode": "TaskFailedToStart",
        "stoppedReason": "Task failed to start",
        "containers": [{"reason": "CannotPullContainerError: vllm:v9 not found"}],
    }
    answer(
        monkeypatch,
        {
            "DescribeServices": {"services": [{**one, "deployments": [*one["deployments"], failed]}]},
            "ListTasks": {"taskArns": ["arn:task"]},
            "DescribeTasks": {"tasks": [task]},
        },
    )
    result = ftm("vllm", "scale", "1", "--wait", exit_code=1)

    assert "the deployment of vllm:1 has failed: Task failed to start; CannotPullContainerError" in result.stderr
    status = json.loads(ftm("vllm", "status", "--json").stdout)
    assert (status["revision"], status["rollout"]) == ("vllm:1", "FAILED: tasks failed to start")


def test_wait_returns_when_the_requested_size_runs(aws: Aws, ftm: Ftm) -> None:
    make_vllm_healthy(aws)

    assert json.loads(ftm("vllm", "scale", "1", "--wait", "--json").stdout)["healthy"] == 1


def test_scaling_beyond_the_maximum_is_rejected_and_changes_nothing(aws: Aws, ftm: Ftm) -> None:
    result = ftm("vllm", "scale", "3", exit_code=2)

    assert "cannot be scaled to 3" in result.stderr
    assert "0 to 2 instances" in result.stderr
    assert json.loads(ftm("vllm", "status", "--json").stdout)["desired"] == 0


def test_a_negative_size_is_rejected(aws: Aws, ftm: Ftm) -> None:
    ftm("vllm", "scale", "--", "-1", exit_code=2)


def test_gpus_in_use_by_a_run_are_kept_without_force(aws: Aws, ftm: Ftm) -> None:
    make_vllm_healthy(aws)
    put_manifest(aws, WAITS)
    ftm("run-quarter", WAITS, "--yes", "--detach")

    assert f"{WAITS}-" in ftm("vllm", "scale", "0", exit_code=2).stderr
    assert json.loads(ftm("vllm", "status", "--json").stdout)["desired"] == 1
    ftm("vllm", "scale", "0", "--yes")
    assert json.loads(ftm("vllm", "status", "--json").stdout)["desired"] == 0


def test_a_stack_without_vllm(aws: Aws, ftm: Ftm) -> None:
    del aws.outputs["vllm_asg_name"]
    register(aws)

    assert "has no vLLM" in ftm("vllm", "status", exit_code=3).stderr


def test_a_deleted_group_is_reported(aws: Aws, ftm: Ftm) -> None:
    aws.client("autoscaling").delete_auto_scaling_group(AutoScalingGroupName="ftm-local-vllm-asg", ForceDelete=True)

    assert "ftm-local-vllm-asg does not exist" in ftm("vllm", "scale", "1", exit_code=3).stderr


def test_a_vllm_scaled_to_zero_is_not_measured(aws: Aws, ftm: Ftm) -> None:
    refused = ftm("vllm", "bench", exit_code=3)

    assert "scale it up with `ftm --stack local vllm scale 1 --wait`" in refused.stderr
    assert "--vllm" not in refused.stderr


def test_vllm_is_not_measured_during_a_run_without_force(aws: Aws, ftm: Ftm) -> None:
    make_vllm_healthy(aws)
    put_manifest(aws, WAITS)
    ftm("run-quarter", WAITS, "--yes", "--detach")

    assert "both loads would be measured" in ftm("vllm", "bench", "--levels", "1", exit_code=2).stderr


@pytest.mark.parametrize("levels", ["", "0,1", "2,1", "1,1", "one"])
def test_concurrency_levels_must_increase(aws: Aws, ftm: Ftm, levels: str) -> None:
    assert "is not a valid list" in ftm("vllm", "bench", "--levels", levels, exit_code=2).stderr
