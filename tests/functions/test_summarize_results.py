import dataclasses
import json
from collections import Counter
from types import ModuleType
from typing import Any

import pytest

from contract.batch import BatchProgress, Counts, Part
from contract.topic_names import NameUse
from tests.functions.conftest import BUCKET, EMPTY_ETAG, EXECUTION, QUARTER, RUN, Bucket

LATEST = f"progress/{QUARTER}/latest.json"
RECORD = f"manifests/{QUARTER}/summary_{RUN}.json"
FIRST = f"{QUARTER}_batch_0000"


@pytest.fixture
def summarize(modules: dict[str, ModuleType], s3: Any, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    # The queue does not exist in moto: details from Batch are optional in a summary.
    monkeypatch.setenv("JOB_QUEUE_ARN", "arn:aws:batch:us-east-1:123456789012:job-queue/none")
    monkeypatch.setenv("JOB_NAME_PREFIX", "ftm")
    monkeypatch.delenv("MIN_NAMED_SHARE", raising=False)
    return modules["summarize_results"]


def state(bucket: Bucket, **changes: Any) -> dict[str, Any]:
    """The data of the state machine after a Map whose jobs all succeeded."""
    ids = [line.batch_id for line in bucket.lines]
    return {
        "quarter": QUARTER,
        "bucket": BUCKET,
        "prefetch": {"exists": True},
        "manifest": {"run": bucket.run, "manifest_key": "...", "firms": 6, "batch_size": 2, "batch_ids": ids},
        "batches": [{"batch_id": batch_id, "status": "SUCCEEDED"} for batch_id in ids],
    } | changes


def ask(summarize: ModuleType, bucket: Bucket, **changes: Any) -> Any:
    return summarize.handler({"state": state(bucket, **changes), "execution": EXECUTION}, None)


def test_a_complete_run_succeeds(summarize: ModuleType, bucket: Bucket) -> None:
    bucket.put_run(batches=3, firms=2)
    progress = bucket.complete(bucket.lines[0])
    progress.skipped["F0_1"] = "too few sentences"
    del progress.completed["F0_1"]
    count_rows(progress)
    bucket.put_progress(progress)
    summary = ask(summarize, bucket)
    assert summary == {
        "quarter": QUARTER,
        "run": RUN,
        "has_failures": False,
        "message": "2023Q1 succeeded: 5 of 6 firms completed, 1 skipped, 20 of 20 topics named by the LLM.",
        "batches": {"total": 3, "succeeded": 3, "failed": 0},
        "firms": {"total": 6, "completed": 5, "skipped": 1, "failed": 0},
        "topics": {"total": 20, "named": 20},
        "tokens": {"prompt": 500, "cached": 0, "completion": 0},
        "fallbacks": [],
        "seconds": 4.5,
        "failures": [],
    }


def test_a_successful_run_becomes_the_latest(summarize: ModuleType, bucket: Bucket) -> None:
    bucket.put_run(batches=2, firms=2)
    summary = ask(summarize, bucket)
    latest = bucket.json(LATEST)
    assert latest == bucket.json(RECORD)
    assert (latest["run"], latest["execution"], latest["summary"]) == (RUN, EXECUTION, summary)
    assert latest["batches"][1] == {
        "batch_id": f"{QUARTER}_batch_0001",
        "succeeded": True,
        "firms": {"total": 2, "completed": 2, "skipped": 0, "failed": 0},
        "topics": {"total": 8, "named": 8},
        "tokens": {"prompt": 200, "cached": 0, "completion": 0},
        "seconds": 1.5,
    }


@pytest.mark.parametrize(("before", "after"), [("20230405_101459", RUN), ("20230405_101501", "20230405_101501")])
def test_an_older_run_never_replaces_a_newer_one(
    summarize: ModuleType, bucket: Bucket, before: str, after: str
) -> None:
    bucket.put_run()
    bucket.put(LATEST, json.dumps({"run": before}))
    assert not ask(summarize, bucket)["has_failures"]
    assert bucket.json(LATEST)["run"] == after
    assert bucket.json(RECORD)["run"] == RUN


def test_unlisted_parts_are_removed_after_a_successful_run(summarize: ModuleType, bucket: Bucket) -> None:
    bucket.put_run(batches=2)
    listed = [key for key in bucket.keys() if "_part_" in key]  # noqa: SIM118
    left = bucket.ref.part_key(FIRST, 1, "overtaken")
    bucket.put(left, b"PAR1")
    bucket.put_progress(dataclasses.replace(bucket.complete(bucket.lines[1]), state="running"))
    assert ask(summarize, bucket)["has_failures"]
    assert left in bucket.keys()  # noqa: SIM118

    bucket.put_progress(bucket.complete(bucket.lines[1]))
    assert not ask(summarize, bucket)["has_failures"]
    assert [key for key in bucket.keys() if "_part_" in key] == listed  # noqa: SIM118


def test_an_unreadable_latest_record_is_replaced(summarize: ModuleType, bucket: Bucket) -> None:
    bucket.put_run()
    bucket.put(LATEST, "{")
    ask(summarize, bucket)
    assert bucket.json(LATEST)["run"] == RUN


def delete_the_result(bucket: Bucket) -> None:
    bucket.delete(bucket.progress_key(FIRST))


def corrupt_the_result(bucket: Bucket) -> None:
    bucket.put(bucket.progress_key(FIRST), '{"batch_id": "2023Q1_batch_0000"}')


def write_another_batchs_result(bucket: Bucket) -> None:
    bucket.put(bucket.progress_key(FIRST), bucket.complete(bucket.lines[1]).to_json())


def delete_a_part(bucket: Bucket) -> None:
    bucket.delete(bucket.ref.part_key(FIRST, 0, "a"))


def write_counts_as_text(bucket: Bucket) -> None:
    text = bucket.complete(bucket.lines[0]).to_json().replace(b'"topics": 4', b'"topics": "4"')
    bucket.put(bucket.progress_key(FIRST), text)


def count_rows(progress: BatchProgress) -> None:
    """Set the rows of the parts to the number of topics of the firms."""
    progress.parts = {key: Part(EMPTY_ETAG, progress.counts.topics) for key in progress.parts}


def replace_a_part(bucket: Bucket) -> None:
    bucket.put(bucket.ref.part_key(FIRST, 0, "a"), b"an overtaken attempt's")


def change(**changes: Any) -> Any:
    def apply(bucket: Bucket) -> None:
        progress = bucket.complete(bucket.lines[0])
        for name, value in changes.items():
            setattr(progress, name, value)
        if "parts" not in changes:
            count_rows(progress)
        bucket.put_progress(progress)

    return apply


GOOD = Counts(topics=4, named=4)
BAD_RESULTS = {
    "missing": (delete_the_result, "it left no result"),
    "unreadable": (corrupt_the_result, "the progress record is not valid"),
    "another batch's": (write_another_batchs_result, "its result is that of '2023Q1_batch_0001'"),
    "part missing": (delete_a_part, "1 of its parts are not in the bucket, the first is intermediate/"),
    "part replaced": (replace_a_part, "1 of its parts were replaced after they were written, the first is inter"),
    "running": (change(state="running"), "it stopped before it was complete, after 2 of 2 firms"),
    "unknown state": (change(state="done"), "the progress record is not valid"),
    "failed firm": (
        change(completed={"F0_0": GOOD}, failed={"F0_1": "the LLM stayed away"}, state="failed"),
        "1 firms failed, the first is F0_1: the LLM stayed away",
    ),
    "failed": (change(error="no chunk", state="failed"), "no chunk"),
    "firm unaccounted for": (change(completed={"F0_0": GOOD}), "1 firms are unaccounted for, the first is F0_1"),
    "strange firm": (change(skipped={"X": "?"}), "counts firms that are not in the batch"),
    "firm twice": (change(skipped={"F0_0": "?"}), "counts a firm twice"),
    "no parts": (change(parts={}), "its result contradicts itself: 8 topics, 8 named, 0 in its parts"),
    "more named than there are": (
        change(completed={"F0_0": GOOD, "F0_1": Counts(topics=1, named=2)}),
        "its result contradicts itself: 5 topics, 6 named",
    ),
    "counts that are text": (
        write_counts_as_text,
        "the progress record is not valid: ValueError: counts are {'topics': '4'",
    ),
}


@pytest.mark.parametrize("case", BAD_RESULTS)
def test_a_batch_with_an_invalid_result_has_failed(summarize: ModuleType, bucket: Bucket, case: str) -> None:
    spoil, words = BAD_RESULTS[case]
    bucket.put_run(batches=3, firms=2)
    spoil(bucket)
    summary = ask(summarize, bucket)
    assert summary["has_failures"] is True
    assert summary["batches"] == {"total": 3, "succeeded": 2, "failed": 1}
    assert [failure["batch_id"] for failure in summary["failures"]] == [FIRST]
    assert words in summary["failures"][0]["reason"]
    assert f"1 of 3 batches failed, the first is {FIRST}: " in summary["message"]
    assert not [key for key in bucket.keys() if key == LATEST]  # noqa: SIM118
    assert bucket.json(RECORD)["batches"][0]["problem"] == summary["failures"][0]["reason"]


@pytest.mark.parametrize(
    ("batches", "words"),
    [
        (
            [{"batch_id": FIRST, "status": "FAILED", "error": "States.TaskFailed"}],
            "its job ended with States.TaskFailed",
        ),
        ([{"batch_id": FIRST, "status": "FAILED"}], "its job ended with FAILED"),
        ([], "the Map reports nothing of its job"),
        ([{"batch_id": FIRST, "status": "GREEN"}], "an outcome of unknown shape"),
        ([None], "an outcome of unknown shape: None"),
        (None, "the Map reported None instead of a list of outcomes"),
        ({"Error": "States.DataLimitExceeded", "Cause": "too large"}, "States.DataLimitExceeded: too large"),
    ],
)
def test_a_map_output_without_success_is_a_failure(
    summarize: ModuleType, bucket: Bucket, batches: Any, words: str
) -> None:
    bucket.put_run(batches=1)
    summary = ask(summarize, bucket, batches=batches)
    assert summary["has_failures"] is True
    assert words in summary["message"]


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        (None, "the run has no batch manifest: None"),
        ({"run": 7, "batch_ids": []}, "the run has no batch manifest"),
        ({"Error": "Lambda.Unknown", "Cause": "the function timed out"}, "Lambda.Unknown: the function timed out"),
        (
            {"Error": "ContractError", "Cause": json.dumps({"errorMessage": "2023Q1 names no firm", "stackTrace": []})},
            "2023Q1 failed: 2023Q1 names no firm.",
        ),
        ({"run": "20200101_000000", "batch_ids": []}, "2023Q1 has no run 20200101_000000"),
    ],
)
def test_a_run_without_a_manifest_reports_why(summarize: ModuleType, bucket: Bucket, manifest: Any, words: str) -> None:
    summary = ask(summarize, bucket, manifest=manifest)
    assert summary["has_failures"] is True
    assert words in summary["message"]
    assert summary["batches"]["total"] == 0


def test_the_summary_of_a_resumed_run_covers_all_batches(summarize: ModuleType, bucket: Bucket) -> None:
    bucket.put_run(batches=3)
    only = bucket.lines[1].batch_id
    resumed = {"run": RUN, "batch_ids": [only]}
    outcome = [{"batch_id": only, "status": "SUCCEEDED"}]
    assert not ask(summarize, bucket, manifest=resumed, batches=outcome)["has_failures"]
    delete_the_result(bucket)
    assert ask(summarize, bucket, manifest=resumed, batches=outcome)["batches"]["failed"] == 1


def test_a_batch_that_is_not_in_the_manifest_is_a_failure(summarize: ModuleType, bucket: Bucket) -> None:
    bucket.put_run(batches=1)
    outcome = [{"batch_id": batch_id, "status": "SUCCEEDED"} for batch_id in (FIRST, "stranger")]
    summary = ask(summarize, bucket, manifest={"run": RUN, "batch_ids": [FIRST, "stranger"]}, batches=outcome)
    assert summary["has_failures"] is True


@pytest.mark.parametrize(("share", "fails"), [(None, True), ("0.98", True), ("0.97", False), ("0", False)])
def test_too_few_named_topics_are_a_failure(
    summarize: ModuleType, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, share: str | None, fails: bool
) -> None:
    if share:
        monkeypatch.setenv("MIN_NAMED_SHARE", share)
    bucket.put_run(batches=1, firms=1)
    change(completed={"F0_0": Counts(topics=1000, named=979)})(bucket)
    summary = ask(summarize, bucket)
    assert summary["has_failures"] is fails
    if fails:
        assert summary["message"] == ("2023Q1 failed: the LLM named 979 of 1000 topics, 97.9%; at least 98.0% must be.")


def test_a_run_that_lacks_names_is_to_be_repaired(summarize: ModuleType, bucket: Bucket) -> None:
    bucket.put_run(batches=1, firms=1)
    change(completed={"F0_0": Counts(topics=4, named=3)})(bucket)
    assert ask(summarize, bucket)["repair"] == {"repeated_names": []}
    assert bucket.json(RECORD)["summary"]["repair"] == {"repeated_names": []}


@pytest.mark.parametrize(("alike", "fails"), [(True, False), (False, True)])
def test_one_name_for_unlike_topics_of_all_batches_is_a_failure(
    summarize: ModuleType, bucket: Bucket, alike: bool, fails: bool
) -> None:
    """Each batch has one topic, so that no worker meets the name twice."""
    bucket.put_run(batches=6, firms=1)
    for number, line in enumerate(bucket.lines):
        progress = bucket.complete(line)
        progress.completed = {firm: Counts(topics=1, named=1) for firm in line.firm_ids}
        subject = "freight" if alike else f"subject{number}"
        use = NameUse(1, Counter({subject: 1, f"other{number}": 1}))
        progress.parts = {key: Part(EMPTY_ETAG, 1, {"pricing pressure": use}) for key in progress.parts}
        bucket.put_progress(progress)

    summary = ask(summarize, bucket)

    assert summary["has_failures"] is fails
    if fails:
        reason = "the name 'pricing pressure' was given to 6 topics of as many companies, which are not alike"
        assert summary["topics"] == {"total": 6, "named": 0}
        assert f"6 topics have no name: {reason} (kind: repeated_name)" in summary["message"]
        assert summary["fallbacks"] == [{"reason": "repeated_name", "topics": 6, "example": reason}]
        assert summary["repair"] == {"repeated_names": ["pricing pressure"]}


def test_a_quarter_without_topics_is_a_failure(summarize: ModuleType, bucket: Bucket) -> None:
    bucket.put_run(batches=1, firms=1)
    change(completed={}, skipped={"F0_0": "too few sentences"}, parts={})(bucket)
    assert ask(summarize, bucket)["message"] == "2023Q1 failed: no firm has a topic."


def test_an_enlarged_batch_size_is_reported(summarize: ModuleType, bucket: Bucket) -> None:
    bucket.put_run(batches=1)
    manifest = {"run": RUN, "batch_ids": [FIRST], "note": "Batches were made larger."}
    assert ask(summarize, bucket, manifest=manifest)["message"].endswith("named by the LLM. Batches were made larger.")


def test_the_summary_of_a_run_in_which_everything_failed_is_small(summarize: ModuleType, bucket: Bucket) -> None:
    bucket.put_run(batches=30, firms=1)
    for line in bucket.lines:
        progress = bucket.complete(line)
        progress.error = "x" * 10_000
        bucket.put_progress(progress)
    summary = ask(summarize, bucket)
    assert summary["batches"] == {"total": 30, "succeeded": 0, "failed": 30}
    assert len(summary["failures"]) == 20
    assert len(json.dumps(summary)) < 20_000
    assert sum("problem" in entry for entry in bucket.json(RECORD)["batches"]) == 30


def test_the_summary_includes_what_batch_reports_of_a_failed_job() -> None:
    from functions.summarize_results import add_job

    failure: Any = {"batch_id": FIRST, "reason": "it left no result"}
    lost = {"container": {}, "statusReason": "Host EC2 (instance i-1) terminated."}
    died = {"container": {"exitCode": 137, "reason": "OutOfMemoryError", "logStreamName": "ftm/default/abc"}}
    add_job(failure, {"statusReason": "Essential container in task exited", "container": {}, "attempts": [lost, died]})
    assert failure == {
        "batch_id": FIRST,
        "reason": "it left no result",
        "status_reason": "Essential container in task exited; OutOfMemoryError",
        "exit_code": 137,
        "log_stream": "ftm/default/abc",
        "attempts": 2,
    }
