"""Runs `ftm` in a separate process: on a terminal of a given width, or with pipes.

The process is a fork of the test process, where everything is already imported.
"""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Mapping
from dataclasses import dataclass
from io import TextIOWrapper

from cli.main import main

CTRL_C = "\x03"
_SECONDS = 120
"""Seconds after which a process is killed."""


@dataclass(frozen=True)
class Screen:
    text: str
    """The output with its escape sequences."""
    exit_code: int

    @property
    def lines(self) -> list[str]:
        """The output without escape sequences."""
        return [line.rstrip() for line in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.text).splitlines()]


def on_terminal(*arguments: str, columns: int = 80, keys: str = "", **environment: str) -> Screen:
    """Run `ftm` on a terminal.

    Args:
        keys: The input at a prompt.
    """
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    inherited = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "CI")}
    environment = {**inherited, "TERM": "xterm-256color", **environment}
    process = _fork(arguments, (slave, slave, slave), environment, terminal=True)
    os.close(slave)
    shown, pressed, deadline = b"", "", time.monotonic() + _SECONDS
    while True:
        if not select.select([master], [], [], 1)[0]:
            if pressed == CTRL_C:
                # Between printing the prompt and waiting for keys, Python notices only a second signal.
                os.write(master, pressed.encode())
            if time.monotonic() > deadline:
                os.kill(process, signal.SIGKILL)
            continue
        try:
            chunk = os.read(master, 65536)
        except OSError:  # the last process with the other end has ended
            break
        if not chunk:
            break
        shown += chunk
        if keys and b"[y/N]: " in shown:
            os.write(master, keys.encode())
            keys, pressed = "", keys
    os.close(master)
    return Screen(shown.decode(errors="replace").replace("\r\n", "\n"), _wait(process))


@dataclass(frozen=True)
class Process:
    """`ftm` without a terminal. Its standard output must fit into a pipe's buffer."""

    pid: int
    stdout: TextIOWrapper
    stderr: TextIOWrapper

    def wait(self) -> int:
        """Return its exit code."""
        return _wait(self.pid)


def in_background(*arguments: str) -> Process:
    """Start `ftm` without waiting for its end."""
    (stdout, out), (stderr, err) = os.pipe(), os.pipe()
    nothing = os.open(os.devnull, os.O_RDONLY)
    pid = _fork(arguments, (nothing, out, err), os.environ)
    for end in (nothing, out, err):
        os.close(end)
    return Process(pid, os.fdopen(stdout), os.fdopen(stderr))


def _fork(
    arguments: tuple[str, ...], streams: tuple[int, int, int], environment: Mapping[str, str], *, terminal: bool = False
) -> int:
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        if terminal:
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # makes Ctrl-C a signal
        signal.signal(signal.SIGINT, signal.default_int_handler)  # background processes of a script ignore it
        sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w", 1)
        sys.argv = ["ftm", *arguments]
        variables = dict(environment)
        os.environ.clear()
        os.environ.update(variables)
        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _wait(process: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
