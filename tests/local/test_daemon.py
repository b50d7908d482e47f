"""The daemon of `ftm local`, with the real Pulumi program and with small programs in a copy of the project."""

import json
import os
import shutil
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pytest

from contract.project import find_project
from local import daemon, state
from local.daemon import Options
from local.fake_vllm.alb import LocalAlb
from local.fake_vllm.server import MODEL, FakeVllm
from local.state import LocalError, LocalState

SMALL = "import pulumi\npulumi.export('model', pulumi.Config('ftm').get('vllmServedModelName'))\n"


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The test's own daemon directory. At the end, no process of the daemon may be left."""
    directory = tmp_path / "daemon"
    monkeypatch.setenv("FTM_LOCAL_DIR", str(directory))
    yield directory
    daemon.down()
    assert processes_of(directory) == []


@pytest.fixture
def program(tmp_path: Path, directory: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Use a copy of the project with another `__main__.py`; return a function that writes that file."""
    root = tmp_path / "project"
    shutil.copytree(find_project() / "local", root / "local", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "Pulumi.yaml").write_text("name: ftm\nruntime: python\n")
    (root / "Pulumi.local.yaml").write_text("config: {}\n")
    monkeypatch.setenv("FTM_PROJECT", str(root))

    def write(source: str) -> None:
        (root / "__main__.py").write_text(source)

    return write


def s3_of(stack: LocalState) -> Any:
    return boto3.client("s3", endpoint_url=stack.endpoint, aws_access_key_id="x", aws_secret_access_key="x")


def processes_of(directory: Path) -> list[str]:
    """The command lines of all processes of the daemon with this directory."""
    mark = f"FTM_LOCAL_DIR={directory}".encode()
    return [
        command
        for pid in pids()
        if pid != os.getpid() and mark in read(pid, "environ").split(b"\0")
        for command in [read(pid, "cmdline").replace(b"\0", b" ").decode()]
        if command
    ]


def pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").glob("[0-9]*")]


def read(pid: int, what: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{what}").read_bytes()
    except OSError:
        return b""


def is_alive(pid: int) -> bool:
    return read(pid, "cmdline") != b""


def wait_for(done: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 60
    while not (value := done()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return value


def client(running: LocalState, service: str) -> Any:
    session: Any = boto3.Session(state.ACCESS_KEY, state.SECRET_KEY, region_name=running.region)
    return session.client(service, endpoint_url=running.endpoint)


def status_of(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_the_real_program_from_up_to_down(directory: Path, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as settings:
        settings.setenv("AWS_PROFILE", "nobody")  # the daemon ignores the operator's AWS settings
        up = daemon.up()
    outputs = up.state.outputs
    assert not up.already
    assert up.state.llm == state.Llm(MODEL, fake=True)
    assert outputs.keys() >= {
        "bucket",
        "state_machine_arn",
        "job_queue_arn",
        "job_definition_arn",
        "vllm_cluster_name",
        "vllm_service_name",
        "vllm_asg_name",
        "vllm_target_group_arn",
        "vllm_base_url",
        "vllm_log_group",
        "batch_log_group",
        "region",
    }
    assert all(outputs.values())
    assert (directory / ".gitignore").read_text() == "*\n"

    again = daemon.up(Options(port=1, llm_url="http://127.0.0.1:9"))
    assert again.already
    assert again.state == up.state == state.read()
    assert daemon.status() == daemon.Status(up.state, stale=False)

    check_vllm_follows_the_gpu_group(up.state)
    job = start_job(up.state)
    assert daemon.down() == daemon.Down(up.state.pid, stale=False)
    assert not is_alive(up.state.pid)
    wait_for(lambda: not is_alive(job))
    assert daemon.status() == daemon.Status(None, stale=False)
    assert daemon.down() == daemon.Down(None, stale=False)


def check_vllm_follows_the_gpu_group(running: LocalState) -> None:
    """Check that vLLM answers only while both the group and the service are scaled above zero."""
    outputs = running.outputs
    health = outputs["vllm_base_url"].removesuffix("/v1") + "/health"
    group, cluster, service = (outputs[key] for key in ("vllm_asg_name", "vllm_cluster_name", "vllm_service_name"))
    scaling, ecs = client(running, "autoscaling"), client(running, "ecs")
    assert status_of(health) == 503
    scaling.set_desired_capacity(AutoScalingGroupName=group, DesiredCapacity=1)
    assert status_of(health) == 503
    ecs.update_service(cluster=cluster, service=service, desiredCount=1)
    assert status_of(health) == 200
    with urllib.request.urlopen(f"{outputs['vllm_base_url']}/models", timeout=10) as answer:  # noqa: S310
        assert json.load(answer)["data"][0]["id"] == running.llm.model
    scaling.set_desired_capacity(AutoScalingGroupName=group, DesiredCapacity=0)
    assert status_of(health) == 503


def start_job(running: LocalState) -> int:
    """Start a Batch job that keeps running; return its pid."""
    batch = client(running, "batch")
    job = batch.submit_job(
        jobName="long",
        jobQueue=running.outputs["job_queue_arn"],
        jobDefinition=running.outputs["job_definition_arn"],
        containerOverrides={"command": ["sleep", "1000"]},
    )["jobId"]

    def described() -> dict[str, Any]:
        return batch.describe_jobs(jobs=[job])["jobs"][0]

    wait_for(lambda: described()["status"] == "RUNNING")
    pid = int(described()["container"]["taskArn"].rpartition("pid-")[2])
    assert is_alive(pid)
    return pid


@pytest.mark.faults
def test_after_a_killed_daemon_up_starts_a_new_one(
    program: Callable[[str], None], directory: Path, survives: Callable[..., None]
):
    program(SMALL)
    first = daemon.up().state
    s3_of(first).create_bucket(Bucket="lost")
    os.kill(first.pid, signal.SIGKILL)
    wait_for(lambda: state.running_pid() is None)
    assert state.read() is None
    assert daemon.status() == daemon.Status(None, stale=True)
    wait_for(lambda: processes_of(directory) == [])
    second = daemon.up()
    assert not second.already
    assert second.state.pid != first.pid
    assert daemon.status() == daemon.Status(second.state, stale=False)
    assert s3_of(second.state).list_buckets()["Buckets"] == []
    outcome = "no process is left; the next `ftm local up` deploys the same outputs to an empty AWS"
    survives("daemon killed", 1, first.outputs.items(), second.state.outputs.items(), outcome)


def test_a_record_whose_pid_now_belongs_to_another_process_is_ignored(directory: Path):
    directory.mkdir()
    foreign = LocalState(os.getpid(), "local", "http://127.0.0.1:1", "us-east-1", {}, state.Llm("m", True), "")
    state.write(foreign)
    assert state.read() is None
    assert daemon.status().stale
    assert daemon.down() == daemon.Down(None, stale=True)
    assert not daemon.status().stale


def test_an_unusable_directory_is_reported_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("FTM_LOCAL_DIR", str(tmp_path / "file" / "inside"))
    with pytest.raises(
        LocalError, match=r"file/inside cannot be used \(Not a directory\): set FTM_LOCAL_DIR to another folder"
    ):
        daemon.up()
    assert daemon.status() == daemon.Status(None, stale=False)


def test_a_record_of_another_version_is_reported_and_down_still_works(program: Callable[[str], None]):
    program(SMALL)
    started = daemon.up().state
    (state.directory() / "state.json").write_text('{"pid": 1, "former": true}')
    with pytest.raises(
        LocalError, match="written by another version of ftm: run `ftm local down`, then `ftm local up`"
    ):
        daemon.status()
    assert daemon.down() == daemon.Down(started.pid, stale=False)


def test_up_uses_the_given_port_and_llm_and_logs_what_the_program_prints(program: Callable[[str], None]):
    program(SMALL + "print('hello from the program')\npulumi.log.warn('careful')\n")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    real = LocalAlb(FakeVllm(), lambda: True)
    real.start()
    try:
        url = f"http://{real.address}/v1"
        started = daemon.up(Options(port=port, llm_url=url)).state
    finally:
        real.stop()
    assert started.endpoint == f"http://127.0.0.1:{port}"
    assert started.llm == state.Llm(MODEL, fake=False, url=url)
    assert started.outputs == {"model": MODEL}
    log = state.log_path().read_text()
    assert "hello from the program" in log
    assert "careful" in log


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("raise ValueError('no\\nway')", r"^the program __main__\.py failed: ValueError: no way$"),
        ("import os; os._exit(7)", r"^the deployment ended with exit code 7 and no output"),
        (
            "import pulumi_aws as aws; aws.sqs.Queue('letters')",
            r"^the program could not create letters \(aws:sqs/queue:Queue\): the embedded AWS does not support ",
        ),
    ],
)
def test_a_broken_program_is_reported_in_one_sentence_and_leaves_nothing_running(
    program: Callable[[str], None], directory: Path, source: str, sentence: str
):
    program(source)
    with pytest.raises(LocalError, match=sentence) as error:
        daemon.up()
    assert "\n" not in str(error.value)
    assert daemon.status() == daemon.Status(None, stale=False)
    wait_for(lambda: processes_of(directory) == [])


def test_a_port_in_use_is_reported_in_one_sentence(program: Callable[[str], None], directory: Path):
    program(SMALL)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(LocalError, match=rf"^port {port} of 127\.0\.0\.1 is in use"):
            daemon.up(Options(port=port))
    wait_for(lambda: processes_of(directory) == [])


def test_an_llm_that_does_not_answer_is_reported_in_one_sentence(program: Callable[[str], None], directory: Path):
    program(SMALL)
    with pytest.raises(LocalError, match=r"^the LLM server at http://127\.0\.0\.1:9 does not answer"):
        daemon.up(Options(llm_url="http://127.0.0.1:9"))
    wait_for(lambda: processes_of(directory) == [])


def test_down_ends_a_daemon_that_is_still_deploying(program: Callable[[str], None], directory: Path):
    program("import time; time.sleep(1000)")
    with ThreadPoolExecutor() as threads:
        starting = threads.submit(daemon.up)
        pid = wait_for(state.running_pid)
        wait_for(lambda: any("local.deploy.deployment" in command for command in processes_of(directory)))
        assert daemon.status() == daemon.Status(None, stale=False)
        assert daemon.down() == daemon.Down(pid, stale=False)
        with pytest.raises(LocalError, match="ended before it was ready"):
            starting.result()
    wait_for(lambda: processes_of(directory) == [])


def test_two_concurrent_starts_give_one_daemon(program: Callable[[str], None], directory: Path):
    program("import time; time.sleep(1)\n" + SMALL)
    with ThreadPoolExecutor() as threads:
        both = [threads.submit(daemon.up) for _ in range(2)]
        errors = [error for future in both if (error := future.exception())]
    started = {future.result().state.pid for future in both if not future.exception()}
    assert len(started) == 1
    assert all("already being started" in str(error) for error in errors)
    assert sum("-m local " in command for command in processes_of(directory)) == 1
