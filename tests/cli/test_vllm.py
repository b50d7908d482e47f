"""`ftm vllm`: the GPUs, and scaling them up and down, in the right order and within the limits of the group."""

import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import botocore.client
import pytest
from botocore.exceptions import ClientError

from cli.services import gpus

from .conftest import WAITS, Aws, Ftm, make_vllm_healthy, put_manifest, register


def answer(monkeypatch: pytest.MonkeyPatch, answers: dict[str, Any]) -> None:
    """Return these responses, by operation, in place of moto's, which lacks them."""
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
    shown = ftm("vllm", "status")
    assert "1\t1\t1\t1\t2\n" in shown.stdout
    assert "base URL: http://127.0.0.1:9/v1\n" in shown.stdout
    assert shown.stderr == "requests running and waiting: unknown, the load balancer cannot be reached from here\n"


METRICS = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="Qwen/Qwen3-8B"} 5.0
vllm:num_requests_running{engine="1",model_name="Qwen/Qwen3-8B"} 7.0
vllm:num_requests_waiting{engine="0",model_name="Qwen/Qwen3-8B"} 0.0
vllm:num_requests_waiting{engine="1",model_name="Qwen/Qwen3-8B"} 3.0
vllm:num_requests_waiting_by_reason{engine="1",model_name="Qwen/Qwen3-8B",reason="capacity"} 3.0
vllm:kv_cache_usage_perc{engine="0",model_name="Qwen/Qwen3-8B"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="Qwen/Qwen3-8B"} 1.25e-01
vllm:e2e_request_latency_seconds_bucket{le="0.3",model_name="Qwen/Qwen3-8B"} 12.0
"""


@contextmanager
def metrics_server(text: str, status: int = 200, seconds: float = 0) -> Iterator[tuple[str, list[str]]]:
    """A server that answers with `text` after so many seconds; returns its base URL and the paths asked for."""
    paths: list[str] = []
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            ended.wait(seconds)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}/v1", paths
        ended.set()
        server.shutdown()


def use_of_vllm(aws: Aws, monkeypatch: pytest.MonkeyPatch, ftm: Ftm, url: str, idle: int = 0, **answers: Any) -> Any:
    """The output of `ftm vllm status` for a Spot instance that is up for 65 minutes, on a stack in AWS itself."""
    make_vllm_healthy(aws)
    outputs = json.dumps({**aws.outputs, "vllm_base_url": url})
    aws.client("ssm").put_parameter(Name="/ftm/outputs", Value=outputs, Type="String")
    variables = {"ENDPOINT_URL": aws.endpoint, "REGION": "us-east-1", "ACCESS_KEY_ID": "x", "SECRET_ACCESS_KEY": "x"}
    for name, value in variables.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setattr(gpus, "METRICS_SECONDS", 0.5)
    now, price = datetime.now(UTC), {"InstanceType": "g5.xlarge", "SpotPrice": "0.4123"}
    (group,) = aws.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
    instance = {
        "InstanceId": group["Instances"][0]["InstanceId"],
        "InstanceLifecycle": "spot",
        "LaunchTime": now - timedelta(minutes=65, seconds=9),
    }
    requests = [(idle + 30, 8.0), (idle, 4.0)]
    counts = [{"Timestamp": now - timedelta(minutes=ago, seconds=9), "Sum": count} for ago, count in requests]
    given = {
        "DescribeInstances": {"Reservations": [{"Instances": [instance]}]},
        "DescribeSpotPriceHistory": {"SpotPriceHistory": [{**price, "AvailabilityZone": "us-east-1a"}]},
        "GetMetricStatistics": {"Datapoints": counts},
    }
    answer(monkeypatch, {**given, **answers})
    return json.loads(ftm("--stack", "prod", "vllm", "status", "--json").stdout)


def test_status_of_a_busy_vllm(aws: Aws, ftm: Ftm, monkeypatch: pytest.MonkeyPatch) -> None:
    with metrics_server(METRICS) as (url, paths):
        status = use_of_vllm(aws, monkeypatch, ftm, url)
        shown = ftm("--stack", "prod", "vllm", "status").stdout

    (gpu,) = status["gpus"]
    assert {**gpu, "instance_id": ""} == {
        "instance_id": "",
        "type": "g5.xlarge",
        "zone": "us-east-1a",
        "state": "InService",
        "market": "spot",
        "dollars_per_hour": 0.4123,
        "minutes_up": 65,
    }
    assert status["minutes_idle"] == 0
    assert status["load"] == {"running": 12, "waiting": 3, "kv_cache_use": 0.25}
    assert paths == ["/metrics", "/metrics"]
    assert "g5.xlarge\tus-east-1a\tInService\tspot\t0.412\t1:05" in shown
    assert "idle for 0 minutes\nrequests: 12 running, 3 waiting; 25% of the KV cache is used\n" in shown


def test_an_idle_vllm_is_not_queried_since_that_would_count_as_a_request(
    aws: Aws, ftm: Ftm, monkeypatch: pytest.MonkeyPatch
) -> None:
    with metrics_server(METRICS) as (url, paths):
        status = use_of_vllm(aws, monkeypatch, ftm, url, idle=40)

    assert (status["minutes_idle"], status["load"], paths) == (40, None, [])


def test_minutes_idle_begin_when_the_instance_is_started(aws: Aws, ftm: Ftm, monkeypatch: pytest.MonkeyPatch) -> None:
    status = use_of_vllm(aws, monkeypatch, ftm, "http://127.0.0.1:9/v1", idle=300)

    assert status["minutes_idle"] == status["gpus"][0]["minutes_up"] == 65


@pytest.mark.parametrize(
    ("server", "note"),
    [
        ({"text": METRICS, "seconds": 100}, "the load balancer cannot be reached from here"),
        ({"text": METRICS, "status": 503}, "the LLM server has no metrics of vLLM"),
        ({"text": "llamacpp:requests_processing 1"}, "the LLM server has no metrics of vLLM"),
    ],
)
def test_status_notes_that_vllms_metrics_are_missing(
    aws: Aws, ftm: Ftm, monkeypatch: pytest.MonkeyPatch, server: dict[str, Any], note: str
) -> None:
    with metrics_server(**server) as (url, _):
        status = use_of_vllm(aws, monkeypatch, ftm, url)

    assert status["load"] is None
    assert status["notes"] == [f"requests running and waiting: unknown, {note}"]


def test_an_operator_without_the_permissions_sees_the_rest(aws: Aws, ftm: Ftm, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(asked: Any) -> None:
        raise ClientError({"Error": {"Code": "UnauthorizedOperation", "Message": "not yours"}}, "DescribeInstances")

    denied = dict.fromkeys(("DescribeInstances", "DescribeSpotPriceHistory", "GetMetricStatistics"), deny)
    status = use_of_vllm(aws, monkeypatch, ftm, "http://127.0.0.1:9/v1", **denied)

    (gpu,) = status["gpus"]
    assert (gpu["type"], gpu["market"], gpu["dollars_per_hour"], gpu["minutes_up"]) == ("g5.xlarge", None, None, None)
    assert (status["healthy"], status["minutes_idle"]) == (1, None)
    assert (
        status["notes"][0] == "Spot or on demand, and uptime: unknown, no permission for DescribeInstances: not yours"
    )


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


def test_concurrency_levels_must_increase(aws: Aws, ftm: Ftm) -> None:
    for levels in ("", "0,1", "2,1", "1,1", "one"):
        assert "is not a valid list" in ftm("vllm", "bench", "--levels", levels, exit_code=2).stderr
