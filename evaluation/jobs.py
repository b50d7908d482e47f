"""What the tools that run Batch jobs share: submitting a job, and its log, which has its result as lines of JSON."""

from collections.abc import Mapping
from typing import Any, TypedDict

WAITING = {"SUBMITTED", "PENDING", "RUNNABLE", "STARTING"}
"""States of a job that has no host yet."""

LOG_SECONDS = 60
"""How long CloudWatch may take to deliver the log of a job that has ended."""


class Target(TypedDict):
    """Where jobs are submitted."""

    name_prefix: str
    """The prefix of the names of the jobs."""
    job_queue_arn: str
    job_definition_arn: str


def submit(batch: Any, target: Target, name: str, module: str, variables: Mapping[str, str]) -> str:
    """Submit a job that runs `python -m module` with these environment variables; return its id.

    Batch never restarts it: its result would come too late, or be that of a job that measures alone.

    Args:
        batch: a boto3 client.
    """
    job = batch.submit_job(
        jobName=f"{target['name_prefix']}-{name}",
        jobQueue=target["job_queue_arn"],
        jobDefinition=target["job_definition_arn"],
        containerOverrides={
            "command": ["python", "-m", module],
            "environment": [{"name": key, "value": value} for key, value in variables.items()],
        },
        retryStrategy={"attempts": 1},
    )
    return job["jobId"]


def read_log(logs: Any, group: str, stream: str) -> list[str]:
    """The lines of a job's output that CloudWatch has so far.

    Args:
        logs: a boto3 client.
        stream: empty while the job has not started.
    """
    if not stream:
        return []
    try:
        events = logs.get_log_events(logGroupName=group, logStreamName=stream, startFromHead=True)["events"]
    except logs.exceptions.ResourceNotFoundException:  # the stream is created with its first line
        return []
    return [event.get("message", "") for event in events]
