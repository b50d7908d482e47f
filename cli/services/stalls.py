"""Why a run makes no progress: no host, no vLLM, or what its workers last logged."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime

from cli.services import vllm
from cli.stack import Stack
from contract.batch import LLM_OUTAGE_SECONDS

QUIET_SECONDS = 90.0
"""Workers write a checkpoint more often than this, unless something is wrong or the firms are very long."""

_ASK_SECONDS = 15.0
"""Interval between queries of vLLM and the logs while a run makes no progress."""


class StallFinder:
    """Finds the cause when there has been no progress for `QUIET_SECONDS`."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._cause = ""
        self._asked_at = float("-inf")

    def find(self, last_progress: datetime | None, log_streams: Mapping[str, str], jobs: int) -> str:
        """One sentence, or nothing while the run makes progress.

        Args:
            last_progress: when a worker last wrote a checkpoint or started.
            log_streams: of the batches whose workers run; an empty name until there is a first line.
            jobs: how many jobs have not ended.
        """
        if not jobs:
            return ""
        if not log_streams:
            return "its only job waits for a host" if jobs == 1 else f"all {jobs} jobs wait for a host"
        quiet = (datetime.now(UTC) - last_progress).total_seconds() if last_progress else 0.0
        if quiet < QUIET_SECONDS:
            return ""
        if time.monotonic() - self._asked_at >= _ASK_SECONDS:
            self._asked_at = time.monotonic()
            self._cause = "; ".join(filter(None, [self._vllm(), self._last_line(log_streams)]))
        return f"no progress for {quiet / 60:.0f} minutes{f': {self._cause}' if self._cause else ''}"

    def _vllm(self) -> str:
        if not vllm.is_part_of(self._stack):
            return ""
        found = vllm.status(self._stack)
        if found.healthy:
            return f"vLLM is healthy on {found.healthy} of {found.desired} GPUs"
        return (
            f"vLLM is not healthy (0 of {found.desired}), and the workers give up {LLM_OUTAGE_SECONDS // 60} minutes "
            "after it went away"
        )

    def _last_line(self, log_streams: Mapping[str, str]) -> str:
        """The last line of the first worker that has logged one."""
        for batch_id, stream in sorted(log_streams.items()):
            if line := last_line(self._stack, stream):
                return f"{batch_id} last logged: {line}"
        return ""


def last_line(stack: Stack, stream: str) -> str:
    """The last line in a worker's log stream; empty when there is none yet."""
    if not stream:
        return ""
    try:
        events = stack.logs.get_log_events(logGroupName=stack.output("batch_log_group"), logStreamName=stream, limit=1)[
            "events"
        ]
    except stack.logs.exceptions.ResourceNotFoundException:
        return ""
    return events[-1].get("message", "").strip() if events else ""
