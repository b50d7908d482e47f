"""Batch jobs run as processes: their environment, how they end, and when they are retried."""

import json
import os
import signal
import sys

import pytest

from local.emulator import batch_processes
from testing.processes import is_alive, until

HOST_LOSS_ONLY = {
    "attempts": 3,
    "evaluateOnExit": [
        {"onStatusReason": "Host EC2*", "action": "RETRY"},
        {"onExitCode": "75", "action": "RETRY"},
        {"onReason": "*", "action": "EXIT"},
    ],
}


def pid_of(job) -> int:
    return int(job["container"]["taskArn"].rsplit("pid-", 1)[1])


@pytest.fixture(scope="module")
def queue(aws):
    return aws.queue()


def test_a_job_runs_its_command_with_its_environment_and_overrides(aws, queue):
    definition = aws.job_definition(
        """
        import json, os, sys
        print(json.dumps(dict(os.environ)))
        print(sys.executable, os.listdir("."), file=sys.stderr)
        """,
        vcpus="2",
        containerProperties={"environment": [{"name": "A", "value": "1"}, {"name": "B", "value": "1"}]},
    )
    job_id = aws.submit(queue, definition, containerOverrides={"environment": [{"name": "B", "value": "2"}]})
    job = aws.ended_job(job_id)

    assert job["status"] == "SUCCEEDED"
    assert job["container"]["exitCode"] == 0
    assert job["statusReason"] == "Essential container in task exited"
    assert [attempt["container"]["exitCode"] for attempt in job["attempts"]] == [0]
    assert job["startedAt"] <= job["stoppedAt"]
    variables, seen = aws.log_lines("/aws/batch/job", job["container"]["logStreamName"])
    environment = json.loads(variables)
    assert (environment["A"], environment["B"]) == ("1", "2")
    assert environment["AWS_BATCH_JOB_ID"] == job_id
    assert environment["AWS_BATCH_JOB_ATTEMPT"] == "1"
    assert environment["AWS_ENDPOINT_URL"] == aws.embedded.endpoint
    assert environment["OMP_NUM_THREADS"] == environment["OPENBLAS_NUM_THREADS"] == "2"
    assert "VIRTUAL_ENV" not in environment
    assert "PYTEST_CURRENT_TEST" not in environment
    assert seen == f"{sys.executable} []"
    shown = {each["name"]: each["value"] for each in aws.job(job_id)["container"]["environment"]}
    assert shown == {"A": "1", "B": "2"}


def test_output_goes_to_the_group_of_the_job_definition(aws, queue):
    logging = {"logDriver": "awslogs", "options": {"awslogs-group": "/aws/batch/mine", "awslogs-stream-prefix": "w"}}
    definition = aws.job_definition("print('a'); print('b', end='')", containerProperties={"logConfiguration": logging})

    refused = aws.ended_job(aws.submit(queue, definition))
    assert refused["status"] == "FAILED"
    assert "log group does not exist" in refused["attempts"][0]["container"]["reason"]

    aws.client("logs").create_log_group(logGroupName="/aws/batch/mine")
    job = aws.ended_job(aws.submit(queue, definition))
    assert job["container"]["logStreamName"].startswith("w/default/")
    assert aws.log_lines("/aws/batch/mine", job["container"]["logStreamName"]) == ["a", "b"]


def test_a_failed_command_is_reported_with_its_exit_code(aws, queue):
    job = aws.ended_job(aws.submit(queue, aws.job_definition("raise SystemExit(3)")))
    assert job["status"] == "FAILED"
    assert job["container"]["exitCode"] == 3
    assert job["statusReason"] == "Essential container in task exited"
    assert len(job["attempts"]) == 1


def test_a_command_that_does_not_exist(aws, queue):
    definition = aws.job_definition("", containerProperties={"command": ["no-such-command"]})
    job = aws.ended_job(aws.submit(queue, definition))
    assert job["status"] == "FAILED"
    assert "no-such-command" in job["attempts"][0]["container"]["reason"]
    assert "exitCode" not in job["container"]


def test_evaluate_on_exit_decides_whether_to_retry(aws, queue):
    by_attempt = "import os; raise SystemExit({'1': 75, '2': 1}[os.environ['AWS_BATCH_JOB_ATTEMPT']])"
    job = aws.ended_job(aws.submit(queue, aws.job_definition(by_attempt, retryStrategy=HOST_LOSS_ONLY)))
    assert [attempt["container"]["exitCode"] for attempt in job["attempts"]] == [75, 1]
    assert job["status"] == "FAILED"


def test_without_rules_every_failure_is_retried(aws, queue):
    definition = aws.job_definition("raise SystemExit(1)")
    job = aws.ended_job(aws.submit(queue, definition, retryStrategy={"attempts": 3}))
    assert len(job["attempts"]) == 3
    streams = {attempt["container"]["logStreamName"] for attempt in job["attempts"]}
    assert len(streams) == 3


def test_a_process_killed_from_outside_is_a_lost_host(aws, queue):
    definition = aws.job_definition(
        """
        import os, time
        print("up", flush=True)
        time.sleep(60 if os.environ["AWS_BATCH_JOB_ATTEMPT"] == "1" else 0)
        """,
        retryStrategy=HOST_LOSS_ONLY,
    )
    job_id = aws.submit(queue, definition)
    os.kill(pid_of(running(aws, job_id)), signal.SIGKILL)
    job = aws.ended_job(job_id)

    assert job["status"] == "SUCCEEDED"
    lost, done = job["attempts"]
    assert lost["container"]["exitCode"] == 137
    assert lost["statusReason"].startswith("Host EC2 (instance i-")
    assert lost["statusReason"].endswith(") terminated.")
    assert done["container"]["exitCode"] == 0


def test_a_timeout_ends_the_job_without_a_retry(aws, queue, monkeypatch):
    monkeypatch.setattr(batch_processes, "KILL_GRACE_SECONDS", 0.1)
    definition = aws.job_definition(
        "import time; time.sleep(60)", retryStrategy={"attempts": 3}, timeout={"attemptDurationSeconds": 60}
    )
    job = aws.ended_job(aws.submit(queue, definition, timeout={"attemptDurationSeconds": 1}))
    assert job["status"] == "FAILED"
    assert job["statusReason"] == "Job attempt duration exceeded timeout"
    assert len(job["attempts"]) == 1


def test_terminate_sends_sigterm_first_and_sigkill_later(aws, queue, monkeypatch):
    monkeypatch.setattr(batch_processes, "KILL_GRACE_SECONDS", 2.0)
    definition = aws.job_definition(
        """
        import signal, time
        signal.signal(signal.SIGTERM, lambda *_: print("asked to stop", flush=True))
        print("up", flush=True)
        while True:
            time.sleep(60)
        """,
        retryStrategy={"attempts": 3},
    )
    job_id = aws.submit(queue, definition)
    stream = running(aws, job_id)["container"]["logStreamName"]
    aws.client("batch").terminate_job(jobId=job_id, reason="enough")
    job = aws.ended_job(job_id)

    assert job["status"] == "FAILED"
    assert job["statusReason"] == "enough"
    assert job["isTerminated"]
    assert [attempt["container"]["exitCode"] for attempt in job["attempts"]] == [137]
    assert aws.log_lines("/aws/batch/job", stream) == ["up", "asked to stop"]


def test_child_processes_of_a_job_end_with_it(aws, queue):
    definition = aws.job_definition(
        """
        import subprocess, sys
        print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]).pid, flush=True)
        """
    )
    job = aws.ended_job(aws.submit(queue, definition))
    assert job["status"] == "SUCCEEDED"
    (left,) = aws.log_lines("/aws/batch/job", job["container"]["logStreamName"])
    until(lambda: not is_alive(int(left)), seconds=5)


def test_max_vcpus_keeps_jobs_waiting_in_order(aws):
    queue = aws.queue(max_vcpus=2)
    definition = aws.job_definition("import time; print('up', flush=True); time.sleep(60)")
    first, second, third = (aws.submit(queue, definition, jobName=f"j{number}") for number in range(3))
    running(aws, first)
    running(aws, second)
    assert aws.job(third)["status"] == "RUNNABLE"
    names = [job["jobName"] for job in aws.client("batch").list_jobs(jobQueue=queue)["jobSummaryList"]]
    assert names == ["j0", "j1"]

    aws.client("batch").terminate_job(jobId=first, reason="make room")
    running(aws, third)
    for job_id in (second, third):
        aws.client("batch").terminate_job(jobId=job_id, reason="done")
        aws.ended_job(job_id)


def test_a_waiting_job_can_be_terminated_before_it_starts(aws):
    queue = aws.queue(max_vcpus=1)
    definition = aws.job_definition("import time; print('up', flush=True); time.sleep(60)")
    first, second = aws.submit(queue, definition), aws.submit(queue, definition)
    aws.client("batch").terminate_job(jobId=second, reason="not wanted")
    job = aws.job(second)
    assert (job["status"], job["statusReason"], job["attempts"]) == ("FAILED", "not wanted", [])
    aws.client("batch").terminate_job(jobId=first, reason="done")
    aws.ended_job(first)


def test_a_job_too_large_for_its_queue_reports_it(aws):
    job_id = aws.submit(aws.queue(max_vcpus=1), aws.job_definition("", vcpus="2"))
    job = aws.job(job_id)
    assert job["status"] == "RUNNABLE"
    assert job["statusReason"].startswith("MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT")


def test_list_jobs_by_name(aws, queue):
    definition = aws.job_definition("")
    jobs = [aws.submit(queue, definition, jobName=name) for name in ("run1-a", "run1-b", "run2-a")]
    for job_id in jobs:
        aws.ended_job(job_id)
    listed = aws.client("batch").list_jobs(jobQueue=queue, filters=[{"name": "JOB_NAME", "values": ["run1-*"]}])
    assert sorted(job["jobName"] for job in listed["jobSummaryList"]) == ["run1-a", "run1-b"]


def test_jobs_are_listed_and_described_a_hundred_at_a_time(aws):
    queue = aws.queue(max_vcpus=1)
    too_large = aws.job_definition("", vcpus="2")  # the first job keeps the others waiting
    submitted = [aws.submit(queue, too_large) for _ in range(101)]
    batch = aws.client("batch")
    first = batch.list_jobs(jobQueue=queue, jobStatus="RUNNABLE")
    assert len(first["jobSummaryList"]) == 100
    rest = batch.list_jobs(jobQueue=queue, jobStatus="RUNNABLE", nextToken=first["nextToken"])
    assert [job["jobId"] for job in first["jobSummaryList"] + rest["jobSummaryList"]] == submitted
    assert "nextToken" not in rest
    assert len(batch.describe_jobs(jobs=submitted[:100])["jobs"]) == 100
    with pytest.raises(batch.exceptions.ClientException, match="at most 100"):
        batch.describe_jobs(jobs=submitted)


def test_unsupported_job_definitions_are_rejected(aws, queue):
    batch = aws.client("batch")
    with pytest.raises(batch.exceptions.ClientException, match="arrayProperties"):
        aws.submit(queue, aws.job_definition(""), arrayProperties={"size": 2})
    environment = [{"name": "A", "value": "x" * 8200}]
    with pytest.raises(batch.exceptions.ClientException, match="8192"):
        aws.submit(queue, aws.job_definition(""), containerOverrides={"environment": environment})


def running(aws, job_id):
    """Wait until the job has printed its first line; return the job."""
    until(lambda: aws.job(job_id), lambda job: job["status"] == "RUNNING")
    stream = aws.job(job_id)["container"]["logStreamName"]
    until(lambda: aws.log_lines("/aws/batch/job", stream))
    return aws.job(job_id)
