"""Repeats calls for commands that watch AWS, while AWS is temporarily unreachable."""

import time
from collections.abc import Callable
from typing import TypeVar

from cli.errors import CliError, explain, is_temporary
from cli.stack import Stack
from contract.exit_codes import ExitCode

T = TypeVar("T")

RETRY_SECONDS = 600.0
"""How long calls are repeated: enough to log in again, or for the network to recover."""

_LOCAL_RETRY_SECONDS = 20.0
"""For the embedded AWS, which does not come back."""

_REMINDER_SECONDS = 60.0


class LostConnectionError(CliError):
    """AWS could not be reached for `RETRY_SECONDS`; what is watched continues."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence, ExitCode.LOST_CONNECTION)


class Retries:
    """Repeats calls that fail for a temporary reason.

    Args:
        on_problem: called with a sentence when calls begin to fail, once a minute while they do, and when they work
            again.
    """

    def __init__(self, stack: Stack, on_problem: Callable[[str], None]) -> None:
        self._stack = stack
        self._on_problem = on_problem
        self._limit = _LOCAL_RETRY_SECONDS if stack.endpoint else RETRY_SECONDS
        self._failing_since: float | None = None
        self._reported_at = 0.0

    def call(self, function: Callable[[], T]) -> T:
        """The result of `function`, called again as long as it fails for a temporary reason.

        Raises:
            LostConnectionError: when it has failed for `RETRY_SECONDS`.
        """
        while True:
            try:
                result = function()
            except Exception as error:
                if not is_temporary(error):
                    raise
                self._wait(error)
                continue
            if self._failing_since is not None:
                self._failing_since = None
                self._on_problem("AWS answers again")
            return result

    def _wait(self, error: Exception) -> None:
        now, (sentence, _) = time.monotonic(), explain(error)
        if self._failing_since is None:
            self._failing_since, self._reported_at = now, now - _REMINDER_SECONDS
        left = self._failing_since + self._limit - now
        if left <= 0:
            raise LostConnectionError(sentence) from error
        if now - self._reported_at >= _REMINDER_SECONDS:
            self._reported_at = now
            self._on_problem(f"{sentence}; trying again for another {max(left, 1):.0f} seconds")
        self._stack.forget_clients()
        time.sleep(self._stack.poll_interval)
