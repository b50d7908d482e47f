"""Controls how many requests are in flight: few at first, more while throughput grows, half as many after an overload.

The bound follows additive increase and multiplicative decrease (AIMD). It starts as TCP does: each answer raises it by
one until latency is twice that of the first request; then it doubles while throughput grows. Throughput at a level is
estimated as requests in flight / mean latency, which takes fewer requests than counting completions over time. A server
that answers one request at a time gets only a few, so that requests wait here and not in its queue; a server with spare
capacity is at the maximum after a few round trips.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from statistics import fmean

FIRST_LEVEL = 4
_GROWTH = 1.03
"""A higher level is kept if throughput is higher by at least this factor; a smaller gain from doubling is noise."""
_MIN_SAMPLES = 4
_HOLD_SECONDS = 15.0
"""Seconds for which a level that did not raise throughput is not tried again."""


class Concurrency:
    """The slots of one client, for a single event loop."""

    def __init__(self, maximum: int, now: Callable[[], float]) -> None:
        self.maximum = maximum
        self.level = min(FIRST_LEVEL, maximum)
        """The current maximum of requests in flight."""
        self._now = now
        self._in_flight = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._least_latency = 0.0
        self._is_fast = True
        """Until latency rises: each answer raises the level by one."""
        self._doubling = True
        self._epoch = 0
        """The number of changes of the level; requests sent before the last change do not count for it."""
        self._latencies: list[float] = []
        self._best = (0, 0.0)
        """The last level that raised throughput, and its throughput."""
        self._hold_until = 0.0
        self._is_fixed = False
        self._disappointments = 0
        """Consecutive windows in which this level had no higher throughput than the previous one."""

    @asynccontextmanager
    async def slot(self, first: bool = False) -> AsyncIterator[None]:
        """Wait for a free slot, before all other waiting requests if `first`, and hold it."""
        await self._acquire(first)
        try:
            yield
        finally:
            self._release()

    def fix(self, level: int) -> None:
        """Keep this many requests in flight from now on, whatever their results, for a load test of that level."""
        self.level = level
        self._is_fixed = True
        self._wake()

    @property
    def epoch(self) -> int:
        """Changes with the level. Callers read it when they send a request, and pass it back with the result."""
        return self._epoch

    def succeeded(self, epoch: int, latency: float) -> None:
        """Record that a request was answered after `latency` seconds."""
        self._least_latency = min(latency, self._least_latency or latency)
        if epoch != self._epoch or not self._waiting or self._is_fixed:
            return  # it was sent at another level, or the level does not limit throughput
        if self._is_fast:
            self._is_fast = self.level < self.maximum and latency <= 2 * self._least_latency
            self.level += self._is_fast
            self._wake()
            return
        self._latencies.append(latency)
        if len(self._latencies) >= max(_MIN_SAMPLES, self.level * (1 if self._doubling else 2)):
            self._judge_level(self.level / max(fmean(self._latencies), 1e-6))

    def overloaded(self, epoch: int) -> None:
        """Record that a request was rejected for load or timed out: halve the level, once for all in flight."""
        if epoch != self._epoch:
            return
        self._is_fast = self._doubling = False
        self._best = (0, 0.0)
        self._change(max(1, self.level // 2))

    def _judge_level(self, throughput: float) -> None:
        level, best = self._best
        if level < self.level and throughput < best * _GROWTH:
            self._disappointments += 1
            if self._disappointments < 2:  # the first may be noise
                self._latencies.clear()
                return
            # After a doubling, the lowest sufficient level is between the two.
            level += level // 4 if self._doubling else 0
            self._doubling = False
            self._best = (level, throughput)
            self._hold_until = self._now() + _HOLD_SECONDS
            self._change(level)
            return
        self._disappointments = 0
        self._best = (self.level, throughput)
        if self.level == self.maximum or self._now() < self._hold_until:
            self._latencies.clear()
            return
        step = self.level if self._doubling else max(1, self.level // 3)
        self._change(min(self.maximum, self.level + step))

    def _change(self, level: int) -> None:
        self.level = self.level if self._is_fixed else level
        self._epoch += 1
        self._latencies.clear()
        self._disappointments = 0
        self._wake()

    async def _acquire(self, first: bool) -> None:
        if self._in_flight < self.level and not self._waiting:
            self._in_flight += 1
            return
        turn = asyncio.get_running_loop().create_future()
        if first:
            self._waiting.appendleft(turn)
        else:
            self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._release()
            raise

    def _release(self) -> None:
        self._in_flight -= 1
        self._wake()

    def _wake(self) -> None:
        while self._waiting and self._in_flight < self.level:
            turn = self._waiting.popleft()
            if not turn.done():
                self._in_flight += 1
                turn.set_result(None)
