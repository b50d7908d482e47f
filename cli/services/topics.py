"""The topics of a run, read from the parts that its progress records list and from no others."""

import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypedDict, cast

from cli.errors import NotFoundError
from cli.services import parquet, runs
from cli.stack import Stack
from contract import ContractError, layout
from contract.batch import BatchProgress
from contract.layout import RunRef, check_run

COLUMNS = (
    "firm_id",
    "firm_name",
    "topic_id",
    "local_topic_id",
    "name",
    "summary",
    "keywords",
    "n_sentences",
    "naming_method",
)


class Topic(TypedDict):
    """A named topic; `ftm topics --json` prints a list of them."""

    firm_id: str
    firm_name: str
    topic_id: str
    name: str
    summary: str
    keywords: list[str]
    n_sentences: int
    naming_method: str


class FirmWithoutTopics(TypedDict):
    """A firm of a run that has no topics; `ftm topics --skipped --json` prints a list of them."""

    firm_id: str
    outcome: str
    """`skipped` or `failed`."""
    reason: str


def without_topics(stack: Stack, run: RunRef, firm: str | None = None) -> list[FirmWithoutTopics]:
    """The firms of a run that were skipped or have failed, or only the one with the id `firm`.

    Raises:
        NotFoundError: when there is no such run.
    """
    return [
        {"firm_id": each, "outcome": outcome, "reason": reason}
        for record in runs.records_of(stack, run).values()
        for outcome, firms in (("skipped", record.skipped), ("failed", record.failed))
        for each, reason in firms.items()
        if firm in (None, each)
    ]


def select(found: Sequence[Topic], *, search: str | None = None, unnamed: bool = False) -> list[Topic]:
    """The topics whose name, summary or keywords contain a text, ignoring case, or those without a name from the
    LLM."""
    wanted = (search or "").casefold()
    return [
        topic
        for topic in found
        if (not unnamed or topic["naming_method"] != "llm")
        and wanted in "\n".join((topic["name"], topic["summary"], *topic["keywords"])).casefold()
    ]


def read(
    stack: Stack, quarter: str, *, run: str | None = None, firm: str | None = None, coherent: bool = False
) -> list[Topic]:
    """The topics of `run`, or of the last run that succeeded, by firm and topic.

    Args:
        coherent: leave out the topics whose sentences, according to the LLM, do not share a single subject.

    Raises:
        NotFoundError: when there is no such run, or when `firm` has no topics in it, with the reason.
    """
    columns = (*COLUMNS, "coherent") if coherent else COLUMNS
    found = rows(stack, RunRef(quarter, run or latest_run(stack, quarter)), columns, firm)
    return [_topic(row) for row in found if row.get("coherent") is not False]


def rows(stack: Stack, run: RunRef, columns: Sequence[str], firm: str | None = None) -> list[dict[str, Any]]:
    """Columns of a run's parts, a row a topic, by firm and topic; `columns` must include those of the order.

    Raises:
        NotFoundError: when there is no such run, or when `firm` has no topics in it, with the reason.
    """
    records = runs.records_of(stack, run)
    counted = [record for record in records.values() if firm is None or firm in record.completed]
    if firm is not None and not counted:
        raise _no_such_firm(records.values(), run, firm)
    found = _read_parts(stack, [part for record in counted for part in record.parts], columns, firm)
    return sorted(found, key=lambda row: (row["firm_id"], row["local_topic_id"]))


def latest_run(stack: Stack, quarter: str) -> str:
    """The last run of the quarter that succeeded.

    Raises:
        NotFoundError: when none did, naming those that did not.
    """
    found = stack.bucket.get(layout.latest_key(quarter))
    if found is None:
        unfinished = runs.runs_of(stack, quarter)
        if unfinished:
            raise NotFoundError(
                f"no run of {quarter} has succeeded yet; see the topics of the newest one with "
                f"`{stack.command} topics {quarter} --run {unfinished[0]}`"
            )
        raise runs.no_run(stack, quarter)
    try:
        return check_run(json.loads(found.body)["run"])
    except (ValueError, KeyError, TypeError) as error:
        raise ContractError(
            f"{stack.bucket.url(layout.latest_key(quarter))} does not name a run: name one with --run"
        ) from error


def _read_parts(stack: Stack, parts: list[str], columns: Sequence[str], firm: str | None) -> list[dict[str, Any]]:
    def read_part(key: str) -> list[dict[str, Any]]:
        found = stack.bucket.get(key)
        if found is None:
            raise NotFoundError(f"{stack.bucket.url(key)} is gone, although its batch's progress record lists it")
        return parquet.read_rows(found.body, columns, firm, stack.bucket.url(key))

    with ThreadPoolExecutor(max_workers=16) as pool:
        return [row for found in pool.map(read_part, parts) for row in found]


def _topic(row: dict[str, Any]) -> Topic:
    return cast(Topic, {column: row[column] for column in COLUMNS if column != "local_topic_id"})


def _no_such_firm(records: Iterable[BatchProgress], run: RunRef, firm: str) -> NotFoundError:
    start = f"{firm} has no topics in run {run.run} of {run.quarter}"
    for record in records:
        if firm in record.skipped:
            return NotFoundError(f"{start}: it was skipped, {record.skipped[firm]}")
        if firm in record.failed:
            return NotFoundError(f"{start}: it failed, {record.failed[firm]}")
    return NotFoundError(f"{start}: it is not among the firms that the run has completed")
