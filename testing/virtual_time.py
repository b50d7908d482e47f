"""Virtual time: `time.sleep` returns immediately and advances `time.monotonic`."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from unittest.mock import patch

_monotonic = time.monotonic


@dataclass
class VirtualTime:
    slept: float = 0.0
    """Seconds slept, in all threads."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self.slept += seconds

    def now(self) -> float:
        return _monotonic() + self.slept


@contextmanager
def virtual_time() -> Iterator[VirtualTime]:
    """Use virtual time in this process, for code that calls them as `time.sleep` and `time.monotonic`."""
    clock = VirtualTime()
    with patch("time.sleep", clock.sleep), patch("time.monotonic", clock.now):
        yield clock
