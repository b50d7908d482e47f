"""Processes one batch, from its line of the batch manifest to its last part.

Several firms are in flight: another process finds the topics of the next firms while the LLM names those of the firms
before them. Outcomes are collected in the order of the batch, so that the parts do not depend on the order of the
answers. Every `CHECKPOINT_INTERVAL` firms a part is written, and then the progress record that lists it; another
attempt continues from the record. The memory contains one chunk of the prefetch and the firms in flight.
"""

import asyncio
import signal
import time
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from contract import ContractError
from contract.batch import BatchProgress, Counts
from contract.bucket import Bucket, S3UnavailableError
from contract.fallbacks import fallback_lines
from contract.run import model_conflict
from llm import LlmError
from llm.client import Clock, Llm
from worker import TemporaryError, WorkerError, parts
from worker.firm import Firm, Outcome
from worker.naming.namer import Namer
from worker.naming.repeats import take_back_repeats
from worker.pace import PaceMeter, describe
from worker.parts import Row
from worker.prefetch import Unreadable, read_firms
from worker.repair import repair_firm
from worker.settings import Settings
from worker.storage import BatchStorage, OvertakenError, open_bucket
from worker.topics.process import TopicProcess

STOPPING_SECONDS = 20.0
"""Seconds to finish in-flight firms after SIGTERM. The default SIGKILL comes at 30 s."""

OWNER_CHECK_SECONDS = 30.0
"""An attempt that has written nothing for this long checks whether a newer attempt has taken over the batch."""


async def process_batch(settings: Settings, clock: Clock | None = None) -> BatchProgress:
    """Process the firms of the batch that earlier attempts have not completed.

    Returns:
        Its progress, which is complete.

    Raises:
        ContractError: when the batch manifest is broken.
        WorkerError: when a firm failed, or the batch cannot be completed; its progress says why.
        OvertakenError: when a newer attempt has taken over the batch.
        TemporaryError, S3UnavailableError, LlmUnavailableError: when another attempt can complete it.
    """
    bucket = open_bucket(settings.bucket)
    storage = BatchStorage(bucket, settings)
    line = storage.line()
    if conflict := model_conflict(settings.run, line.model, settings.llm.model or ""):
        raise WorkerError(conflict)
    firm_ids = list(dict.fromkeys(line.firm_ids))
    if not storage.take(firm_ids, _now().isoformat()):
        print(f"{line.batch_id}: complete already", flush=True)
        return storage.progress

    batch = _Batch(settings, bucket, storage, clock or Clock())
    try:
        await batch.run(firm_ids)
    except OvertakenError:
        raise
    except Exception as error:
        batch.stamp()
        # If the record cannot be written either, that error must not hide the first one.
        with suppress(BotoCoreError, ClientError, S3UnavailableError, OvertakenError):
            storage.fail(_sentence(error))
        raise
    return storage.progress


async def do_firm(firm: Firm | Unreadable, quarter: str, topics: TopicProcess, namer: Namer) -> Outcome:
    """Find and name the topics of one firm. An error of this firm alone becomes its outcome.

    Raises:
        WorkerError, LlmError: when other firms would fail too.
    """
    if isinstance(firm, Unreadable):
        return Outcome(firm.firm_id, failed=firm.reason)
    try:
        found = await topics.find_topics(firm)
        if found.skipped:
            return Outcome(firm.firm_id, skipped=found.skipped)
        named, counts = await namer.name(firm, found)
        return Outcome(firm.firm_id, parts.rows(firm, quarter, named, _now()), counts)
    except (WorkerError, LlmError):
        raise
    except Exception as error:
        return Outcome(firm.firm_id, failed=_sentence(error))


class _Batch:
    def __init__(self, settings: Settings, bucket: Bucket, storage: BatchStorage, clock: Clock) -> None:
        self._settings = settings
        self._bucket = bucket
        self._storage = storage
        self._progress = storage.progress
        self._clock = clock
        self._began = time.monotonic() - self._progress.seconds
        self._in_flight: deque[asyncio.Task[Outcome]] = deque()
        """In the order of the batch."""
        self._done: list[Outcome] = []
        """Since the last checkpoint."""
        self._writing = asyncio.Lock()
        self._owned_at = time.monotonic()
        """When this attempt last knew that it owns the batch."""
        self._stopping = asyncio.Event()
        self._meter: PaceMeter | None = None
        self._todo = self._begun = 0
        """Firms that this attempt processes, and those of them that are in flight or done."""
        self._unrepaired: dict[str, Counts] = {}
        """The firms with names to repair, and their counts in the record before this attempt."""

    async def run(self, firm_ids: list[str]) -> None:
        """Process the firms that are not done yet.

        Raises:
            WorkerError, LlmError, ContractError, S3UnavailableError: after the completed firms were written.
        """
        progress = self._progress
        todo = [firm for firm in firm_ids if firm not in progress.completed and firm not in progress.skipped]
        lacking = await asyncio.to_thread(self._storage.firms_to_repair)
        self._unrepaired = {firm: progress.completed[firm] for firm in lacking}
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._stopping.set)
        async with Llm(self._settings.llm, self._clock) as llm:
            namer = Namer(llm, self._on_answer)
            with TopicProcess(self._settings.embedding_model) as topics:
                overtaken = False
                try:
                    await self._unless_stopped(self._flow(todo, lacking, llm, topics, namer))
                except OvertakenError:
                    overtaken = True
                    raise
                finally:
                    for line in fallback_lines(namer.fallbacks):
                        print(f"{progress.batch_id}: {line}", flush=True)
                    await self._end_in_flight()
                    if not overtaken:
                        await self._checkpoint()
        self._end()

    def stamp(self) -> None:
        """Update the duration and the timestamp of the progress record."""
        self._progress.seconds = time.monotonic() - self._began
        self._progress.updated_at = _now().isoformat()

    async def _unless_stopped(self, work: Coroutine[Any, Any, None]) -> None:
        """Do `work`; after SIGTERM, cancel it if it has not ended within STOPPING_SECONDS."""
        flow, stop = asyncio.create_task(work), asyncio.create_task(self._stop())
        try:
            await asyncio.wait({flow, stop}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            flow.cancel()
            stop.cancel()
            await asyncio.gather(flow, stop, return_exceptions=True)
        for task in (flow, stop):
            if not task.cancelled():
                task.result()

    async def _stop(self) -> None:
        """Write the completed firms at once: the next attempt may start before the firms in flight have ended."""
        await self._stopping.wait()
        await self._checkpoint()
        await self._clock.sleep(STOPPING_SECONDS)

    async def _flow(
        self, todo: list[str], lacking: dict[str, list[Row]], llm: Llm, topics: TopicProcess, namer: Namer
    ) -> None:
        """Process the firms that are not done; then repair the names of those that are."""
        await llm.check_model()
        self._meter, self._todo = PaceMeter(llm, namer, self._clock), len(todo) + len(lacking)
        repairs = f", {len(lacking)} lack names" if lacking else ""
        print(
            f"{self._progress.batch_id}: {len(todo)} of {self._progress.firms} firms to do{repairs}; {llm.model} at"
            f" {llm.settings.base_url} names, {llm.settings.max_concurrent} topics at once",
            flush=True,
        )

        def do(firm: Firm | Unreadable) -> Coroutine[Any, Any, Outcome]:
            return do_firm(firm, self._settings.run.quarter, topics, namer)

        def repair(firm: Firm | Unreadable) -> Coroutine[Any, Any, Outcome]:
            counts, repeated = self._unrepaired[firm.firm_id], self._storage.repeated_names
            return repair_firm(firm, lacking[firm.firm_id], counts, repeated, topics, namer)

        await self._each(todo, do, llm.settings.max_concurrent)
        await self._each(list(lacking), repair, llm.settings.max_concurrent)

    async def _each(
        self, firm_ids: list[str], work: Callable[[Firm | Unreadable], Coroutine[Any, Any, Outcome]], at_once: int
    ) -> None:
        """Do `work` on each firm, and collect the outcomes in the order of the firms."""
        # More firms than requests in flight, so that the LLM never waits for the next firm. A firm that is done gives
        # up its place before it is collected, so that one slow answer does not keep the others waiting.
        places = asyncio.Semaphore(at_once + 2)
        async for firm in read_firms(self._bucket, self._settings.run.quarter, firm_ids):
            await places.acquire()
            if self._stopping.is_set():
                break
            self._begun += 1
            self._in_flight.append(asyncio.create_task(work(firm)))
            self._in_flight[-1].add_done_callback(lambda _: places.release())
            while self._in_flight and self._in_flight[0].done():
                await self._take_first()
        while self._in_flight:
            await self._take_first()

    async def _on_answer(self) -> None:
        """Once a minute, write an estimate of the end: with a slow server the next checkpoint may be an hour away."""
        if not self._meter or not (pace := self._meter.measure(self._todo, self._begun)):
            return
        self._progress.pace = pace
        async with self._writing:
            self.stamp()
            with suppress(S3UnavailableError):  # the next checkpoint waits for S3, or ends the attempt
                await self._in_thread(self._storage.write_record)
        print(f"{self._progress.batch_id}: {describe(pace)}", flush=True)

    async def _take_first(self) -> None:
        task = self._in_flight[0]
        await asyncio.wait([task])
        self._done.append(task.result())
        self._in_flight.popleft()
        if len(self._done) >= self._settings.checkpoint_interval:
            await self._checkpoint()
        elif time.monotonic() - self._owned_at > OWNER_CHECK_SECONDS:
            async with self._writing:
                await self._in_thread(self._storage.check_owner)

    async def _checkpoint(self) -> None:
        """Write the completed firms; those that could not be written stay in `_done`."""
        async with self._writing:
            done, self._done = self._done, []
            if not done:
                return
            take_back_repeats(done)
            self.stamp()
            try:
                await self._in_thread(lambda: self._storage.checkpoint(done))
            finally:
                self._done = [outcome for outcome in done if not self._storage.holds(outcome)] + self._done
        print(_checkpoint_line(self._progress), flush=True)

    async def _in_thread(self, work: Callable[[], None]) -> None:
        """Return only when `work` has ended, also if cancelled: the caller must not write while its thread does."""
        working = asyncio.create_task(asyncio.to_thread(work))
        try:
            await asyncio.shield(working)
        finally:
            await asyncio.gather(working, return_exceptions=True)
        self._owned_at = time.monotonic()

    async def _end_in_flight(self) -> None:
        """Cancel the firms in flight, except those that have just ended."""
        for task in self._in_flight:
            task.cancel()
        await asyncio.gather(*self._in_flight, return_exceptions=True)
        self._done += [task.result() for task in self._in_flight if not task.cancelled() and not task.exception()]
        self._in_flight.clear()

    def _end(self) -> None:
        progress = self._progress
        unrepaired = any(progress.completed[firm] is counts for firm, counts in self._unrepaired.items())
        if unrepaired or len(progress.completed) + len(progress.skipped) + len(progress.failed) < progress.firms:
            raise TemporaryError("the batch was stopped by SIGTERM; another attempt, or a resumed run, continues it")
        if progress.failed:
            firm, reason = next(iter(progress.failed.items()))
            raise WorkerError(
                f"{len(progress.failed)} of {progress.firms} firms failed, the first of them {firm}: {reason}"
            )


def _checkpoint_line(progress: BatchProgress) -> str:
    completed, skipped, failed = len(progress.completed), len(progress.skipped), len(progress.failed)
    counts = progress.counts
    return (
        f"{progress.batch_id}: {completed + skipped + failed} of {progress.firms} firms"
        f" ({skipped} skipped, {failed} failed),"
        f" {counts.topics} topics, {counts.named} named by the LLM, {counts.prompt_tokens} prompt tokens"
        f" ({counts.cached_tokens} cached), {counts.retries} retries, {progress.seconds:.1f} s"
    )


def _sentence(error: Exception) -> str:
    """An error as one line for the record; an unexpected error with its type."""
    known = isinstance(error, WorkerError | ContractError | LlmError | S3UnavailableError)
    text = str(error) if known else f"{type(error).__name__}: {error}"
    return " ".join(text.split())


def _now() -> datetime:
    return datetime.now(UTC)
