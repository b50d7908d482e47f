"""The process that kills the embedded AWS's children when it dies, however it dies.

It reads `+PID` and `-PID` lines, the leaders of process groups that started and ended, and at the end of its input
kills those that are left and removes their directory, its only argument. A pipe closes even when its writer was
killed, on Linux and macOS alike.
"""

import contextlib
import os
import shutil
import signal
import sys


def main() -> None:
    groups: set[int] = set()
    for line in sys.stdin:
        pid = int(line[1:])
        if line.startswith("+"):
            groups.add(pid)
        else:
            groups.discard(pid)
    for pid in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
    shutil.rmtree(sys.argv[1], ignore_errors=True)


if __name__ == "__main__":
    main()
