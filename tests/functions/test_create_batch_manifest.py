import gzip
import json
import os
import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest

from contract import ContractError, layout
from contract.batch import Part, parse_batch_line
from contract.run import MAX_BATCHES, MAX_FIRMS
from contract.topic_names import NameUse
from testing.aws_server import aws_server, s3_client
from tests.functions.conftest import BUCKET, EXECUTION, QUARTER, RUN, Bucket, prefetch_manifest

STARTED_AT = "2023-04-05T10:15:00.123Z"
TWO_CHUNKS = {f"F{n}": f"chunk_{n % 2:04d}.parquet" for n in range(10)}


@pytest.fixture
def create(modules: dict[str, ModuleType], s3: Any) -> ModuleType:
    return modules["create_batch_manifest"]


def ask(create: ModuleType, execution: str = EXECUTION, **changes: Any) -> Any:
    run_input = {"quarter": QUARTER, "bucket": BUCKET, **changes}
    return create.handler({"input": run_input, "execution": execution, "started_at": STARTED_AT}, None)


def lines(bucket: Bucket, manifest: dict[str, Any]) -> list[Any]:
    return [parse_batch_line(line) for line in bucket.get(manifest["manifest_key"]).splitlines()]


def test_every_firm_is_in_one_batch_and_only_batch_ids_are_returned(create: ModuleType, bucket: Bucket) -> None:
    bucket.put_prefetch(TWO_CHUNKS)
    manifest = ask(create, batch_size=4)
    assert manifest == {
        "run": RUN,
        "manifest_key": f"manifests/{QUARTER}/manifest_{RUN}.jsonl",
        "firms": 10,
        "batch_size": 4,
        "batch_ids": ["2023Q1_batch_0000", "2023Q1_batch_0001", "2023Q1_batch_0002"],
    }
    written = lines(bucket, manifest)
    assert [line.batch_id for line in written] == manifest["batch_ids"]
    assert [len(line.firm_ids) for line in written] == [4, 4, 2]
    firms = [firm for line in written for firm in line.firm_ids]
    assert sorted(firms) == sorted(TWO_CHUNKS)


def test_firms_of_one_chunk_share_a_batch(create: ModuleType, bucket: Bucket) -> None:
    bucket.put_prefetch(TWO_CHUNKS)
    first, second = lines(bucket, ask(create, batch_size=5))
    assert {TWO_CHUNKS[firm] for firm in first.firm_ids} == {"chunk_0000.parquet"}
    assert {TWO_CHUNKS[firm] for firm in second.firm_ids} == {"chunk_0001.parquet"}


def test_a_gzip_manifest_is_read(create: ModuleType, bucket: Bucket) -> None:
    bucket.put_prefetch(TWO_CHUNKS)
    bucket.put(layout.prefetch_manifest_key(QUARTER), gzip.compress(json.dumps(prefetch_manifest(TWO_CHUNKS)).encode()))
    assert ask(create)["firms"] == 10


def test_a_retry_gets_the_same_run_and_another_execution_the_next_second(create: ModuleType, bucket: Bucket) -> None:
    bucket.put_prefetch(TWO_CHUNKS)
    assert ask(create)["run"] == RUN
    assert ask(create)["run"] == RUN
    assert ask(create, execution=f"{EXECUTION}-two")["run"] == "20230405_101501"
    assert ask(create, execution=f"{EXECUTION}-two")["run"] == "20230405_101501"
    assert len([key for key in bucket.keys() if key.startswith("manifests/")]) == 2  # noqa: SIM118


def test_the_batch_size_is_enlarged_and_reported_when_there_are_too_many_batches(
    create: ModuleType, bucket: Bucket
) -> None:
    bucket.put_prefetch({f"F{n}": "chunk_0000.parquet" for n in range(2 * MAX_BATCHES + 1)})
    manifest = ask(create, batch_size=1)
    assert manifest["batch_size"] == 3
    assert len(manifest["batch_ids"]) <= MAX_BATCHES
    assert manifest["note"] == (
        "4001 firms in batches of 1 would be 4001 batches, more than the 2000 that one run can hold: "
        "they are processed in batches of 3."
    )


@pytest.mark.parametrize(
    ("firm_to_chunk", "changes", "words"),
    [
        ({}, {}, "names no firm"),
        (TWO_CHUNKS, {"n_firms": 11}, "says n_firms = 11, but names 10"),
        (TWO_CHUNKS, {"quarter": "2022Q4"}, "is of quarter '2022Q4', not 2023Q1"),
        (TWO_CHUNKS, {"chunk_sizes": {"chunk_0000.parquet": 5}, "n_chunks": 1}, "which chunk_sizes lacks"),
        ({"A/B": "chunk_0000.parquet"}, {}, "'A/B' (3 characters) cannot be a firm id"),
        ({'A"B': "chunk_0000.parquet"}, {}, "cannot be a firm id"),
        ({"A\nB": "chunk_0000.parquet"}, {}, "cannot be a firm id"),
        ({"": "chunk_0000.parquet"}, {}, "'' (0 characters) cannot be a firm id"),
        ({"A" * 10_000: "chunk_0000.parquet"}, {}, "(10000 characters) cannot be a firm id"),
        ({"A": "../other.parquet"}, {}, "which is not beside it"),
    ],
)
def test_an_invalid_prefetch_is_rejected_and_nothing_is_written(
    create: ModuleType, bucket: Bucket, firm_to_chunk: dict[str, str], changes: dict[str, Any], words: str
) -> None:
    bucket.put_prefetch(firm_to_chunk, **changes)
    with pytest.raises(ContractError) as refusal:
        ask(create)
    assert words in str(refusal.value)
    assert len(str(refusal.value)) < 500
    assert not [key for key in bucket.keys() if key.startswith("manifests/")]  # noqa: SIM118


def test_a_duplicate_firm_is_rejected(create: ModuleType, bucket: Bucket) -> None:
    text = json.dumps(prefetch_manifest({"A": "chunk_0000.parquet", "B": "chunk_0000.parquet"})).replace('"B"', '"A"')
    bucket.put(layout.prefetch_manifest_key(QUARTER), text)
    with pytest.raises(ContractError, match="names 'A' twice"):
        ask(create)


def test_a_missing_chunk_is_rejected(create: ModuleType, bucket: Bucket) -> None:
    bucket.put_prefetch(TWO_CHUNKS)
    bucket.delete(layout.chunk_key(QUARTER, "chunk_0001.parquet"))
    with pytest.raises(ContractError, match=r"names the chunk 'chunk_0001\.parquet', which is not beside it"):
        ask(create)


@pytest.mark.parametrize(
    "body", [b"", b"\x1f\x8bnot gzip", gzip.compress(b"{}" * 99, mtime=0)[:-9], b"[1]", b"{", b"\xff"]
)
def test_a_manifest_that_is_not_json_is_rejected(create: ModuleType, bucket: Bucket, body: bytes) -> None:
    bucket.put(layout.prefetch_manifest_key(QUARTER), body)
    with pytest.raises(ContractError, match="the prefetch manifest"):
        ask(create)


def test_more_firms_than_one_run_can_hold_are_rejected_with_the_limit(create: ModuleType, bucket: Bucket) -> None:
    bucket.put_prefetch({f"F{n}": "chunk_0000.parquet" for n in range(MAX_FIRMS + 1)})
    with pytest.raises(ContractError, match="names 200001 firms: one run takes at most 200000 firms"):
        ask(create)


def test_a_gzip_bomb_is_not_decompressed(create: ModuleType, bucket: Bucket) -> None:
    bucket.put(layout.prefetch_manifest_key(QUARTER), gzip.compress(b" " * 2**26))
    with pytest.raises(ContractError, match="larger than 32 MiB"):
        ask(create)


def test_resuming_returns_only_incomplete_batches(create: ModuleType, bucket: Bucket) -> None:
    bucket.put_run(batches=5)
    running = bucket.complete(bucket.lines[1])
    running.state = "running"
    bucket.put_progress(running)
    bucket.delete(bucket.progress_key("2023Q1_batch_0002"))
    bucket.delete(bucket.ref.part_key("2023Q1_batch_0004", 0, "a"))
    assert ask(create, resume=RUN) == {
        "run": RUN,
        "manifest_key": f"manifests/{QUARTER}/manifest_{RUN}.jsonl",
        "firms": 6,
        "batch_size": 2,
        "batch_ids": ["2023Q1_batch_0001", "2023Q1_batch_0002", "2023Q1_batch_0004"],
    }


def test_resuming_a_complete_run_returns_no_batches(create: ModuleType, bucket: Bucket) -> None:
    bucket.put_run()
    assert ask(create, resume=RUN)["batch_ids"] == []


def test_resuming_an_unknown_run_is_rejected(create: ModuleType) -> None:
    with pytest.raises(ContractError, match=f"2023Q1 has no run {RUN}"):
        ask(create, resume=RUN)


def test_resuming_a_run_that_lacks_names_returns_the_batches_that_lack_them(create: ModuleType, bucket: Bucket) -> None:
    bucket.put_run(batches=4)
    complete = [bucket.complete(line) for line in bucket.lines]
    complete[1].completed["F1_0"].named = 3
    (part,) = complete[2].parts.values()
    complete[2].parts[next(iter(complete[2].parts))] = Part(part.etag, part.rows, {"pricing": NameUse(topics=2)})
    for progress in complete:
        bucket.put_progress(progress)
    assert ask(create, resume=RUN)["batch_ids"] == []  # it was never counted

    bucket.put(bucket.ref.summary_key, json.dumps({"summary": {"repair": {"repeated_names": ["pricing"]}}}))
    assert ask(create, resume=RUN)["batch_ids"] == ["2023Q1_batch_0001", "2023Q1_batch_0002"]


def test_the_model_is_recorded_and_another_one_is_refused(
    create: ModuleType, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM_MODEL_NAME", "qwen3-8b")
    bucket.put_prefetch({"A": "chunk_0000.parquet", "B": "chunk_0000.parquet"})
    manifest = ask(create, batch_size=1)
    assert [line.model for line in lines(bucket, manifest)] == ["qwen3-8b", "qwen3-8b"]
    run = manifest["run"]
    assert len(ask(create, resume=run)["batch_ids"]) == 2

    monkeypatch.setenv("LLM_MODEL_NAME", "smollm2")
    with pytest.raises(
        ContractError, match="began with the model qwen3-8b, and the stack now has smollm2: `ftm resume"
    ):
        ask(create, resume=run)
    assert [line.model for line in lines(bucket, manifest)] == ["qwen3-8b", "qwen3-8b"]

    assert len(ask(create, resume=run, model_change=True)["batch_ids"]) == 2
    assert [line.model for line in lines(bucket, manifest)] == ["smollm2", "smollm2"]
    assert [line.firm_ids for line in lines(bucket, manifest)] == [["A"], ["B"]]
    ask(create, resume=run)


MEASURE = r"""
import json, re, sys, time
from pathlib import Path
from functions.create_batch_manifest import handler
began = time.process_time()
manifest = handler(json.loads(sys.argv[1]), None)
seconds = time.process_time() - began
# Not ru_maxrss, which begins with what the parent had when it forked.
megabytes = int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024
print(json.dumps({"firms": manifest["firms"], "batches": len(manifest["batch_ids"]),
                  "seconds": seconds, "megabytes": megabytes}))
"""


def test_the_largest_run_fits_into_the_limits_of_the_function() -> None:
    firms = MAX_FIRMS
    manifest = prefetch_manifest({f"{n:064d}": f"chunk_{n // 20_000:04d}.parquet" for n in range(firms)})
    event = {"input": {"quarter": QUARTER, "bucket": BUCKET}, "execution": EXECUTION, "started_at": STARTED_AT}
    with aws_server() as aws:
        s3 = s3_client(aws["AWS_ENDPOINT_URL"])
        s3.create_bucket(Bucket=BUCKET)
        s3.put_object(Bucket=BUCKET, Key=layout.prefetch_manifest_key(QUARTER), Body=json.dumps(manifest))
        for chunk in manifest["chunk_sizes"]:
            s3.put_object(Bucket=BUCKET, Key=layout.chunk_key(QUARTER, chunk))
        command = [sys.executable, "-c", MEASURE, json.dumps(event)]
        done = subprocess.run(command, env={**os.environ, **aws}, capture_output=True, text=True, check=True)
    measured = json.loads(done.stdout)
    assert measured["firms"] == firms
    assert measured["batches"] == firms // 1000
    assert measured["megabytes"] < 256
    assert measured["seconds"] < 10
