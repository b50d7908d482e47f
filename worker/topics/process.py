"""The topic process, which finds the topics of the next firms while the worker waits for names.

One process is enough: it finds the topics of about 70 firms per second if a call has 90 sentences, and of a dozen if it
has 390. Both give hundreds of topics per second, and a GPU names at most a few dozen.
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
        """Find the topics of a firm in the other process.

        Raises:
            WorkerError: when the process was killed, most likely for lack of memory, or lacks the embedding model.
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
    """End when the parent is killed, and do not end before it when the whole process group gets a signal."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
    os._exit(1)
