"""`ftm resume` and `ftm run-quarters`: what they start, and what they reject."""

import json
from collections.abc import Callable

import pytest

from contract import layout
from contract.batch import BatchLine, BatchProgress, parse_progress

from .conftest import (
    BUCKET,
    RUN,
    SUCCEEDS,
    WAITS,
    Aws,
    Ftm,
    make_vllm_healthy,
    put_manifest,
    put_run,
    register,
    summary,
    wait_until_none_runs,
)

Q = SUCCEEDS
REF = layout.RunRef(Q, RUN)


@pytest.fixture
def ready(aws: Aws) -> Aws:
    """The stack with vLLM running, a prefetch, and a run whose second batch was lost."""
    make_vllm_healthy(aws)
    put_manifest(aws, Q)
    put_run(aws, Q, latest=False)
    lines = [BatchLine(layout.batch_id(Q, 0), Q, ["F0", "F1", "F2"]), BatchLine(layout.batch_id(Q, 1), Q, ["F3"])]
    put(aws, REF.manifest_key, "\n".join(line.to_json() for line in lines).encode())
    return aws


def put(aws: Aws, key: str, body: bytes) -> None:
    aws.client("s3").put_object(Bucket=BUCKET, Key=key, Body=body)


def put_record(aws: Aws, *, failed: bool) -> None:
    """Write the record that SummarizeResults would write."""
    record = {"quarter": Q, "run": RUN, "execution": "arn:aws:states:...", "summary": summary(Q, failed), "batches": []}
    put(aws, REF.summary_key, json.dumps(record).encode())


def complete_the_second_batch(aws: Aws) -> None:
    batch = layout.batch_id(Q, 1)
    record = BatchProgress(batch, REF, firms=1, state="complete", skipped={"F3": "no sentences"})
    put(aws, REF.progress_key(batch), record.to_json())


def inputs(aws: Aws) -> list[dict[str, object]]:
    machines = aws.client("stepfunctions")
    items = machines.list_executions(stateMachineArn=aws.outputs["state_machine_arn"])["executions"]
    return [json.loads(machines.describe_execution(executionArn=item["executionArn"])["input"]) for item in items]


def test_the_incomplete_batches_of_the_newest_run_are_resumed(ready: Aws, ftm: Ftm) -> None:
    result = ftm("resume", Q, "--yes", "--json")

    assert inputs(ready) == [{"quarter": Q, "bucket": BUCKET, "resume": RUN}]
    assert "1 firm, 1 batch not complete yet" in result.stderr
    assert json.loads(result.stdout)["status"] == "SUCCEEDED"


def lose_a_progress_record(aws: Aws) -> None:
    aws.client("s3").delete_object(Bucket=BUCKET, Key=REF.progress_key(layout.batch_id(Q, 0)))


def break_a_progress_record(aws: Aws) -> None:
    put(aws, REF.progress_key(layout.batch_id(Q, 0)), b"{")


def lose_a_part(aws: Aws) -> None:
    aws.client("s3").delete_object(Bucket=BUCKET, Key=REF.part_key(layout.batch_id(Q, 0), 0, "a"))


@pytest.mark.parametrize("damage", [lose_a_progress_record, break_a_progress_record, lose_a_part])
def test_a_damaged_batch_is_resumed_whatever_the_summary_says(
    ready: Aws, ftm: Ftm, damage: Callable[[Aws], None]
) -> None:
    complete_the_second_batch(ready)
    put_record(ready, failed=False)
    damage(ready)

    planned = ftm("resume", Q, RUN, "--dry-run").stderr

    assert "3 firms, 1 batch not complete yet" in planned
    assert f"{layout.batch_id(Q, 0)}\t" in planned  # with the reason


def test_resuming_a_complete_run_reports_it_and_starts_nothing(ready: Aws, ftm: Ftm) -> None:
    complete_the_second_batch(ready)
    put_record(ready, failed=False)

    result = ftm("resume", Q, RUN, "--json")

    assert f"run {RUN} of {Q} is complete: nothing to resume" in result.stderr
    assert json.loads(result.stdout)["status"] == "SUCCEEDED"
    assert not inputs(ready)


def test_a_run_without_a_summary_is_summarised(ready: Aws, ftm: Ftm) -> None:
    complete_the_second_batch(ready)

    ftm("resume", Q, RUN, "--yes")

    assert len(inputs(ready)) == 1


def test_a_run_that_failed_for_too_few_names_has_nothing_to_resume(ready: Aws, ftm: Ftm) -> None:
    complete_the_second_batch(ready)
    record = summary(Q, failed=False) | {"has_failures": True, "message": "the LLM named 10 of 100 topics"}
    put(ready, REF.summary_key, json.dumps({"summary": record}).encode())

    result = ftm("resume", Q, RUN, "--yes", exit_code=1)

    assert "the LLM named 10 of 100 topics" in result.stderr
    assert not inputs(ready)


def test_a_run_that_lacks_names_is_resumed_with_the_batches_that_lack_them(ready: Aws, ftm: Ftm) -> None:
    complete_the_second_batch(ready)
    record = summary(Q, failed=False) | {"has_failures": True, "message": "...", "repair": {"repeated_names": []}}
    put(ready, REF.summary_key, json.dumps({"summary": record}).encode())
    first = layout.batch_id(Q, 0)
    progress = parse_progress(ready.client("s3").get_object(Bucket=BUCKET, Key=REF.progress_key(first))["Body"].read())
    counts = next(iter(progress.completed.values()))
    counts.named -= 1
    put(ready, REF.progress_key(first), progress.to_json())

    result = ftm("resume", Q, RUN, "--yes")

    assert f"{first}\t1 of its {progress.counts.topics} topics have no name" in result.stderr
    assert "1 firm, 1 batch not complete yet" in result.stderr
    assert inputs(ready) == [{"quarter": Q, "bucket": BUCKET, "resume": RUN}]


def test_a_run_continues_with_its_own_model_unless_a_change_is_requested(ready: Aws, ftm: Ftm) -> None:
    ready.outputs["llm_model"] = "smollm2"
    register(ready)
    line = BatchLine(layout.batch_id(Q, 0), Q, ["F0", "F1", "F2", "F3"], "qwen3-8b")
    put(ready, REF.manifest_key, line.to_json().encode())

    refused = ftm("resume", Q, "--yes", exit_code=5).stderr
    assert "began with the model qwen3-8b, and the stack now has smollm2" in refused
    assert f"`ftm --stack local resume {Q} {RUN} --model-change` continues with smollm2" in refused
    assert not inputs(ready)

    ftm("resume", Q, "--model-change", "--no-smoke-test", "--yes")
    assert inputs(ready) == [{"quarter": Q, "bucket": BUCKET, "resume": RUN, "model_change": True}]


def test_an_invalid_or_unknown_run_is_rejected(ready: Aws, ftm: Ftm) -> None:
    for run, exit_code in (("20200101_000000", 3), ("yesterday", 2), ("../../x", 2)):
        assert run in ftm("resume", Q, run, "--yes", exit_code=exit_code).stderr


def test_a_quarter_that_was_never_run(aws: Aws, ftm: Ftm) -> None:
    assert "has no run" in ftm("resume", Q, "--yes", exit_code=3).stderr


def test_a_quarter_that_is_being_run_is_not_resumed(ready: Aws, ftm: Ftm) -> None:
    put_manifest(ready, WAITS)
    put(ready, layout.RunRef(WAITS, RUN).manifest_key, b"")
    ftm("run-quarter", WAITS, "--yes", "--detach")

    ftm("resume", WAITS, "--yes", exit_code=5)


@pytest.mark.parametrize(
    ("span", "sentence"),
    [
        ("2023Q1..2022Q4", "runs backwards: write 2022Q4..2023Q1"),
        ("2023Q1..2023Q5", "'2023Q5' is not a quarter"),
        ("2023Q1..", "'' is not a quarter"),
        ("1900Q1..2099Q4", "has 800 quarters: a range has at most 200"),
    ],
)
def test_an_invalid_span_of_quarters_is_rejected(ftm: Ftm, span: str, sentence: str) -> None:
    assert sentence in ftm("run-quarters", span, "--yes", exit_code=2).stderr


def test_several_quarters_are_one_execution(ready: Aws, ftm: Ftm) -> None:
    put_manifest(ready, "2022Q4")

    arn = ftm("run-quarters", f"2022Q4..{Q}", "--at-once", "2", "--batch-size", "5", "--yes", "--detach").stdout.strip()

    execution = ready.client("stepfunctions").describe_execution(executionArn=arn)
    assert json.loads(execution["input"]) == {
        "quarters": [{"quarter": quarter, "bucket": BUCKET, "batch_size": 5} for quarter in ("2022Q4", Q)],
        "at_once": 2,
    }


def test_quarters_of_a_list_are_reserved_until_they_run(ready: Aws, ftm: Ftm) -> None:
    arn = ftm("run-quarters", Q, "--yes", "--detach").stdout.strip()

    assert arn.rsplit(":")[-1] in ftm("run-quarter", Q, "--yes", exit_code=5).stderr
    assert arn.rsplit(":")[-1] in ftm("run-quarters", Q, "--yes", exit_code=5).stderr
    assert f"stopped {arn}" in ftm("stop", "--yes").stdout
    wait_until_none_runs(ready)
    assert "the execution was stopped" in ftm("watch", exit_code=1).stderr


def test_a_list_with_a_quarter_without_prefetch_starts_nothing(ready: Aws, ftm: Ftm) -> None:
    assert "2022Q4 has no prefetch" in ftm("run-quarters", f"2022Q4..{Q}", "--yes", exit_code=3).stderr
    assert "no list" in ftm("watch", exit_code=3).stderr


def test_the_shell_completes_run_ids(ready: Aws, ftm: Ftm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_FTM_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", f"ftm resume {Q} 2023")
    monkeypatch.setenv("COMP_CWORD", "3")

    assert ftm().stdout.split() == [RUN]
