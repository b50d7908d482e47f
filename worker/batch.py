"""One batch, from its line of the manifest to its last part.

Firms flow through a window: another process finds the topics of the next ones while the LLM names those before them,
and outcomes are taken in the order of the batch, so that parts are the same however fast the answers came. Every
`CHECKPOINT_INTERVAL` firms a part is written, and then the progress that lists it; a worker killed in between writes
the same part again. Memory holds one chunk of the prefetch and the window.
"""

import asyncio
import signal
import time
from collections import deque
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from contract import ContractError
from contract.batch import BatchProgress, Counts
from contract.fallbacks import fallback_lines
from llm import LlmError
from llm.client import Clock, Llm
from worker import TemporaryError, WorkerError, parts
from worker.firm import Firm
from worker.naming.namer import Namer
from worker.prefetch import Unreadable, read_firms
from worker.s3 import Bucket
from worker.settings import Settings
from worker.storage import BatchStorage
from worker.topics.process import TopicProcess

STOPPING_SECONDS = 20.0
"""From SIGTERM, for the firms under way; SIGKILL follows after 30 s where nobody asked for more."""


@dataclass
class Outcome:
    """What came of one firm: topics, or why it was skipped, or why it failed."""

    firm_id: str
    rows: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    counts: Counts = field(default_factory=Counts)
    skipped: str = ""
    failed: str = ""


async def process_batch(settings: Settings, clock: Clock | None = None) -> BatchProgress:
    """Do the batch, or what earlier attempts left of it.

    Returns:
        Its progress, which is complete.

    Raises:
        ContractError: when the batch manifest is broken.
        WorkerError: when a firm failed, or the batch cannot go on; its progress says why.
        TemporaryError: when another attempt can.
    """
    bucket = Bucket(settings.bucket)
    storage = BatchStorage(bucket, settings)
    line = storage.line()
    firm_ids = list(dict.fromkeys(line.firm_ids))
    progress = storage.progress(firm_ids) or BatchProgress(
        line.batch_id, line.quarter, settings.run, len(firm_ids), started_at=_now().isoformat()
    )
    if progress.state == "complete" and len(progress.completed) + len(progress.skipped) == len(firm_ids):
        print(f"{line.batch_id}: complete already", flush=True)
        return progress

    batch = _Batch(settings, bucket, storage, progress, clock or Clock())
    try:
        await batch.run(firm_ids)
    except Exception as error:
        progress.state, progress.error = "failed", _sentence(error)
        with suppress(BotoCoreError, ClientError):  # it may be the very reason, which must not be hidden
            batch.put_progress()
        raise
    return progress


async def do_firm(firm: Firm | Unreadable, quarter: str, topics: TopicProcess, namer: Namer) -> Outcome:
    """Find and name the topics of one firm; its own trouble is an outcome, and not the batch's.

    Raises:
        WorkerError, LlmError: when no other firm could be done either.
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
    def __init__(
        self, settings: Settings, bucket: Bucket, storage: BatchStorage, progress: BatchProgress, clock: Clock
    ) -> None:
        self._settings = settings
        self._bucket = bucket
        self._storage = storage
        self._progress = progress
        self._clock = clock
        self._began = time.monotonic() - progress.seconds
        self._under_way: deque[asyncio.Task[Outcome]] = deque()
        """In the order of the batch."""
        self._done: list[Outcome] = []
        """Since the last checkpoint."""
        self._stopping = asyncio.Event()

    async def run(self, firm_ids: list[str]) -> None:
        """Do the firms that are not done yet.

        Raises:
            WorkerError, LlmError, ContractError: after what was done is written.
        """
        progress = self._progress
        progress.state, progress.error, progress.failed = "running", "", {}
        todo = [firm for firm in firm_ids if firm not in progress.completed and firm not in progress.skipped]
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._stopping.set)
        async with Llm(self._settings.llm, self._clock) as llm:
            namer = Namer(llm)
            with TopicProcess(self._settings.embedding_model) as topics:
                try:
                    await self._unless_stopped(self._flow(todo, llm, topics, namer))
                finally:
                    for line in fallback_lines(namer.fallbacks):
                        print(f"{progress.batch_id}: {line}", flush=True)
                    await self._keep_what_is_done()
        self._end()

    def put_progress(self) -> None:
        self._progress.seconds = time.monotonic() - self._began
        self._progress.updated_at = _now().isoformat()
        self._storage.put_progress(self._progress)

    async def _unless_stopped(self, work: Coroutine[Any, Any, None]) -> None:
        """Do `work`; after SIGTERM it gets a little time to end by itself."""
        flow, stop = asyncio.create_task(work), asyncio.create_task(self._stop())
        try:
            await asyncio.wait({flow, stop}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            flow.cancel()
            stop.cancel()
            await asyncio.gather(flow, stop, return_exceptions=True)
        if not flow.cancelled():
            flow.result()

    async def _stop(self) -> None:
        await self._stopping.wait()
        await self._clock.sleep(STOPPING_SECONDS)

    async def _flow(self, firm_ids: list[str], llm: Llm, topics: TopicProcess, namer: Namer) -> None:
        await llm.check_model()
        print(
            f"{self._progress.batch_id}: {len(firm_ids)} of {self._progress.firms} firms to do; {llm.model} at"
            f" {llm.settings.base_url} names, {llm.settings.max_concurrent} topics at once",
            flush=True,
        )
        # More firms than the LLM takes topics at once, so that it never waits for the next firm; a firm that waits for
        # its turn to be taken holds no place, so that one slow answer does not keep the others waiting.
        places = asyncio.Semaphore(llm.settings.max_concurrent + 2)
        async for firm in read_firms(self._bucket, self._settings.quarter, firm_ids):
            await places.acquire()
            if self._stopping.is_set():
                break
            self._under_way.append(asyncio.create_task(do_firm(firm, self._settings.quarter, topics, namer)))
            self._under_way[-1].add_done_callback(lambda _: places.release())
            while self._under_way and self._under_way[0].done():
                await self._take_first()
        while self._under_way:
            await self._take_first()

    async def _take_first(self) -> None:
        task = self._under_way[0]
        await asyncio.wait([task])
        self._done.append(task.result())
        self._under_way.popleft()
        if len(self._done) == self._settings.checkpoint_interval:
            await self._checkpoint_in_a_thread()

    async def _checkpoint_in_a_thread(self) -> None:
        """Return when it is written, and not before: whoever is cancelled meanwhile may not write beside the thread."""
        writing = asyncio.create_task(asyncio.to_thread(self._checkpoint))
        try:
            await asyncio.shield(writing)
        finally:
            await asyncio.gather(writing, return_exceptions=True)

    async def _keep_what_is_done(self) -> None:
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        self._done += [task.result() for task in self._under_way if not task.cancelled() and not task.exception()]
        self._under_way.clear()
        if self._done:
            self._checkpoint()

    def _checkpoint(self) -> None:
        """Write a part of the firms done since the last one, and then the progress that lists it."""
        progress = self._progress
        rows = [row for outcome in self._done for row in outcome.rows]
        if rows:
            progress.parts.append(self._storage.put_part(progress.checkpoints, rows))
        for outcome in self._done:
            if outcome.failed:
                progress.failed[outcome.firm_id] = outcome.failed
            elif outcome.skipped:
                progress.skipped[outcome.firm_id] = outcome.skipped
            else:
                progress.completed[outcome.firm_id] = outcome.counts
        self._done = []
        progress.checkpoints += 1
        if self._all_done():
            progress.state = "complete"
        self.put_progress()
        print(_checkpoint_line(progress), flush=True)

    def _all_done(self) -> bool:
        return len(self._progress.completed) + len(self._progress.skipped) == self._progress.firms

    def _end(self) -> None:
        progress = self._progress
        if len(progress.completed) + len(progress.skipped) + len(progress.failed) < progress.firms:
            raise TemporaryError("the batch was stopped by SIGTERM; another attempt, or a resumed run, continues it")
        if progress.failed:
            firm, reason = next(iter(progress.failed.items()))
            raise WorkerError(
                f"{len(progress.failed)} of {progress.firms} firms failed, the first of them {firm}: {reason}"
            )
        if progress.state != "complete":
            progress.state = "complete"
            self.put_progress()


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
    """What the record says of an error; one that nobody put into words needs its type to be understood."""
    text = (
        str(error) if isinstance(error, WorkerError | ContractError | LlmError) else f"{type(error).__name__}: {error}"
    )
    return " ".join(text.split())


def _now() -> datetime:
    return datetime.now(UTC)
