"""The exit codes of `ftm`, and of the processes in `evaluation` that it starts and whose codes it passes on."""

from enum import IntEnum


class ExitCode(IntEnum):
    """The help text of `ftm` and the guide list them."""

    DONE = 0
    FAILED = 1
    """The run failed, or another error without its own code."""
    USAGE = 2
    """The command line or the input is invalid."""
    NOT_FOUND = 3
    """The stack, quarter, run or firm does not exist, or a service is not running."""
    DENIED = 4
    """Credentials are missing or expired, or lack a permission."""
    CONFLICT = 5
    """Something that is already running prevents it."""
    LOST_CONNECTION = 6
    """AWS could not be reached for minutes while watching; the run itself continues."""
    INTERRUPTED = 130
    """Ctrl-C, or a question was answered with no; the code that shells use for SIGINT."""
