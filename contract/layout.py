"""The layout of the bucket: every key is built and parsed here."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from contract import ContractError

RUN_FORMAT = "%Y%m%d_%H%M%S"

_RUN = re.compile(r"\d{8}_\d{6}")
_MANIFEST_KEY = re.compile(r"manifests/([^/]+)/manifest_(\d{8}_\d{6})\.jsonl")


@dataclass(frozen=True)
class RunRef:
    """One run of a quarter, and where its objects are in the bucket."""

    quarter: str
    run: str
    """The run id, such as `20230405_101500`."""

    @property
    def manifest_key(self) -> str:
        """The batch manifest: one line for each batch."""
        return f"{manifests_prefix(self.quarter)}manifest_{self.run}.jsonl"

    @property
    def summary_key(self) -> str:
        """The record of how the run ended, whether it succeeded or not."""
        return f"{manifests_prefix(self.quarter)}summary_{self.run}.json"

    @property
    def parts_prefix(self) -> str:
        return f"intermediate/firm-topics/quarter={self.quarter}/run={self.run}/"

    @property
    def progress_prefix(self) -> str:
        return f"progress/{self.quarter}/{self.run}/"

    def progress_key(self, batch_id: str) -> str:
        """The progress record of a batch."""
        return f"{self.progress_prefix}{batch_id}.json"

    def batch_parts_prefix(self, batch_id: str) -> str:
        """The common prefix of the keys of a batch's parts."""
        return f"{self.parts_prefix}{batch_id}_part_"

    def part_key(self, batch_id: str, number: int, attempt: str) -> str:
        """A part of a batch. `attempt` is unique to the process that writes it, so that no two write the same key."""
        return f"{self.batch_parts_prefix(batch_id)}{number:04d}_{attempt}.parquet"


def run_id(moment: datetime) -> str:
    """The id of a run that started at `moment`, in UTC: `20230405_101500`."""
    return moment.astimezone(UTC).strftime(RUN_FORMAT)


def check_run(text: object) -> str:
    """Return `text` if it is a run id.

    Raises:
        ContractError: with a sentence that says what a run id looks like.
    """
    if isinstance(text, str) and _RUN.fullmatch(text):
        return text
    raise ContractError(f"{text!r} is not a run id: a run is named after the time it started, such as 20230405_101500")


def run_of_manifest(key: str) -> RunRef:
    """The run that the batch manifest at `key` belongs to.

    Raises:
        ContractError: when `key` is not the key of a batch manifest.
    """
    match = _MANIFEST_KEY.fullmatch(key)
    if not match:
        raise ContractError(f"{key!r} is not a batch manifest: manifests/{{quarter}}/manifest_{{run}}.jsonl is")
    return RunRef(match[1], match[2])


def batch_id(quarter: str, number: int) -> str:
    """The id of a run's batch, counted from 0: `2023Q1_batch_0000`."""
    return f"{quarter}_batch_{number:04d}"


def prefetch_prefix(quarter: str) -> str:
    return f"prefetch/transcripts/quarter={quarter}/"


def prefetch_manifest_key(quarter: str) -> str:
    return f"{prefetch_prefix(quarter)}manifest.json"


def chunk_key(quarter: str, chunk: str) -> str:
    """The key of a chunk that the prefetch manifest names, such as `chunk_0000.parquet`."""
    return f"{prefetch_prefix(quarter)}{chunk}"


def manifests_prefix(quarter: str) -> str:
    """The common prefix of the keys of a quarter's batch manifests and summaries."""
    return f"manifests/{quarter}/"


def latest_key(quarter: str) -> str:
    """The record of the last run that succeeded, for readers of results."""
    return f"progress/{quarter}/latest.json"


def claim_key(quarter: str) -> str:
    """The lock that names the quarter's current execution; a new run may start only once that one has ended."""
    return f"progress/{quarter}/claim.json"
