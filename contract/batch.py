"""One batch of a run: its line of the batch manifest, and its progress record, which is both checkpoint and result."""

import json
from collections.abc import Container, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, cast, get_args

from contract import ContractError
from contract.fallbacks import Fallback, add_fallbacks, fallback_records, parse_fallbacks
from contract.layout import RunRef
from contract.topic_names import NameUse, NameUses, add_name_uses, name_records, parse_name_uses

LLM_OUTAGE_SECONDS = 25 * 60
"""How long a worker waits for an absent LLM before it gives up. A Spot GPU is replaced and warm in 9 to 14 minutes."""

State = Literal["running", "complete", "failed"]


@dataclass(frozen=True)
class BatchLine:
    """One line of `manifests/{quarter}/manifest_{run}.jsonl`."""

    batch_id: str
    quarter: str
    firm_ids: list[str]
    model: str = ""
    """The model that names the run's topics, from the stack's output when the run began; empty in older manifests."""

    def to_json(self) -> str:
        record: dict[str, object] = {"batch_id": self.batch_id, "quarter": self.quarter, "firm_ids": self.firm_ids}
        if self.model:
            record["model"] = self.model
        return json.dumps(record, separators=(",", ":"), ensure_ascii=False)


def find_batch(lines: Iterable[bytes], batch_id: str) -> BatchLine:
    """Find the line of `batch_id`; the other lines are not parsed.

    Raises:
        ContractError: when no line is that of the batch, or when its line is broken.
    """
    quoted = f'"{batch_id}"'.encode()
    for line in lines:
        if quoted in line and (batch := parse_batch_line(line)).batch_id == batch_id:
            return batch
    raise ContractError(f"the batch manifest has no batch {batch_id!r}")


def parse_batch_line(line: bytes | str) -> BatchLine:
    """Read one line of a batch manifest.

    Raises:
        ContractError: when it is not a JSON object with `batch_id`, `quarter` and a list of firm ids.
    """
    record = _object(line, "a line of the batch manifest")
    match record:
        case {"batch_id": str(batch_id), "quarter": str(quarter), "firm_ids": [*_] as firm_ids}:
            firms = [str(firm) for firm in cast(list[object], firm_ids)]
            return BatchLine(batch_id, quarter, firms, str(record.get("model", "")))
        case _:
            raise ContractError(f"a line of the batch manifest lacks batch_id, quarter or firm_ids: {line[:80]!r}")


@dataclass
class Counts:
    """The results and the cost of naming, for a firm, a batch or a run. Tokens are counted by the LLM's server."""

    topics: int = 0
    named: int = 0
    """Topics that the LLM named; the others keep their keywords as their name."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    requests: int = 0
    retries: int = 0
    incoherent: int = 0
    """Named topics whose sentences do not share a single subject, according to the LLM."""
    fallbacks: dict[str, Fallback] = field(default_factory=dict[str, Fallback])
    """Why topics fell back to their keywords, by kind."""

    def __add__(self, other: "Counts") -> "Counts":
        total = Counts(**{name: getattr(self, name) + getattr(other, name) for name in _NUMBERS})
        total.fallbacks = add_fallbacks(self.fallbacks, other.fallbacks)
        return total


_NUMBERS = tuple(each.name for each in fields(Counts) if each.name != "fallbacks")


def topic_counts(counts: Counts) -> dict[str, int]:
    """The counts of topics in the format of records; `incoherent` is present only if there are such topics."""
    record = {"total": counts.topics, "named": counts.named}
    return record | {"incoherent": counts.incoherent} if counts.incoherent else record


@dataclass(frozen=True)
class Part:
    """A Parquet part as it was written; its ETag shows whether it has been replaced since."""

    etag: str
    """Without quotes."""
    rows: int
    """Topics in it."""
    names: NameUses = field(default_factory=dict[str, NameUse])
    """The names of at least 2% of the part's topics."""

    def to_record(self) -> dict[str, Any]:
        record: dict[str, Any] = {"etag": self.etag, "rows": self.rows}
        return record | {"names": name_records(self.names)} if self.names else record


@dataclass(frozen=True)
class Pace:
    """How fast the attempt that runs names topics, and when it will be done at that speed."""

    in_flight: int
    """The concurrency level: how many requests may be in flight at once."""
    topics_per_minute: float
    seconds_left: float
    """Until the batch is complete."""
    rate_limited: int
    """Requests that the server refused because of a rate limit, since the attempt began."""


@dataclass
class BatchProgress:
    """`progress/{quarter}/{run}/{batch_id}.json`: which firms are done, and their results.

    A firm is in at most one of `completed`, `skipped` and `failed`. A batch is `complete` when each of its firms is
    completed or skipped; until then another attempt processes the firms that are in neither.
    """

    batch_id: str
    run: RunRef
    firms: int
    """Firms in the batch."""
    state: State = "running"
    completed: dict[str, Counts] = field(default_factory=dict[str, Counts])
    skipped: dict[str, str] = field(default_factory=dict[str, str])
    """Firm to the reason why it has no topics."""
    failed: dict[str, str] = field(default_factory=dict[str, str])
    """Firm to the error."""
    parts: dict[str, Part] = field(default_factory=dict[str, Part])
    """The Parquet parts with the topics of the completed firms, by key. Any other part of the batch was left by an
    attempt that ended after it wrote the part and before it wrote the record."""
    checkpoints: int = 0
    """Checkpoints written so far: the number of the next part."""
    attempts: int = 0
    """Attempts at the batch that have started."""
    owner: str = ""
    """The newest attempt: only it may write the record."""
    error: str = ""
    """Why the batch failed as a whole."""
    started_at: str = ""
    updated_at: str = ""
    seconds: float = 0.0
    """Seconds of work, summed over all attempts."""
    pace: Pace | None = None
    """As of `updated_at`; None in an attempt's first minute, and after its end."""

    @property
    def counts(self) -> Counts:
        return sum(self.completed.values(), Counts())

    @property
    def names(self) -> dict[str, NameUse]:
        """The names of at least 2% of the topics of any part."""
        return add_name_uses(part.names for part in self.parts.values())

    def to_json(self) -> bytes:
        total = self.counts
        record = {
            "batch_id": self.batch_id,
            "quarter": self.run.quarter,
            "run": self.run.run,
            "state": self.state,
            "error": self.error,
            "firms": {
                "total": self.firms,
                "completed": len(self.completed),
                "skipped": len(self.skipped),
                "failed": len(self.failed),
            },
            "topics": topic_counts(total),
            "tokens": {
                "prompt": total.prompt_tokens,
                "cached": total.cached_tokens,
                "completion": total.completion_tokens,
            },
            "requests": total.requests,
            "retries": total.retries,
            "fallbacks": fallback_records(total.fallbacks),
            "completed": {firm: asdict(counts) for firm, counts in self.completed.items()},
            "skipped": self.skipped,
            "failed": self.failed,
            "parts": {key: part.to_record() for key, part in self.parts.items()},
            "checkpoints": self.checkpoints,
            "attempts": self.attempts,
            "owner": self.owner,
            "started_at": self.started_at,
            "updated_at": self.updated_at,
            "seconds": round(self.seconds, 3),
            "pace": asdict(self.pace) if self.pace and self.state == "running" else None,
        }
        return json.dumps(record, ensure_ascii=False).encode()


def parse_progress(body: bytes) -> BatchProgress:
    """Read a progress record.

    Raises:
        ContractError: when it is not a valid record; its batch then counts as failed.
    """
    record = _object(body, "the progress record")
    try:
        return BatchProgress(
            batch_id=record["batch_id"],
            run=RunRef(record["quarter"], record["run"]),
            firms=int(record["firms"]["total"]),
            state=_state(record["state"]),
            completed={firm: _counts(counts) for firm, counts in record["completed"].items()},
            skipped=dict(record["skipped"]),
            failed=dict(record["failed"]),
            parts={key: _part(part) for key, part in record["parts"].items()},
            checkpoints=int(record["checkpoints"]),
            attempts=int(record["attempts"]),
            owner=record["owner"],
            error=record["error"],
            started_at=record["started_at"],
            updated_at=record["updated_at"],
            seconds=float(record["seconds"]),
            pace=_pace(record.get("pace")),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ContractError(f"the progress record is not valid: {type(error).__name__}: {error}") from error


def why_incomplete(line: BatchLine, run: RunRef, progress: BatchProgress, parts: Mapping[str, str]) -> str:
    """Why a batch does not count as complete, in a sentence; empty when it does. In doubt, a batch is incomplete.

    Args:
        line: the batch in its run's manifest.
        progress: its progress record.
        parts: the ETags of the run's parts that are in the bucket, by key.
    """
    if (progress.batch_id, progress.run) != (line.batch_id, run):
        return f"its result is that of {progress.batch_id!r:.80} of run {progress.run.run!r:.80}"
    if progress.error:
        return progress.error
    if progress.failed:
        firm, error = next(iter(progress.failed.items()))
        return f"{len(progress.failed)} firms failed, the first is {firm}: {error}"
    done = progress.completed.keys() | progress.skipped.keys()
    if progress.state != "complete":
        return f"it stopped before it was complete, after {len(done)} of {len(line.firm_ids)} firms"
    if missing := [firm for firm in line.firm_ids if firm not in done]:
        return f"{len(missing)} firms are unaccounted for, the first is {missing[0]}"
    if done - set(line.firm_ids) or progress.completed.keys() & progress.skipped.keys():
        return "its result counts firms that are not in the batch, or counts a firm twice"
    if problem := find_lost_part(progress, parts):
        return problem
    counts, rows = progress.counts, sum(part.rows for part in progress.parts.values())
    if not 0 <= counts.named <= counts.topics or counts.topics != rows:
        return f"its result contradicts itself: {counts.topics} topics, {counts.named} named, {rows} in its parts"
    return ""


def why_repair(progress: BatchProgress, repeated_names: Container[str]) -> str:
    """Which names a batch lacks, in a sentence; empty when it lacks none.

    Args:
        repeated_names: names that are treated as missing, from the run's record.
    """
    counts = progress.counts
    without = counts.topics - counts.named
    repeated = sum(use.topics for name, use in progress.names.items() if name in repeated_names)
    if not without and not repeated:
        return ""
    reasons = [f"{without} of its {counts.topics} topics have no name"] * bool(without)
    reasons += [f"{repeated} of its {counts.topics} topics share their name with unrelated topics"] * bool(repeated)
    return "; ".join(reasons)


def find_lost_part(progress: BatchProgress, parts: Mapping[str, str]) -> str:
    """Which parts of a batch are gone or were replaced, in a sentence; empty when all are as they were written.

    Args:
        parts: the ETags of the parts that are in the bucket, by key.
    """
    if lost := [key for key in progress.parts if key not in parts]:
        return f"{len(lost)} of its parts are not in the bucket, the first is {lost[0]}"
    if replaced := [key for key, part in progress.parts.items() if parts[key] != part.etag]:
        return f"{len(replaced)} of its parts were replaced after they were written, the first is {replaced[0]}"
    return ""


def _state(value: str) -> State:
    for state in get_args(State):
        if value == state:
            return state
    raise ValueError(f"state is {value!r}")


def _pace(record: Any) -> Pace | None:
    """None also for a record of another version of ftm: the pace is only shown, and nothing depends on it."""
    try:
        return Pace(
            in_flight=int(record["in_flight"]),
            topics_per_minute=float(record["topics_per_minute"]),
            seconds_left=float(record["seconds_left"]),
            rate_limited=int(record["rate_limited"]),
        )
    except (KeyError, TypeError, ValueError):
        return None


def _part(record: dict[str, Any]) -> Part:
    return Part(record["etag"], int(record["rows"]), parse_name_uses(record.get("names", {})))


def _counts(record: dict[str, Any]) -> Counts:
    numbers = {name: value for name, value in record.items() if name != "fallbacks"}
    if not all(isinstance(count, int) and count >= 0 for count in numbers.values()):
        raise ValueError(f"counts are {record!r}")
    return Counts(**numbers, fallbacks=parse_fallbacks(record.get("fallbacks", {})))


def _object(body: bytes | str, what: str) -> dict[str, Any]:
    try:
        record = json.loads(body)
    except ValueError as error:
        raise ContractError(f"{what} is not JSON: {error}") from error
    if not isinstance(record, dict):
        raise ContractError(f"{what} is not a JSON object")
    return cast(dict[str, Any], record)
