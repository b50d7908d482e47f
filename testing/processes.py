"""Other processes: whether they are alive, and waiting for what they do."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def until(read: Callable[[], T], done: Callable[[T], bool] = bool, seconds: float = 120) -> T:
    """Call `read` until `done` accepts its result, by default a true one, and return that result."""
    deadline = time.monotonic() + seconds
    while not done(value := read()):
        assert time.monotonic() < deadline, f"not done after {seconds} s: {value}"
        time.sleep(0.02)
    return value


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except OSError:
        return False
