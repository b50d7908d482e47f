"""Runs `ftm` in its own process on a terminal of a given width, as a person sees it."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from dataclasses import dataclass

_COMMAND = [
    sys.executable,
    "-c",
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from cli.main import main; main()",
]


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
        keys: What the person types at a prompt.
    """
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    inherited = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "CI")}
    process = subprocess.Popen(
        [*_COMMAND, *arguments],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**inherited, "TERM": "xterm-256color", **environment},
        start_new_session=True,
        # Makes Ctrl-C a signal. It is a single system call, which is safe after a fork with threads.
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509
    )
    os.close(slave)
    shown, pressed, deadline = b"", "", time.monotonic() + _SECONDS
    while True:
        if not select.select([master], [], [], 1)[0]:
            if pressed == CTRL_C:
                # Between printing the prompt and waiting for keys, Python notices only a second signal.
                os.write(master, pressed.encode())
            if time.monotonic() > deadline:
                process.kill()
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
    return Screen(shown.decode(errors="replace").replace("\r\n", "\n"), process.wait())
