"""The daemon of `ftm local`, with small programs in a copy of the project; tests/end_to_end have the real program."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pytest

from contract.project import find_project
from local import daemon, state
from local.daemon import Options
from local.deploy.deployment import Deployment
from local.fake_vllm.alb import LocalAlb
from local.fake_vllm.server import MODEL, FakeVllm
from local.state import LocalError, LocalState
from testing.processes import until

SMALL = "import pulumi\npulumi.export('model', pulumi.Config('ftm').get('vllmServedModelName'))\n"


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The test's own daemon directory. At the end, no process of the daemon may remain."""
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


@pytest.mark.faults
def test_after_a_killed_daemon_up_starts_a_new_one(
    program: Callable[[str], None], directory: Path, survives: Callable[..., None]
):
    program(SMALL)
    first = daemon.up().state
    s3_of(first).create_bucket(Bucket="lost")
    os.kill(first.pid, signal.SIGKILL)
    until(lambda: state.running_pid() is None)
    assert state.read() is None
    assert daemon.status() == daemon.Status(None, stale=True)
    until(lambda: processes_of(directory) == [])
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


def test_a_record_of_another_version_is_reported_and_down_still_works(directory: Path):
    hold = "from local import state; import time; print(state.hold(), flush=True); time.sleep(100)"
    with subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "True\n"
        (directory / "state.json").write_text('{"pid": 1, "former": true}')
        with pytest.raises(
            LocalError, match="written by another version of ftm: run `ftm local down`, then `ftm local up`"
        ):
            daemon.status()
        assert daemon.down() == daemon.Down(holder.pid, stale=False)


def test_concurrent_starts_give_one_daemon_with_the_given_port_and_llm_and_a_log(
    program: Callable[[str], None], directory: Path
):
    program("import time; time.sleep(1)\n" + SMALL + "print('hello from the program')\npulumi.log.warn('careful')\n")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    real = LocalAlb(FakeVllm(), lambda: True)
    real.start()
    try:
        options = Options(port=port, llm_url=f"http://{real.address}/v1")
        with ThreadPoolExecutor() as threads:
            both = [threads.submit(daemon.up, options) for _ in range(2)]
            errors = [error for future in both if (error := future.exception())]
    finally:
        real.stop()
    started, *others = [future.result().state for future in both if not future.exception()]
    assert others in ([], [started])
    assert all("already being started" in str(error) for error in errors)
    assert sum("-m local " in command for command in processes_of(directory)) == 1
    assert started.endpoint == f"http://127.0.0.1:{port}"
    assert started.llm == state.Llm(MODEL, fake=False, url=options.llm_url or "")
    assert started.outputs == {"model": MODEL}
    log = state.log_path().read_text()
    assert "hello from the program" in log
    assert "careful" in log


def test_a_broken_program_is_reported_in_one_sentence_and_leaves_nothing_running(
    program: Callable[[str], None], directory: Path
):
    program("raise ValueError('no\\nway')")
    with pytest.raises(LocalError, match=r"^the program __main__\.py failed: ValueError: no way$"):
        daemon.up()
    assert daemon.status() == daemon.Status(None, stale=False)
    until(lambda: processes_of(directory) == [])


def test_a_deployment_that_ends_without_a_result_is_reported_with_its_exit_code(program: Callable[[str], None]):
    program("import os; os._exit(7)")
    with pytest.raises(LocalError, match=r"^the deployment ended with exit code 7 and no output"):
        Deployment("local", {}).finish("http://127.0.0.1:9", "127.0.0.1:9")


def test_a_port_in_use_is_reported_in_one_sentence(program: Callable[[str], None], directory: Path):
    program(SMALL)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(LocalError, match=rf"^port {port} of 127\.0\.0\.1 is in use"):
            daemon.up(Options(port=port))
    until(lambda: processes_of(directory) == [])


def test_an_llm_that_does_not_answer_is_reported_in_one_sentence(program: Callable[[str], None], directory: Path):
    program(SMALL)
    with pytest.raises(LocalError, match=r"^the LLM server at http://127\.0\.0\.1:9 does not answer"):
        daemon.up(Options(llm_url="http://127.0.0.1:9"))
    until(lambda: processes_of(directory) == [])


def test_down_ends_a_daemon_that_is_still_deploying(program: Callable[[str], None], directory: Path):
    program("import time; time.sleep(1000)")
    with ThreadPoolExecutor() as threads:
        starting = threads.submit(daemon.up)
        pid = until(state.running_pid)
        until(lambda: any("local.deploy.deployment" in command for command in processes_of(directory)))
        assert daemon.status() == daemon.Status(None, stale=False)
        assert daemon.down() == daemon.Down(pid, stale=False)
        with pytest.raises(LocalError, match="ended before it was ready"):
            starting.result()
    until(lambda: processes_of(directory) == [])
