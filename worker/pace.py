"""How fast an attempt names topics, and when it will be done at that speed."""

import datetime as dt
from collections import deque

from contract.batch import Pace
from llm.client import Clock, Llm
from worker.naming.namer import Namer

INTERVAL_SECONDS = 60.0
"""Seconds before an attempt's first estimate, and between two estimates."""
_INTERVALS = 10
"""The speed is measured over this many of the latest intervals, so that it follows a replaced GPU."""


class PaceMeter:
    """Measures from the moment it is created, which should be that of the first request."""

    def __init__(self, llm: Llm, namer: Namer, clock: Clock) -> None:
        self._llm = llm
        self._namer = namer
        self._clock = clock
        self._marks = deque([(clock.now(), 0)], maxlen=_INTERVALS)
        """At the beginning of each interval: the time, and the topics that were answered until then."""

    def measure(self, firms: int, begun: int) -> Pace | None:
        """The pace now; None until an interval has passed since the last one, or when no topic was answered in it.

        Args:
            firms: the number of firms that this attempt processes.
            begun: the number of them whose topics have been found or are being found.
        """
        now, answered = self._clock.now(), self._namer.answered
        if now - self._marks[-1][0] < INTERVAL_SECONDS:
            return None
        since, answered_before = self._marks[0]
        self._marks.append((now, answered))
        if answered == answered_before:
            return None
        topics_left = self._namer.found * firms / begun - answered
        seconds_per_topic = (now - since) / (answered - answered_before)
        return Pace(
            in_flight=self._llm.concurrency.level,
            topics_per_minute=round(60 / seconds_per_topic, 1),
            seconds_left=round(topics_left * seconds_per_topic, 1),
            rate_limited=self._llm.rate_limited,
        )


def describe(pace: Pace) -> str:
    """One line for a log."""
    limited = f" ({pace.rate_limited:,} refused because of a rate limit)" if pace.rate_limited else ""
    return (
        f"{pace.topics_per_minute:,.0f} topics a minute, {pace.in_flight} in flight{limited}, about"
        f" {dt.timedelta(seconds=round(pace.seconds_left))} to go"
    )
