"""How much processor time `ftm --help` and `ftm --version` take, over that of `aws --version` of the AWS CLI.

The three run in turn, so that a busy machine slows all of them alike, from the environment of this interpreter.
"""

import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

AT_MOST = 0.4
"""The ratio that `ftm --help` keeps."""

_REPETITIONS = 15
_COMMANDS = (("aws", "--version"), ("ftm", "--help"), ("ftm", "--version"))


def available() -> bool:
    """Whether the AWS CLI is installed beside this interpreter."""
    return _path("aws").exists()


def measure() -> list[dict[str, Any]]:
    """The median of each command's processor time in seconds, and its ratio to that of the AWS CLI."""
    for command in _COMMANDS:  # the first start compiles
        _seconds(*command)
    times: dict[tuple[str, str], list[float]] = {command: [] for command in _COMMANDS}
    for _ in range(_REPETITIONS):
        for command in _COMMANDS:
            times[command].append(_seconds(*command))
    medians = {command: median(seconds) for command, seconds in times.items()}
    reference = medians[_COMMANDS[0]]
    return [
        {
            "command": " ".join(command),
            "CPU s": round(seconds, 3),
            "ratio": round(seconds / reference, 2),
            "at most": "" if command == _COMMANDS[0] else AT_MOST,
        }
        for command, seconds in medians.items()
    ]


def _seconds(program: str, option: str) -> float:
    """The processor time of one process, in user and kernel mode."""
    process = subprocess.Popen([_path(program), option], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, f"{program} {option} ended with {process.returncode}"
    return usage.ru_utime + usage.ru_stime


def _path(program: str) -> Path:
    return Path(sys.executable).with_name(program)
