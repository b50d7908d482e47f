"""The record of a running daemon: where its AWS answers, and what the stack `local` exports.

The CLI imports this module on every call on the stack `local`, so it uses the standard library only.
"""

import fcntl
import json
import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from contract import env
from contract.project import find_project
from contract.resource_names import EMBEDDED_ACCOUNT, LOCAL_STACK

STACK = LOCAL_STACK
REGION = "us-east-1"
ACCOUNT = EMBEDDED_ACCOUNT

ACCESS_KEY = SECRET_KEY = "local"  # noqa: S105 - the embedded AWS accepts any
"""The credentials that clients of the embedded AWS sign with."""


class LocalError(Exception):
    """The embedded AWS failed; the message is one sentence for a person."""


@dataclass(frozen=True)
class Llm:
    """The server behind the local load balancer."""

    model: str
    fake: bool
    """Whether it is the fake vLLM."""
    url: str = ""
    """The real server's base URL; empty for the fake vLLM."""


@dataclass(frozen=True)
class LocalState:
    """A running daemon."""

    pid: int
    stack: str
    endpoint: str
    """URL of every AWS API: `http://127.0.0.1:<port>`."""
    region: str
    outputs: dict[str, Any]
    """The stack's exports."""
    llm: Llm
    started_at: str
    """UTC, ISO 8601."""


def directory() -> Path:
    """The folder of the daemon's state and logs: `$FTM_LOCAL_DIR`, or `.ftm` in the project. Git ignores it.

    Raises:
        ContractError: if neither FTM_LOCAL_DIR nor a project is known.
    """
    given = os.environ.get(env.FTM_LOCAL_DIR)
    return Path(given).absolute() if given else find_project() / ".ftm"


def read() -> LocalState | None:
    """The daemon that is running and ready, or None. The record of a daemon that has died is ignored.

    Raises:
        LocalError: if the record was written by another version of ftm.
    """
    pid = running_pid()
    if pid is None:
        return None
    try:
        record = json.loads(_path().read_text())
        state = LocalState(**{**record, "llm": Llm(**record["llm"])})
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, LookupError) as error:
        raise LocalError(
            f"{_path()} was written by another version of ftm: run `ftm local down`, then `ftm local up`"
        ) from error
    return state if state.pid == pid else None


def is_stale() -> bool:
    """Whether a daemon died and left its record behind."""
    return _path().exists() and running_pid() is None


def running_pid() -> int | None:
    """The process id of the daemon that holds the directory, ready or still starting; None if there is none.

    The lock decides, since the kernel releases it however the daemon ends; the recorded pid alone may have been reused
    by another process.
    """
    try:
        with _lock_path().open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except BlockingIOError:
        return int(_lock_path().read_text() or 0) or None


def hold() -> bool:
    """Lock the directory for this process until it ends; return False if another daemon holds it."""
    path = directory()
    path.mkdir(parents=True, exist_ok=True)
    (path / ".gitignore").write_text("*\n")
    lock = os.open(_lock_path(), os.O_RDWR | os.O_CREAT)  # never closed: the kernel releases it when the process ends
    if not _lock_exclusively(lock):
        os.close(lock)
        return False
    remove()
    os.ftruncate(lock, 0)
    os.write(lock, str(os.getpid()).encode())
    return True


def write(state: LocalState) -> None:
    """Record the daemon, atomically."""
    half = _path().with_suffix(".half")
    half.write_text(json.dumps(asdict(state), indent=2))
    half.replace(_path())


def remove() -> None:
    """Delete the record."""
    with suppress(FileNotFoundError, NotADirectoryError):
        _path().unlink()


def log_path() -> Path:
    """The daemon's log."""
    return directory() / "daemon.log"


def _lock_exclusively(lock: int) -> bool:
    """Take the lock; retries briefly, since `running_pid` shares it for a moment."""
    for _ in range(20):
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(0.01)
    return False


def _path() -> Path:
    return directory() / "state.json"


def _lock_path() -> Path:
    return directory() / "daemon.lock"
