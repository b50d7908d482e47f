"""The process that kills the embedded AWS's children when the embedded AWS ends, in whatever way.

It reads lines `+PID` and `-PID` for process groups that have started and ended. At the end of its input it kills the
remaining groups and removes their directory, its only argument. This works on Linux and macOS alike, since a pipe is
closed even when its writer is killed.
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
