"""Processes that run in place of containers: each in its own session, and none outlives the embedded AWS."""

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

# The child waits for a line before it executes its command. It gets the line once the guard knows its pid; if the
# embedded AWS dies before that, the child reads the end of its input and exits.
_ONCE_GUARDED = 'read -r _ || exit 1; exec "$@"'


class Children:
    """Starts processes. When it is closed, or this process dies, the remaining ones are killed.

    Their files belong in the directory `scratch`, which is removed at the same time.
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
        """Start `command` with its standard output and error in one pipe, unbuffered on this side.

        Its standard input stays open for the caller. The caller must wait for the process and then call `ended`.
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
        assert process.stdin  # noqa: S101 - opened as a pipe
        try:
            self._notify_guard(f"+{process.pid}")
            process.stdin.write(b"\n")
        except OSError:  # the embedded AWS is being stopped, or the child has already ended
            kill_group(process, signal.SIGKILL)
        return process

    def ended(self, process: subprocess.Popen[bytes]) -> None:
        """Clean up after `process`, which the caller has waited for: kill its own children and close its pipes."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        for pipe in (process.stdin, process.stdout):
            if pipe:
                with contextlib.suppress(OSError):
                    pipe.close()
        with contextlib.suppress(OSError):
            self._notify_guard(f"-{process.pid}")

    def close(self) -> None:
        """Kill every remaining child with its process group."""
        with self._lock, contextlib.suppress(OSError):
            assert self._guard.stdin  # noqa: S101 - opened as a pipe
            self._guard.stdin.close()
        self._guard.wait()

    def _notify_guard(self, line: str) -> None:
        with self._lock:
            assert self._guard.stdin  # noqa: S101 - opened as a pipe
            if self._guard.stdin.closed:
                raise BrokenPipeError
            self._guard.stdin.write(f"{line}\n")
            self._guard.stdin.flush()


def kill_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to a child and all of its children, unless it has been waited for."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
