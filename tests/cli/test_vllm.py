"""`ftm vllm`: scaling GPUs up and down, in the right order and within the limits of the group."""

import json
import logging

import pytest

from .conftest import WAITS, Aws, Ftm, make_vllm_healthy, put_manifest, register


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
