"""`ftm` when HTTP requests to S3 fail: a persistent fault is reported as one of S3, and later calls succeed."""

import math
from collections.abc import Iterator

import pytest

from contract import layout
from testing.faulty_s3 import Fault, FaultyS3, faulty_s3
from testing.virtual_time import virtual_time

from .conftest import BUCKET, RUN, SUCCEEDS, Aws, Ftm, make_vllm_healthy, put_manifest, put_run, register

Q = SUCCEEDS
RECORD = layout.RunRef(Q, RUN).progress_key(layout.batch_id(Q, 0))
PART = layout.RunRef(Q, RUN).part_key(layout.batch_id(Q, 0), 0, "a")


@pytest.fixture
def proxy(aws: Aws) -> Iterator[FaultyS3]:
    """The stack with a prefetch, a run and vLLM up, which `ftm` reaches through a proxy."""
    make_vllm_healthy(aws)
    put_manifest(aws, Q)
    put_run(aws, Q)
    with faulty_s3(aws.endpoint) as server, virtual_time():
        register(Aws(server.url, aws.outputs))
        yield server


def executions(aws: Aws) -> int:
    machine = aws.outputs["state_machine_arn"]
    return len(aws.client("stepfunctions").list_executions(stateMachineArn=machine)["executions"])


@pytest.mark.parametrize("fault", ["lost", "answer"])
def test_a_run_starts_although_the_answer_to_its_claim_is_lost_or_slow(
    aws: Aws, proxy: FaultyS3, ftm: Ftm, fault: Fault
) -> None:
    rule = proxy.fail("PUT", "claim.json", fault)

    ftm("run-quarter", Q, "--yes")

    assert rule.times == 0
    assert executions(aws) == 1


@pytest.mark.parametrize("fault", ["answer", "cut and reset"])
@pytest.mark.parametrize(
    ("command", "key"),
    [
        (("run-quarter", Q, "--yes"), layout.prefetch_manifest_key(Q)),
        (("status", Q), RECORD),
        (("topics", Q), PART),
    ],
)
def test_a_fault_that_persists_is_reported_as_that_of_s3_and_passes(
    aws: Aws, proxy: FaultyS3, ftm: Ftm, command: tuple[str, ...], key: str, fault: Fault
) -> None:
    rule = proxy.fail("GET", key.rpartition("=")[2], fault, math.inf)  # "=" is encoded in paths

    failed = ftm(*command, exit_code=3)

    (sentence,) = failed.stderr.strip().splitlines()
    assert f"S3 failed to read s3://{BUCKET}/{key} for" in sentence
    assert sentence.endswith("; try again later")
    assert not executions(aws)

    proxy.rules.remove(rule)
    ftm(*command)
