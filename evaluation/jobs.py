"""What the tools that submit Batch jobs share: the job's log, which holds its result as lines of JSON."""

from typing import Any

LOG_SECONDS = 60
"""How long CloudWatch may take to deliver the log of a job that has ended."""


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
