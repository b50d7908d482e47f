"""Repairs the names of a completed batch, when a run that has ended with too few names is resumed.

The topics are found again, with the same result, and the LLM is asked about those without a name. It may not use the
names of the firm's other topics.
"""

from collections.abc import Container
from dataclasses import replace
from datetime import UTC, datetime

from contract.batch import Counts
from worker import WorkerError, parts
from worker.firm import Firm, FirmTopics, Outcome, Topic
from worker.naming.namer import Namer
from worker.naming.repeats import lacks_name
from worker.parts import Row
from worker.prefetch import Unreadable
from worker.topics.process import TopicProcess


async def repair_firm(
    firm: Firm | Unreadable,
    rows: list[Row],
    counts: Counts,
    repeated_names: Container[str],
    topics: TopicProcess,
    namer: Namer,
) -> Outcome:
    """The firm's topics with new names for those without one, and the firm's total counts.

    Args:
        rows: all topics of the firm.
        counts: the firm's, as the progress record has them.
        repeated_names: names that are treated as missing.

    Raises:
        WorkerError: when the firm's topics cannot be found again.
        LlmError: as `Namer.name`.
    """
    if isinstance(firm, Unreadable):
        raise WorkerError(f"{firm.firm_id} cannot be read again: {firm.reason}")
    found = await topics.find_topics(firm)
    lacking = [row for row in rows if lacks_name(row, repeated_names)]
    taken = [row["name"] for row in rows if not lacks_name(row, repeated_names)]
    asked_about = [_find(row, found) for row in lacking]
    named, cost = await namer.name(firm, replace(found, topics=asked_about), taken)

    now = datetime.now(UTC)
    renamed = {row["topic_id"]: row | parts.name_columns(topic, now) for row, topic in zip(lacking, named, strict=True)}
    after = [renamed.get(row["topic_id"], row) for row in rows]
    total = counts + cost
    total.topics = len(after)
    total.named = sum(row["naming_method"] == "llm" for row in after)
    total.incoherent = sum(row["coherent"] is False for row in after)
    total.fallbacks = cost.fallbacks
    return Outcome(firm.firm_id, after, total)


def _find(row: Row, found: FirmTopics) -> Topic:
    number = row["local_topic_id"]
    topic = found.topics[number] if number < len(found.topics) else None
    if topic is None or topic.sentence_ids != row["sentence_ids"]:
        raise WorkerError(
            f"topic {row['topic_id']} is not found again: the prefetch or the worker's way of finding topics has "
            "changed since the run, so a new run of the quarter is needed"
        )
    return topic
