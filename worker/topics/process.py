"""The other process: it finds the topics of the next firms while names are awaited.

One is enough: it finds the topics of some 70 firms a second where a call has 90 sentences, and of a dozen where it has
390. Either makes hundreds of topics, and a GPU names a few dozen at best.
"""

import asyncio
import multiprocessing
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from worker import WorkerError
from worker.firm import Firm, FirmTopics


class TopicProcess:
    def __init__(self, embedding_model: str = "") -> None:
        self._embedding_model = embedding_model
        # Spawned, not forked: the parent runs threads. It imports scikit-learn, which the parent never does.
        self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=_live_with_parent)

    def __enter__(self) -> "TopicProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    async def find_topics(self, firm: Firm) -> FirmTopics:
        """The topics of a firm.

        Raises:
            WorkerError: when the process is gone, most likely for want of memory, or lacks the embedding model.
        """
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._pool, _find_topics, firm, self._embedding_model
            )
        except BrokenProcessPool as error:
            raise WorkerError(
                f"the process that finds topics died at firm {firm.firm_id} or near it; give the Batch job more memory"
            ) from error


def _find_topics(firm: Firm, embedding_model: str) -> FirmTopics:
    from worker.topics.discovery import find_topics

    if not embedding_model:
        return find_topics(firm)
    from worker.topics import embeddings

    return find_topics(firm, embeddings.load(embedding_model))


def _live_with_parent() -> None:
    """Outlive neither a killed parent nor, by a signal to the whole group, precede it."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
    os._exit(1)
