"""The functions with an S3 that fails at the HTTP level: they repeat requests, and report lasting faults as S3's."""

import json
import math
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import boto3
import pytest
from botocore.config import Config

from contract import layout
from contract.bucket import CLIENT_OPTIONS, S3UnavailableError
from testing.aws_server import aws_server, s3_client
from testing.faulty_s3 import Fault, FaultyS3, faulty_s3
from testing.virtual_time import VirtualTime, virtual_time
from tests.functions.conftest import BUCKET, EXECUTION, QUARTER, RUN, Bucket

RECORD = f"progress/{QUARTER}/{RUN}/{QUARTER}_batch_0001.json"
PREFETCH = f"{QUARTER}/manifest.json"
BROKEN_BODIES: tuple[Fault, ...] = ("cut", "cut and reset", "stall", "reset")


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    with aws_server() as environment:
        yield environment["AWS_ENDPOINT_URL"]


@pytest.fixture
def time_passes() -> Iterator[VirtualTime]:
    with virtual_time() as clock:
        yield clock


@pytest.fixture
def proxy(
    modules: dict[str, ModuleType], moto: str, time_passes: VirtualTime, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FaultyS3]:
    """A proxy between the functions and S3. Their client is configured as deployed, with a shorter timeout."""
    from functions import storage

    monkeypatch.setenv("JOB_QUEUE_ARN", "arn:aws:batch:us-east-1:123456789012:job-queue/none")
    monkeypatch.setenv("JOB_NAME_PREFIX", "ftm")
    with faulty_s3(moto) as server:
        config = Config(**{**CLIENT_OPTIONS, "read_timeout": 0.3})
        monkeypatch.setattr(storage, "s3", boto3.client("s3", endpoint_url=server.url, config=config))
        yield server


@pytest.fixture(scope="module")
def written(moto: str) -> Bucket:
    """A quarter with a prefetch and a run whose batches are all complete, written without faults."""
    bucket = Bucket(s3_client(moto))
    bucket.s3.create_bucket(Bucket=BUCKET)
    bucket.put_prefetch({f"F{n}": f"chunk_{n % 2:04d}.parquet" for n in range(10)})
    bucket.put_run(batches=3)
    return bucket


@pytest.fixture
def quarter(written: Bucket, proxy: FaultyS3) -> Iterator[Bucket]:
    """The same quarter for each test: what the function writes is deleted again."""
    before = written.keys()
    yield written
    for key in set(written.keys()).difference(before):
        written.delete(key)


def summarize(modules: dict[str, ModuleType], bucket: Bucket) -> Any:
    ids = [line.batch_id for line in bucket.lines]
    state = {
        "quarter": QUARTER,
        "bucket": BUCKET,
        "manifest": {"run": RUN, "batch_ids": ids},
        "batches": [{"batch_id": batch_id, "status": "SUCCEEDED"} for batch_id in ids],
    }
    return modules["summarize_results"].handler({"state": state, "execution": EXECUTION}, None)


def create(modules: dict[str, ModuleType], execution: str = EXECUTION) -> Any:
    event = {
        "input": {"quarter": QUARTER, "bucket": BUCKET},
        "execution": execution,
        "started_at": "2023-04-05T11:00:00Z",
    }
    return modules["create_batch_manifest"].handler(event, None)


@pytest.mark.parametrize("fault", BROKEN_BODIES)
def test_a_record_is_read_again_after_a_truncated_response(
    modules: dict[str, ModuleType], quarter: Bucket, proxy: FaultyS3, fault: Fault
) -> None:
    rule = proxy.fail("GET", RECORD, fault, times=2)
    summary = summarize(modules, quarter)
    assert (summary["has_failures"], rule.times) == (False, 0)


def test_forty_seconds_of_slow_down_are_survived(
    modules: dict[str, ModuleType], quarter: Bucket, proxy: FaultyS3, time_passes: VirtualTime
) -> None:
    rule = proxy.fail("GET", RECORD, "answer", math.inf)

    def until_forty_seconds_have_passed(method: str, path: str) -> bool:
        return "batch_0001" in path and time_passes.slept < 40

    rule.matches = until_forty_seconds_have_passed
    assert not summarize(modules, quarter)["has_failures"]
    assert time_passes.slept >= 40


@pytest.mark.parametrize("fault", [*BROKEN_BODIES, "answer"])
def test_a_lasting_fault_is_blamed_on_s3_and_not_on_the_batch(
    modules: dict[str, ModuleType], quarter: Bucket, proxy: FaultyS3, time_passes: VirtualTime, fault: Fault
) -> None:
    proxy.fail("GET", RECORD, fault, math.inf)
    with pytest.raises(S3UnavailableError) as error:
        summarize(modules, quarter)
    assert f"S3 failed to read s3://{BUCKET}/{RECORD} for" in str(error.value)
    assert str(error.value).endswith("; try again later")
    assert "None" not in str(error.value)
    assert layout.RunRef(QUARTER, RUN).summary_key not in quarter.keys()  # noqa: SIM118


def test_a_truncated_prefetch_manifest_is_read_again(
    modules: dict[str, ModuleType], quarter: Bucket, proxy: FaultyS3
) -> None:
    proxy.fail("GET", PREFETCH, "cut")
    assert create(modules)["firms"] == 10


def test_a_prefetch_manifest_that_stays_truncated_is_blamed_on_s3(
    modules: dict[str, ModuleType], quarter: Bucket, proxy: FaultyS3
) -> None:
    proxy.fail("GET", PREFETCH, "cut", math.inf)
    with pytest.raises(S3UnavailableError, match=r"its answer was not whole|the connection broke off"):
        create(modules)


@pytest.mark.parametrize("fault", ["cut", "cut and reset"])
def test_a_truncated_listing_is_requested_again(
    modules: dict[str, ModuleType], quarter: Bucket, proxy: FaultyS3, fault: Fault
) -> None:
    proxy.fail("GET", "list-type=2", fault)
    assert not summarize(modules, quarter)["has_failures"]


@pytest.mark.parametrize("fault", ["reset", "lost", "answer"])
def test_the_prefetch_check_is_repeated(
    modules: dict[str, ModuleType], quarter: Bucket, proxy: FaultyS3, fault: Fault
) -> None:
    check = modules["prefetch_check"].handler
    proxy.fail("HEAD", PREFETCH, fault, times=2)
    assert check({"quarter": QUARTER, "bucket": BUCKET}, None) == {"exists": True}
    proxy.fail("HEAD", PREFETCH, fault, math.inf)
    with pytest.raises(S3UnavailableError):
        check({"quarter": QUARTER, "bucket": BUCKET}, None)


def test_a_manifest_whose_response_was_lost_is_recognised_as_written(
    modules: dict[str, ModuleType], quarter: Bucket, proxy: FaultyS3
) -> None:
    proxy.fail("PUT", "manifest_", "lost")
    assert create(modules)["run"] == "20230405_110000"
    assert create(modules, execution=f"{EXECUTION}-two")["run"] == "20230405_110001"


def test_a_write_is_repeated_after_a_conflict(modules: dict[str, ModuleType], quarter: Bucket, proxy: FaultyS3) -> None:
    """S3 answers 409, and the other writer's object does not exist: HEAD would answer 404."""
    proxy.fail("PUT", "manifest_", "answer", status=409, code="ConditionalRequestConflict")
    assert create(modules)["run"] == "20230405_110000"


def test_a_latest_record_whose_response_was_lost_is_recognised_as_written(
    modules: dict[str, ModuleType], quarter: Bucket, proxy: FaultyS3
) -> None:
    proxy.fail("PUT", "latest.json", "lost")
    summarize(modules, quarter)
    assert json.loads(quarter.get(layout.latest_key(QUARTER)))["run"] == RUN
    assert sum("PUT" in request and "latest.json" in request for request in proxy.requests) == 2
