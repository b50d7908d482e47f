"""Runs of many batches: which batches fail, which a resumption runs again, and how close a run comes to the limits of
Step Functions for the data of a state and the events of an execution.

`FTM_SCALE` is the number of batches, 12 by default. With 2000, the maximum of a run:
`FTM_SCALE=2000 pytest tests/state_machine/test_scale.py -n 0 -s`.
"""

import json
import os
import random

from contract import layout
from contract.run import MAX_BATCHES
from tests.state_machine.conftest import BUCKET, QUARTER, Stack

BATCHES = int(os.environ.get("FTM_SCALE", "12"))
SECONDS = 60 + BATCHES
AT_ONCE = 40

STATE_LIMIT = 256 * 1024
EVENT_LIMIT = 25_000
LONGEST_ERROR = "States.ExceedToleratedFailureThreshold"
"""The longest name of an error of Batch or Step Functions."""


def test_resuming_runs_exactly_the_batches_that_failed(stack: Stack) -> None:
    stack.put_prefetch(firms=2 * BATCHES)
    machine = stack.deploy(concurrency=AT_ONCE)
    ids = [layout.batch_id(QUARTER, number) for number in range(BATCHES)]
    doomed = set(random.Random(BATCHES).sample(ids, BATCHES // 3))
    for batch_id in doomed:
        (stack.control / batch_id).write_text("exit")

    first = stack.run(SECONDS, machine, batch_size=2)
    assert first.status == "FAILED"
    assert first.summary["batches"] == {"total": BATCHES, "succeeded": BATCHES - len(doomed), "failed": len(doomed)}
    assert failed_batches(stack, first.summary["run"]) == doomed
    assert {failure["batch_id"] for failure in first.summary["failures"]} <= doomed
    assert all(failure["exit_code"] == 1 for failure in first.summary["failures"])

    for batch_id in doomed:
        (stack.control / batch_id).unlink()
    run = first.summary["run"]
    again = stack.run(SECONDS, machine, resume=run)
    assert again.status == "SUCCEEDED", again.cause
    assert set(again.manifest["batch_ids"]) == doomed
    assert again.summary["run"] == run
    assert again.summary["firms"] == {"total": 2 * BATCHES, "completed": 2 * BATCHES, "skipped": 0, "failed": 0}
    assert stack.jobs(run) == {batch_id: 2 if batch_id in doomed else 1 for batch_id in ids}
    print(f"{BATCHES} batches, {len(doomed)} failed: {first.seconds:.0f} s, resumed in {again.seconds:.0f} s")


def test_the_largest_run_stays_within_the_limits_of_step_functions(stack: Stack) -> None:
    """Every job fails, and all names have their maximum length."""
    bucket = "b" * 63
    stack.s3.create_bucket(Bucket=bucket)
    stack.put_prefetch(firms=BATCHES, bucket=bucket)
    machine = stack.deploy(concurrency=AT_ONCE, prefix=f"ftm-{'s' * 60}")
    for number in range(BATCHES):
        (stack.control / layout.batch_id(QUARTER, number)).write_text("exit")

    ended = stack.run(SECONDS, machine, bucket=bucket, batch_size=1)
    assert ended.status == "FAILED"
    events = len(ended.events)
    fixed = events - 10 * BATCHES
    assert fixed < 50
    most_events = fixed + 10 * MAX_BATCHES
    assert (EVENT_LIMIT - most_events) // 3 > 1_600

    largest = ended.largest_state()
    # Each batch adds its id in the manifest and its outcome.
    longest = len(LONGEST_ERROR) - len("States.TaskFailed")
    after_map = ended.output_of("ProcessBatches")
    a_batch = growth(after_map["manifest"]["batch_ids"]) + growth(after_map["batches"])
    largest_possible = largest + (MAX_BATCHES - BATCHES) * a_batch + MAX_BATCHES * longest
    assert largest_possible < STATE_LIMIT
    print(
        f"{BATCHES} batches: {events} events, largest state {largest} bytes; "
        f"at {MAX_BATCHES}: {most_events} events, at most {largest_possible} bytes"
    )


def growth(items: list[object]) -> int:
    """Bytes that one more item adds to a list in JSON."""
    return len(json.dumps(items[:2])) - len(json.dumps(items[:1]))


def failed_batches(stack: Stack, run: str) -> set[str]:
    """All failed batches, read from the run's record in the bucket."""
    record = stack.s3.get_object(Bucket=BUCKET, Key=layout.RunRef(QUARTER, run).summary_key)["Body"].read()
    return {entry["batch_id"] for entry in json.loads(record)["batches"] if not entry["succeeded"]}
