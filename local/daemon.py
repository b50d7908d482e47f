"""Starts and stops the daemon: the embedded AWS with the stack `local` deployed to it.

The CLI imports this module, so everything heavy is in the daemon's own process, `python -m local`. That process prints
one line of JSON when it is ready or has failed; after that it only writes to its log.
"""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TextIO
from urllib.parse import urlsplit

from contract import env
from contract.project import find_project
from local import state
from local.state import LocalError, LocalState

_KILL_GRACE_SECONDS = 20
"""Time between SIGTERM and SIGKILL, in which the daemon ends its processes."""


@dataclass(frozen=True)
class Options:
    """What `ftm local up` can choose; None leaves the choice to the daemon."""

    port: int | None = None
    """Port of the AWS APIs on the loopback; any free port by default."""
    llm_url: str | None = None
    """Base URL of a real OpenAI-compatible server; the fake vLLM by default."""
    llm_model: str | None = None
    """The real server's model to use; its only chat model by default."""

    def differences(self, running: LocalState) -> list[str]:
        """The options in which a running daemon differs, each with the daemon's current value."""
        llm, port = running.llm, urlsplit(running.endpoint).port
        found: list[str] = []
        if self.port and self.port != port:
            found.append(f"--port {self.port} (it is {port})")
        if self.llm_url and _without_version(self.llm_url) != _without_version(llm.url):
            found.append(f"--llm-url {self.llm_url} (it is {'the fake vLLM' if llm.fake else llm.url})")
        if self.llm_model and self.llm_model not in (llm.model, llm.model.removesuffix(":latest")):
            found.append(f"--llm-model {self.llm_model} (it is {llm.model})")
        return found


@dataclass(frozen=True)
class Up:
    state: LocalState
    already: bool
    """Whether the daemon was running before."""


@dataclass(frozen=True)
class Status:
    state: LocalState | None
    stale: bool
    """Whether a daemon died without cleaning up: it was killed, or the machine restarted."""


@dataclass(frozen=True)
class Down:
    pid: int | None
    """The daemon that was stopped; None if none was running."""
    stale: bool
    """Whether none was running, but a dead one had left its record behind."""


def up(options: Options | None = None) -> Up:
    """Start the daemon and wait until the stack is deployed; a daemon that is already running is left unchanged.

    Raises:
        LocalError: if it cannot start (port in use, LLM server unreachable, program broken); no process is left behind.
        ContractError: if there is no checkout whose program could be deployed.
    """
    if running := state.read():
        return Up(running, already=True)
    process = _start(options or Options())
    try:
        assert process.stdout  # noqa: S101 - opened as a pipe
        line = process.stdout.readline()
    except BaseException:  # on Ctrl-C nothing may be left behind
        process.terminate()
        process.wait()
        raise
    if error := _error_in(line):
        process.wait()
        raise LocalError(error)
    started = state.read()
    if started is None:
        raise LocalError(f"the daemon ended right after it became ready: see {state.log_path()}")
    return Up(started, already=False)


def status() -> Status:
    """Whether a daemon is running, and its record."""
    running = state.read()
    return Status(running, stale=running is None and state.is_stale())


def down() -> Down:
    """Stop the daemon, ready or starting, with all its jobs and functions. Everything in its AWS is lost.

    Raises:
        LocalError: if it survives SIGKILL.
    """
    pid = state.running_pid()
    if pid is None:
        stale = state.is_stale()
        state.remove()
        return Down(None, stale)
    for number in (signal.SIGTERM, signal.SIGKILL):
        os.kill(pid, number)
        if _has_ended():
            state.remove()
            return Down(pid, stale=False)
    raise LocalError(f"the daemon (pid {pid}) does not end")


def _start(options: Options) -> subprocess.Popen[str]:
    project = find_project()
    if find_spec("moto") is None or find_spec("pulumi") is None:
        raise LocalError("the embedded AWS is not installed: run `pip install -e '.[local]'` in the checkout of ftm")
    command = [sys.executable, "-m", "local", "--port", str(options.port or 0)]
    if options.llm_url:
        command += ["--llm-url", options.llm_url]
    if options.llm_model:
        command += ["--llm-model", options.llm_model]
    # The operator's AWS_* variables are meant for the real AWS.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment |= {env.FTM_LOCAL_DIR: str(state.directory()), env.FTM_PROJECT: str(project)}
    with _open_log() as log:
        return subprocess.Popen(
            command,
            cwd=project,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
            text=True,
        )


def _open_log() -> TextIO:
    try:
        state.directory().mkdir(parents=True, exist_ok=True)
        return state.log_path().open("w")
    except OSError as error:
        directory = state.directory()
        raise LocalError(
            f"{directory} cannot be used ({error.strerror}): set {env.FTM_LOCAL_DIR} to another folder"
        ) from error


def _error_in(line: str) -> str:
    """Why the daemon did not become ready; empty if it did."""
    if not line:
        return f"the embedded AWS ended before it was ready: see {state.log_path()}"
    return str(json.loads(line).get("error") or "")


def _without_version(url: str) -> str:
    return url.rstrip("/").removesuffix("/v1")


def _has_ended() -> bool:
    deadline = time.monotonic() + _KILL_GRACE_SECONDS
    while time.monotonic() < deadline:
        if state.running_pid() is None:
            return True
        time.sleep(0.05)
    return False
