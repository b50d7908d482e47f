"""`python -m evaluation.smoke`: three topics through the stack's LLM.

The load balancer is internal: only a job of the stack reaches its address. So a Batch job runs `evaluation.smoke_job`,
and this process waits for it. The request on stdin is a `Request`, the answer on stdout a `Smoke`; progress goes to
stderr. SIGINT ends the job.
"""

import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from contract import env, layout
from evaluation import EvaluationError
from evaluation.jobs import LOG_SECONDS, WAITING, Target, read_log, submit
from evaluation.process import answer_request
from evaluation.smoke_job import Smoke

_BOOT_SECONDS = 15 * 60
"""How long Batch may take to start the job, with a new host."""


class Request(Target):
    """The stack to test. AWS credentials and region come from the environment."""

    log_group: str
    bucket: str
    quarter: str | None
    """Whose topics to name; None for topics that are built in."""
    poll_interval: float


def main() -> int:
    return answer_request(_answer)


def run(request: Request, batch: Any, logs: Any, on_change: Callable[[str], None]) -> Smoke:
    """Submit the job, and wait for its result; it is ended if that fails or is interrupted.

    Args:
        batch: a boto3 client.
        logs: a boto3 client.
        on_change: called with a line of progress.

    Raises:
        EvaluationError: when the job does not start or fails, with the end of its log, or reports nothing.
    """
    variables = {env.S3_BUCKET: request["bucket"], env.QUARTER: request["quarter"] or ""}
    job = submit(batch, request, f"smoke-{layout.run_id(datetime.now(UTC))}", "evaluation.smoke_job", variables)
    try:
        return _wait(request, job, batch, logs, on_change)
    except BaseException:
        batch.terminate_job(jobId=job, reason="the smoke test was given up")
        raise


def _wait(request: Request, job: str, batch: Any, logs: Any, on_change: Callable[[str], None]) -> Smoke:
    submitted, ended, last = time.monotonic(), 0.0, ""
    while True:
        (described,) = batch.describe_jobs(jobs=[job])["jobs"]
        status, stream = described["status"], described.get("container", {}).get("logStreamName", "")
        if last != (last := status):
            on_change(f"smoke test: its job is {status}")
        lines = read_log(logs, request["log_group"], stream)
        if result := next((line for line in lines if line.startswith("{")), ""):
            return json.loads(result)
        if status == "FAILED":
            reason = lines[-1] if lines else described.get("statusReason", "its log is empty")
            raise EvaluationError(f"the smoke test's job failed: {reason}")
        ended = ended or (time.monotonic() if status == "SUCCEEDED" else 0.0)
        if ended and time.monotonic() - ended > LOG_SECONDS:
            raise EvaluationError(f"the smoke test's job reported nothing: see {stream} of {request['log_group']}")
        if status in WAITING and time.monotonic() - submitted > _BOOT_SECONDS:
            raise EvaluationError(
                f"the smoke test's job had no host after {_BOOT_SECONDS // 60} minutes: see `ftm doctor`"
            )
        time.sleep(request["poll_interval"])


def _answer(request: Request) -> Smoke:
    import boto3

    def log(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    return run(request, boto3.client("batch"), boto3.client("logs"), log)


if __name__ == "__main__":
    sys.exit(main())
