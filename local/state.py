"""What a running daemon tells the outside: where its AWS answers, and what the stack `local` exports.

Light, since the CLI imports it on every call: standard library only.
"""

import fcntl
import json
import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
"""The project: where `__main__.py` and `Pulumi.yaml` are."""

STACK = "local"
REGION = "us-east-1"
ACCOUNT = "123456789012"

ACCESS_KEY = SECRET_KEY = "local"  # noqa: S105 - the embedded AWS accepts any
"""What clients of the embedded AWS sign with."""


class LocalError(Exception):
    """Something that went wrong with the embedded AWS, in one sentence for a person."""


@dataclass(frozen=True)
class Llm:
    """The server behind the local load balancer."""

    model: str
    stand_in: bool
    url: str = ""
    """The real server's base URL; empty for the stand-in."""


@dataclass(frozen=True)
class LocalState:
    """A daemon that runs."""

    pid: int
    stack: str
    endpoint: str
    """Where every AWS API answers: `http://127.0.0.1:<port>`."""
    region: str
    outputs: dict[str, Any]
    """The stack's exports."""
    llm: Llm
    started_at: str
    """UTC, ISO 8601."""


def directory() -> Path:
    """Where daemon, state and logs are: `$FTM_LOCAL_DIR`, or `.ftm` in the project. Git ignores what is in it."""
    return Path(os.environ.get("FTM_LOCAL_DIR") or ROOT / ".ftm").absolute()


def read() -> LocalState | None:
    """The daemon that runs and is ready, or None. What a dead one left behind does not count.

    Raises:
        LocalError: when its record is one of another version of ftm.
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
        raise LocalError(f"{_path()} is of another version of ftm: `ftm local down`, then `ftm local up`") from error
    return state if state.pid == pid else None


def is_stale() -> bool:
    """Whether a daemon left its record behind without ending as it should."""
    return _path().exists() and running_pid() is None


def running_pid() -> int | None:
    """The daemon that holds the directory, ready or still starting; None when none does.

    The lock tells: the kernel frees it however the daemon ends, while a pid may be somebody else's by then.
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
    """Take the directory for this process, until its very end; False when a daemon holds it."""
    path = directory()
    path.mkdir(parents=True, exist_ok=True)
    (path / ".gitignore").write_text("*\n")
    lock = os.open(_lock_path(), os.O_RDWR | os.O_CREAT)  # never closed: the kernel does it when the process has ended
    if not _lock_alone(lock):
        os.close(lock)
        return False
    remove()
    os.ftruncate(lock, 0)
    os.write(lock, str(os.getpid()).encode())
    return True


def write(state: LocalState) -> None:
    """Record the daemon; whoever reads sees the whole record or none."""
    half = _path().with_suffix(".half")
    half.write_text(json.dumps(asdict(state), indent=2))
    half.replace(_path())


def remove() -> None:
    """Forget the daemon."""
    with suppress(FileNotFoundError, NotADirectoryError):
        _path().unlink()


def log_path() -> Path:
    """What the daemon says while nobody listens."""
    return directory() / "daemon.log"


def _lock_alone(lock: int) -> bool:
    """Whether the lock could be had; readers, who ask whether a daemon runs, share it for a moment."""
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
