"""`ftm watch`: lost connections, runs that have ended, and the reasons for a stalled run."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.exceptions import HTTPClientError, ResponseStreamingError
from botocore.stub import Stubber

from cli.errors import explain, is_temporary
from cli.services import quarters, retries, runs
from cli.services.executions import Execution
from cli.services.runs import RunSnapshot
from contract import layout
from contract.batch import BatchLine, BatchProgress, Pace
from contract.exit_codes import ExitCode

from .conftest import (
    BUCKET,
    FAILS,
    RUN,
    SUCCEEDS,
    WAITS,
    Aws,
    Ftm,
    make_vllm_healthy,
    put_manifest,
    register,
    running_executions,
    summary,
)
from .test_vllm import answer


class Proxy:
    """Forwards connections to moto, or drops them."""

    def __init__(self, target: str) -> None:
        self._target = (urlsplit(target).hostname, urlsplit(target).port)
        self._server = socket.create_server(("127.0.0.1", 0))
        self.drops = False
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._server.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._server.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._target) as server:
            back = threading.Thread(target=self._pump, args=(server, client), daemon=True)
            back.start()
            self._pump(client, server)
            with suppress(OSError):
                server.shutdown(socket.SHUT_WR)
            back.join()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if self.drops:
                    for end in (source, sink):
                        end.shutdown(socket.SHUT_RDWR)
                    return
                sink.sendall(data)


class Clock:
    """A clock that advances only while the command waits; calls `on_wait` with the number of each wait."""

    def __init__(self, seconds: float, on_wait: Callable[[int], None]) -> None:
        self._now, self._seconds, self._waits, self._on_wait = 0.0, seconds, 0, on_wait

    def monotonic(self) -> float:
        return self._now

    def sleep(self, _seconds: float) -> None:
        self._now += self._seconds
        self._waits += 1
        self._on_wait(self._waits)


@pytest.fixture
def proxy(aws: Aws) -> Iterator[Proxy]:
    """A proxy between `ftm` and moto during a run of WAITS."""
    make_vllm_healthy(aws)
    put_manifest(aws, WAITS)
    proxy = Proxy(aws.endpoint)
    register(replace(aws, endpoint=proxy.url))
    yield proxy
    proxy.close()


def use_clock(monkeypatch: pytest.MonkeyPatch, seconds: float, on_wait: Callable[[int], None]) -> None:
    clock = Clock(seconds, on_wait)
    monkeypatch.setattr(retries, "time", clock)
    monkeypatch.setattr(runs, "time", clock)


def stop_all(aws: Aws) -> None:
    for arn in running_executions(aws):
        aws.client("stepfunctions").stop_execution(executionArn=arn)


def test_watch_reconnects_after_a_dropped_connection(
    aws: Aws, ftm: Ftm, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def on_wait(number: int) -> None:
        proxy.drops = number in (1, 2)
        if number == 4:
            stop_all(aws)

    ftm("run-quarter", WAITS, "--yes", "--detach")
    use_clock(monkeypatch, 1.0, on_wait)

    result = ftm("watch", WAITS, "--json", exit_code=1)

    assert json.loads(result.stdout)["status"] == "ABORTED"
    assert f"{proxy.url} does not answer" in result.stderr
    assert "trying again for another 20 seconds" in result.stderr
    assert "AWS answers again" in result.stderr


def test_watch_exits_6_when_the_connection_stays_lost(
    aws: Aws, ftm: Ftm, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def on_wait(_number: int) -> None:
        proxy.drops = True

    ftm("run-quarter", WAITS, "--yes", "--detach")
    use_clock(monkeypatch, 15.0, on_wait)

    result = ftm("watch", WAITS, "--json", exit_code=6)

    assert json.loads(result.stdout)["status"] == "UNKNOWN"
    assert f"lost the connection to {WAITS}" in result.stderr
    assert f"The run continues; watch it again with `ftm --stack local watch {WAITS}`" in result.stderr
    assert len(running_executions(aws)) == 1


def test_a_lost_list_of_quarters_is_reported_as_it_was_last_seen() -> None:
    began = datetime.now(UTC)

    def execution(quarter: str, status: str) -> Execution:
        return Execution("arn", "run", status, began, None, {"quarter": quarter}, {}, "", "")

    states = {SUCCEEDS: "SUCCEEDED", FAILS: "FAILED", WAITS: "RUNNING"}
    seen = {quarter: RunSnapshot(execution(quarter, status)) for quarter, status in states.items()}

    document = quarters.report_unknown(quarters.QuartersSnapshot(execution("", "RUNNING"), list(states), seen))

    assert document["status"] == "UNKNOWN"
    assert [one["status"] for one in document["quarters"]] == ["SUCCEEDED", "FAILED", "UNKNOWN"]
    assert document["failed"] == [FAILS]


@pytest.mark.parametrize("error", [HTTPClientError(error=OSError("reset")), ResponseStreamingError(error="cut")])
def test_errors_of_botocore_without_a_response_become_sentences(error: Exception) -> None:
    sentence, code = explain(error)

    assert "AWS does not answer: check the network" in sentence
    assert code == ExitCode.NOT_FOUND
    assert is_temporary(error)


@pytest.mark.parametrize(
    ("code", "status", "temporary"),
    [
        ("ExpiredToken", 400, True),
        ("SlowDown", 503, True),
        ("ThrottlingException", 400, True),
        ("InternalError", 500, True),
        ("AccessDenied", 403, False),
        ("NoSuchBucket", 404, False),
    ],
)
def test_which_errors_of_aws_are_temporary(code: str, status: int, temporary: bool) -> None:
    s3 = boto3.client("s3", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
    with Stubber(s3) as stub:
        stub.add_client_error("get_object", code, "because.", http_status_code=status)
        with pytest.raises(s3.exceptions.ClientError) as refused:
            s3.get_object(Bucket="b", Key="k")

    assert is_temporary(refused.value) == temporary


def test_watching_an_ended_run_prints_its_report(aws: Aws, ftm: Ftm) -> None:
    make_vllm_healthy(aws)
    put_manifest(aws, FAILS)
    ftm("run-quarter", FAILS, "--yes", exit_code=1)

    result = ftm("watch", FAILS, exit_code=1)

    assert f"{FAILS} FAILED in" in result.stdout
    assert "1 of 2 batches failed" in result.stdout
    assert "run-quarter" not in result.stderr


@pytest.mark.parametrize(("failed", "exit_code"), [(False, 0), (True, 1)])
def test_a_run_that_step_functions_has_deleted_is_read_from_the_bucket(
    aws: Aws, ftm: Ftm, failed: bool, exit_code: int
) -> None:
    put_record(aws, SUCCEEDS, failed=failed)

    report = json.loads(ftm("watch", SUCCEEDS, "--json", exit_code=exit_code).stdout)

    assert report["status"] == ("FAILED" if failed else "SUCCEEDED")
    assert report["message"] == ("1 of 2 batches failed" if failed else "")
    assert [failure["reason"] for failure in report["failures"]] == (["the worker gave up"] if failed else [])


def test_the_json_document_of_a_failed_run_has_the_reason(aws: Aws, ftm: Ftm) -> None:
    make_vllm_healthy(aws)
    put_manifest(aws, FAILS)

    report = json.loads(ftm("run-quarter", FAILS, "--yes", "--json", exit_code=1).stdout)

    assert report["message"] == "1 of 2 batches failed"
    assert report["failures"][0]["batch_id"] == f"{FAILS}_batch_0001"


def test_the_conflict_names_commands_that_work(aws: Aws, ftm: Ftm) -> None:
    make_vllm_healthy(aws)
    put_manifest(aws, WAITS)
    ftm("run-quarter", WAITS, "--yes", "--detach")

    refused = ftm("run-quarter", WAITS, "--yes", "--json", exit_code=5)

    message = json.loads(refused.stdout)["error"]["message"]
    assert f"`ftm --stack local watch {WAITS}`" in message
    assert f"`ftm --stack local stop {WAITS}`" in message
    assert json.loads(ftm("stop", WAITS, "--yes", "--json").stdout)["stopped"] is True


def put_record(aws: Aws, quarter: str, *, failed: bool, **changes: Any) -> None:
    """Write the record of a run that Step Functions has already deleted."""
    record = {
        "quarter": quarter,
        "run": RUN,
        "execution": f"arn:aws:states:us-east-1:123456789012:execution:m:{RUN}-{quarter}-alice-3f9a",
        "finished_at": "2023-04-05T10:25:00+00:00",
        "summary": summary(quarter, failed),
        "batches": [],
    }
    s3, body = aws.client("s3"), json.dumps(record | changes)
    s3.put_object(Bucket=BUCKET, Key=layout.RunRef(quarter, RUN).summary_key, Body=body)
    s3.put_object(Bucket=BUCKET, Key=layout.RunRef(quarter, RUN).manifest_key, Body=b"")


@pytest.mark.parametrize(("hours_left", "warns"), [(20, True), (11, False)])
def test_a_batch_that_will_not_be_done_at_its_jobs_time_limit(
    aws: Aws, ftm: Ftm, monkeypatch: pytest.MonkeyPatch, hours_left: int, warns: bool
) -> None:
    make_vllm_healthy(aws)
    put_manifest(aws, WAITS)
    ftm("run-quarter", WAITS, "--yes", "--detach")
    ref, batch, now = layout.RunRef(WAITS, RUN), "a", datetime.now(UTC)  # of the batches that conftest's machine lists
    pace = Pace(in_flight=2, topics_per_minute=5, seconds_left=hours_left * 3600, rate_limited=7)
    record = BatchProgress(batch, ref, firms=500, updated_at=now.isoformat(), pace=pace)
    s3 = aws.client("s3")
    s3.put_object(Bucket=BUCKET, Key=ref.manifest_key, Body=BatchLine(batch, WAITS, ["F0"]).to_json().encode())
    s3.put_object(Bucket=BUCKET, Key=ref.progress_key(batch), Body=record.to_json())
    job = {
        "jobId": "1",
        "jobName": f"ftm-local-{RUN}-{batch}",
        "status": "RUNNING",
        "startedAt": round((now - timedelta(minutes=2)).timestamp() * 1000),
        "timeout": {"attemptDurationSeconds": 12 * 3600},
    }
    listed = {"RUNNING": [{"jobId": "1", "jobName": job["jobName"]}]}
    answers = {
        "ListJobs": lambda asked: {"jobSummaryList": listed.get(asked["jobStatus"], [])},
        "DescribeJobs": {"jobs": [job]},
    }
    answer(monkeypatch, answers)

    wait_for_manifest(ftm)
    shown = ftm("status", WAITS)

    warning = f"{batch} will need about 8:02 hours more than its job's time limit allows, at 5 topics a minute"
    assert (warning in shown.stderr) == warns
    assert f"\t2\t{hours_left}:00:00\t" in shown.stdout
    assert (warning in json.loads(ftm("status", WAITS, "--json").stdout)["overrun"]) == warns
    ftm("stop", WAITS, "--yes")


def wait_for_manifest(ftm: Ftm) -> None:
    """moto executes the states before the batches in a thread."""
    deadline = time.monotonic() + 60
    while json.loads(ftm("status", WAITS, "--json").stdout)["report"]["status"] != "RUNNING":
        assert time.monotonic() < deadline
        time.sleep(0.05)
