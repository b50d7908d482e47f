"""Starts and stops the daemon that is the embedded AWS, with the stack `local` deployed to it.

Light, since the CLI imports it: everything heavy is in the daemon's own process, `python -m local`. That process says
one line of JSON when it is ready or has failed, and from then on only logs.
"""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TextIO

from local import state
from local.state import LocalError, LocalState

_PATIENCE = 20
"""Seconds that the daemon gets to end its processes before it is killed."""


@dataclass(frozen=True)
class Up:
    state: LocalState
    already: bool
    """It ran before; what was asked for now (a port, an LLM) had no effect."""


@dataclass(frozen=True)
class Status:
    state: LocalState | None
    stale: bool
    """A daemon ended without cleaning up: killed, or the machine restarted."""


@dataclass(frozen=True)
class Down:
    pid: int | None
    """The daemon that was stopped; None when none ran."""
    stale: bool
    """None ran, but one had left its state behind."""


def up(port: int = 0, llm_url: str | None = None) -> Up:
    """Start the daemon and return when the stack is deployed; one that runs already is left as it is.

    Args:
        port: Where AWS's APIs answer on the loopback; 0 is any free one.
        llm_url: The base URL of a real OpenAI-compatible server to use instead of the stand-in.

    Raises:
        LocalError: when it cannot start (port in use, LLM silent, program broken); no process is left then.
    """
    if running := state.read():
        return Up(running, already=True)
    process = _start(port, llm_url)
    try:
        assert process.stdout  # noqa: S101 - a pipe was asked for
        said = process.stdout.readline()
    except BaseException:  # Ctrl-C: nothing may be left behind
        process.terminate()
        process.wait()
        raise
    if error := _error_in(said):
        process.wait()
        raise LocalError(error)
    started = state.read()
    if started is None:
        raise LocalError(f"the daemon ended as soon as it was ready: see {state.log_path()}")
    return Up(started, already=False)


def status() -> Status:
    """Whether a daemon runs, and what it says of itself."""
    running = state.read()
    return Status(running, stale=running is None and state.is_stale())


def down() -> Down:
    """Stop the daemon with all its jobs and functions, also one that is only starting. Its buckets are gone then.

    Raises:
        LocalError: when it does not end, even killed.
    """
    pid = state.running_pid()
    if pid is None:
        stale = state.is_stale()
        state.remove()
        return Down(None, stale)
    for number in (signal.SIGTERM, signal.SIGKILL):
        os.kill(pid, number)
        if _ended():
            state.remove()
            return Down(pid, stale=False)
    raise LocalError(f"the daemon (pid {pid}) does not end")


def _start(port: int, llm_url: str | None) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "local", "--port", str(port)]
    if llm_url:
        command += ["--llm-url", llm_url]
    # The operator's AWS settings are for the real one.
    env = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    env["FTM_LOCAL_DIR"] = str(state.directory())
    with _open_log() as log:
        return subprocess.Popen(
            command,
            cwd=state.ROOT,
            env=env,
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
        raise LocalError(f"{directory} cannot be used ({error.strerror}): name another by FTM_LOCAL_DIR") from error


def _error_in(said: str) -> str:
    """Why the daemon did not become ready; empty when it did."""
    if not said:
        return f"the embedded AWS ended before it was ready: see {state.log_path()}"
    return str(json.loads(said).get("error") or "")


def _ended() -> bool:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        if state.running_pid() is None:
            return True
        time.sleep(0.05)
    return False
