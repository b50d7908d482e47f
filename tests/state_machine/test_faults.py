"""Each function of the state machine fails once, or permanently; `make faults` prints a table."""

import json
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cli.services.executions import Execution, reason
from contract import layout

from .conftest import BUCKET, QUARTER, Stack

pytestmark = pytest.mark.faults

STATES = {
    "CheckPrefetch": "ftm-prefetch-check",
    "CreateBatchManifest": "ftm-create-batch-manifest",
    "SummarizeResults": "ftm-summarize-results",
    "NotifyCompletion": "ftm-notify-completion",
}
TOPICS = [(f"FIRM{firm}", topic) for firm in range(3) for topic in range(3)]

FAILS_ONCE = """
import json, os, pathlib, urllib.request

class S3UnavailableError(Exception):
    pass

def handler(event, context):
    failed = pathlib.Path({flag!r})
    if not failed.exists():
        failed.touch()
        raise S3UnavailableError("S3 failed to read s3://pipeline/key for 60 s; try again later")
    # boto3 would take half a second to import.
    url = os.environ["AWS_ENDPOINT_URL"] + "/2015-03-31/functions/{function}/invocations"
    scope = "AWS4-HMAC-SHA256 Credential=embedded/20230101/us-east-1/lambda/aws4_request, SignedHeaders=host"
    headers = {{"Authorization": scope, "Content-Type": "application/json"}}
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(event).encode(), headers)) as answer:
        return json.load(answer)
"""
FAILS = """
def handler(event, context):
    raise RuntimeError("the function is broken")
"""


@pytest.fixture
def machine_with(stack: Stack) -> Callable[..., str]:
    """Return a function that creates the quarter's machine with other source for the functions of some states."""

    def create(source: str, *states: str) -> str:
        document = json.loads(stack.states.describe_state_machine(stateMachineArn=stack.quarter_machine)["definition"])
        for state in states:
            name = f"{STATES[state]}-{uuid.uuid4().hex[:8]}"
            document["States"][state]["Resource"] = stack.create_function(name, source)
        return stack.create_machine(document)

    return create


def topics(stack: Stack) -> Iterator[tuple[str, int]]:
    """The topics of the quarter's latest run."""
    latest = json.loads(stack.s3.get_object(Bucket=BUCKET, Key=layout.latest_key(QUARTER))["Body"].read())
    for batch in latest["batches"]:
        for firm, counts in stack.progress(latest["run"], batch["batch_id"]).completed.items():
            yield from ((firm, topic) for topic in range(counts.topics))


@pytest.mark.parametrize("state", STATES)
def test_a_function_fails_once(
    stack: Stack, machine_with: Callable[..., str], survives: Callable[..., None], tmp_path: Path, state: str
) -> None:
    stack.put_prefetch(firms=3)
    source = FAILS_ONCE.format(flag=str(tmp_path / "failed"), function=STATES[state])

    ended = stack.run(machine=machine_with(source, state), batch_size=2)

    assert (ended.status, (tmp_path / "failed").exists()) == ("SUCCEEDED", True), ended.cause
    survives(f"{state} fails once", ended.failures, TOPICS, topics(stack), "SUCCEEDED")


@pytest.mark.parametrize("state", STATES)
def test_a_function_fails_permanently(
    stack: Stack, machine_with: Callable[..., str], survives: Callable[..., None], state: str
) -> None:
    """Once the function works again, the run is resumed, or started again if it has no batch manifest yet."""
    stack.put_prefetch(firms=3)

    ended = stack.run(machine=machine_with(FAILS, state), batch_size=2)

    assert "the function is broken" in ended.cause or ended.status == "SUCCEEDED"
    if state == "SummarizeResults":
        assert "2023Q1 failed: its results could not be counted: RuntimeError: the function is broken" in ended.cause
        assert "NotifyCompletion" in ended.states
    outcome = ended.status
    if ended.status == "FAILED":
        runs = [layout.run_of_manifest(key).run for key in stack.keys("manifests/") if key.endswith(".jsonl")]
        rest: dict[str, Any] = {"resume": runs[0]} if runs else {}
        repaired = stack.run(batch_size=2, **rest)
        outcome += f", {'resumed' if runs else 'started again'}: {repaired.status}"
    survives(f"{state} fails permanently", ended.failures, TOPICS, topics(stack), outcome)


def test_summary_and_notification_fail_permanently(
    stack: Stack, machine_with: Callable[..., str], survives: Callable[..., None]
) -> None:
    """The execution's cause is then the error of the summary, and the run can be resumed."""
    stack.put_prefetch(firms=3)
    broken = ("SummarizeResults", "NotifyCompletion")

    ended = stack.run(machine=machine_with(FAILS, *broken), batch_size=2)

    assert ended.status == "FAILED"
    assert ended.cause.startswith("{Error=RuntimeError, Cause=")
    execution = Execution("arn", "run", "FAILED", datetime.now(UTC), None, {}, {}, "Failed", ended.cause)
    assert reason(execution) == (
        "Failed: its results could not be counted, and its end could not be reported: the function is broken"
    )
    (run,) = [layout.run_of_manifest(key).run for key in stack.keys("manifests/") if key.endswith(".jsonl")]
    repaired = stack.run(batch_size=2, resume=run)
    outcome = f"{ended.status}, resumed: {repaired.status}"
    survives(f"{' and '.join(broken)} fail permanently", ended.failures, TOPICS, topics(stack), outcome)
