"""`ftm vllm`: GPUs on and off, in the right order, within the group's limits."""

import json
import logging
import time
from typing import Any

import pytest

from cli.services import load

from .conftest import WAITS, Aws, Ftm, make_vllm_healthy, put_manifest, register


def test_status_at_zero(aws: Aws, ftm: Ftm) -> None:
    vllm = json.loads(ftm("vllm", "status", "--json").stdout)

    assert vllm["desired"] == vllm["running"] == vllm["healthy"] == 0
    assert vllm["maximum"] == 2
    assert vllm["base_url"] == "http://127.0.0.1:9/v1"


def test_status_of_a_healthy_one(aws: Aws, ftm: Ftm) -> None:
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


def test_wait_returns_when_what_runs_is_what_was_asked(aws: Aws, ftm: Ftm) -> None:
    make_vllm_healthy(aws)

    assert json.loads(ftm("vllm", "scale", "1", "--wait", "--json").stdout)["healthy"] == 1


def test_more_than_the_maximum_changes_nothing(aws: Aws, ftm: Ftm) -> None:
    result = ftm("vllm", "scale", "3", exit_code=2)

    assert "cannot be scaled to 3" in result.stderr
    assert "0 to 2 instances" in result.stderr
    assert json.loads(ftm("vllm", "status", "--json").stdout)["desired"] == 0


def test_a_negative_number(aws: Aws, ftm: Ftm) -> None:
    ftm("vllm", "scale", "--", "-1", exit_code=2)


def test_a_run_keeps_its_gpus_unless_told(aws: Aws, ftm: Ftm) -> None:
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


def test_a_group_that_is_gone(aws: Aws, ftm: Ftm) -> None:
    aws.client("autoscaling").delete_auto_scaling_group(AutoScalingGroupName="ftm-local-vllm-asg", ForceDelete=True)

    assert "ftm-local-vllm-asg is not there" in ftm("vllm", "scale", "1", exit_code=3).stderr


class SlowLog:
    """A clock for the load service, that passes only while it waits; meanwhile a line of each job's log comes."""

    time = time.time

    def __init__(self, aws: Aws) -> None:
        self._aws = aws
        self._now = 0.0
        self.lines: list[str] = []

    def monotonic(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        self._now += seconds
        if self.lines:
            self._say(self.lines.pop(0))

    def _say(self, line: str) -> None:
        batch, logs = self._aws.client("batch"), self._aws.client("logs")
        group = self._aws.outputs["batch_log_group"]
        found = batch.list_jobs(jobQueue=self._aws.outputs["job_queue_arn"], jobStatus="SUCCEEDED")["jobSummaryList"]
        for job in batch.describe_jobs(jobs=[job["jobId"] for job in found])["jobs"]:
            stream = job["container"]["logStreamName"]
            if not logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=stream)["logStreams"]:
                logs.create_log_stream(logGroupName=group, logStreamName=stream)
            event = {"timestamp": round(time.time() * 1000), "message": line}
            logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=[event])


@pytest.fixture
def log(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> SlowLog:
    make_vllm_healthy(aws)
    aws.client("logs").create_log_group(logGroupName=aws.outputs["batch_log_group"])
    log = SlowLog(aws)
    monkeypatch.setattr(load, "time", log)
    return log


def level(in_flight: int, requests: int, **changes: Any) -> str:
    measured = {
        "in_flight": in_flight,
        "requests": requests,
        "errors": 0,
        "retries": 1,
        "seconds": 2.0,
        "p50": 0.1,
        "p95": 0.2,
        "prompt_tokens": 100 * requests,
        "cached_tokens": 50 * requests,
        "completion_tokens": 20 * requests,
    }
    return json.dumps(measured | changes)


def test_the_load_of_all_jobs_is_added_up_when_their_logs_are_whole(log: SlowLog, ftm: Ftm) -> None:
    log.lines = [level(1, 10), "a word of the client", level(2, 19), level(4, 20)]

    result = ftm("vllm", "bench", "--concurrent", "3", "--levels", "1,2,4", "--json")

    measured = json.loads(result.stdout)
    assert (measured["jobs"], measured["knee"]) == (3, 6)
    assert [one["in_flight"] for one in measured["levels"]] == [3, 6, 12]
    assert [one["requests_per_second"] for one in measured["levels"]] == [15, 28.5, 30]
    assert [one["retries"] for one in measured["levels"]] == [3, 3, 3]
    assert "3 jobs will measure together, from " in result.stderr


def test_a_log_that_lacks_a_level_is_no_measurement(log: SlowLog, ftm: Ftm) -> None:
    log.lines = [level(1, 10)]

    refused = ftm("vllm", "bench", "--concurrent", "2", "--levels", "1,2", exit_code=1)

    assert "a measuring job told 1 of 2 levels: see the log stream ftm-local-worker/" in refused.stderr
    assert not refused.stdout


def test_a_vllm_that_answers_nothing_has_no_knee(log: SlowLog, ftm: Ftm) -> None:
    log.lines = [level(1, 0, errors=9, p50=None, p95=None)]

    refused = ftm("vllm", "bench", "--concurrent", "2", "--levels", "1", exit_code=1)

    assert "vLLM answered none of the requests, and 18 failed" in refused.stderr
    assert not refused.stdout


def test_a_vllm_at_zero_is_not_measured(aws: Aws, ftm: Ftm) -> None:
    refused = ftm("vllm", "bench", exit_code=3)

    assert "scale it up with `ftm --stack local vllm scale 1 --wait`" in refused.stderr
    assert "--vllm" not in refused.stderr


def test_a_run_is_not_slowed_by_a_measurement_unless_told(log: SlowLog, ftm: Ftm, aws: Aws) -> None:
    put_manifest(aws, WAITS)
    ftm("run-quarter", WAITS, "--yes", "--detach")
    log.lines = [level(1, 10)]

    assert "both loads would be measured" in ftm("vllm", "bench", "--levels", "1", exit_code=2).stderr
    assert json.loads(ftm("vllm", "bench", "--levels", "1", "--yes", "--json").stdout)["jobs"] == 5


@pytest.mark.parametrize("levels", ["", "0,1", "2,1", "1,1", "one"])
def test_levels_grow(aws: Aws, ftm: Ftm, levels: str) -> None:
    assert "are no levels" in ftm("vllm", "bench", "--levels", levels, exit_code=2).stderr
