"""Processes that stand for containers: each in a session of its own, none outliving the embedded AWS."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

_GUARD = Path(__file__).with_name("child_guard.py")

# The child waits for a line before it becomes its command. It gets that line once the guard knows its pid; if the
# embedded AWS dies before, the child reads the end of its input and goes.
_ONCE_GUARDED = 'read -r _ || exit 1; exec "$@"'


class Children:
    """Starts processes. When it is closed, or this process dies, those that are left are killed.

    Their files go into the directory `scratch`, which is then removed.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.scratch = Path(tempfile.mkdtemp(prefix="embedded-aws-"))
        self._guard = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_GUARD), str(self.scratch)],
            stdin=subprocess.PIPE,
            start_new_session=True,
            text=True,
        )

    def start(self, command: Sequence[str], env: Mapping[str, str], cwd: Path) -> subprocess.Popen[bytes]:
        """Start `command`, whose standard output and error come out of one pipe, unbuffered on this side.

        Its standard input stays open for the caller. The caller waits for it and then calls `ended`.
        """
        process = subprocess.Popen(
            ["/bin/sh", "-c", _ONCE_GUARDED, command[0], *command],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=env,
            cwd=cwd,
            start_new_session=True,
        )
        assert process.stdin  # noqa: S101 - a pipe was asked for
        try:
            self._tell(f"+{process.pid}")
            process.stdin.write(b"\n")
        except OSError:  # the embedded AWS is being stopped, or the child is gone already
            kill_group(process, signal.SIGKILL)
        return process

    def ended(self, process: subprocess.Popen[bytes]) -> None:
        """End what is left of `process`, which has been waited for: its own children and its pipes."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        for pipe in (process.stdin, process.stdout):
            if pipe:
                with contextlib.suppress(OSError):
                    pipe.close()
        with contextlib.suppress(OSError):
            self._tell(f"-{process.pid}")

    def close(self) -> None:
        """Kill every child that is left, with its process group."""
        with self._lock, contextlib.suppress(OSError):
            assert self._guard.stdin  # noqa: S101 - a pipe was asked for
            self._guard.stdin.close()
        self._guard.wait()

    def _tell(self, line: str) -> None:
        with self._lock:
            assert self._guard.stdin  # noqa: S101 - a pipe was asked for
            if self._guard.stdin.closed:
                raise BrokenPipeError
            self._guard.stdin.write(f"{line}\n")
            self._guard.stdin.flush()


def kill_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to a child and all of its children, if it has not been waited for."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
