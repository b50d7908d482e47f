"""Why a run makes no progress, as `ftm watch` and `ftm status` report it."""

from datetime import UTC, datetime, timedelta

from cli.services.stalls import StallFinder
from cli.stack import Target, connect

from .conftest import Aws, make_vllm_healthy
from .test_status import put_log

STREAMS = {"2023Q1_batch_0000": "worker/1"}


def find(streams: dict[str, str], *, minutes: int = 10, jobs: int = 2) -> str:
    """The cause, this many minutes after the last progress."""
    last_progress = datetime.now(UTC) - timedelta(minutes=minutes)
    return StallFinder(connect(Target("local"))).find(last_progress, streams, jobs)


def test_a_run_with_recent_progress_or_without_jobs_has_no_cause(aws: Aws) -> None:
    assert find(STREAMS, minutes=0) == ""
    assert find(STREAMS, jobs=0) == ""


def test_jobs_without_a_host(aws: Aws) -> None:
    assert find({}) == "all 2 jobs wait for a host"
    assert find({}, jobs=1) == "its only job waits for a host"


def test_an_absent_vllm_and_the_workers_last_line(aws: Aws) -> None:
    put_log(aws, aws.outputs["batch_log_group"], "worker/1", "reading", "waiting for the LLM")

    assert find(STREAMS) == (
        "no progress for 10 minutes: vLLM is not healthy (0 of 0), and the workers give up 25 minutes after it went "
        "away; 2023Q1_batch_0000 last logged: waiting for the LLM"
    )


def test_a_healthy_vllm(aws: Aws) -> None:
    make_vllm_healthy(aws)

    assert find(STREAMS) == "no progress for 10 minutes: vLLM is healthy on 1 of 1 GPUs"
