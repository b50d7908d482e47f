"""Where each thing lies in the bucket. Every key is made here, and taken apart here."""

import re
from datetime import UTC, datetime

from contract import ContractError

RUN_FORMAT = "%Y%m%d_%H%M%S"

_RUN = re.compile(r"\d{8}_\d{6}")
_MANIFEST_KEY = re.compile(r"manifests/[^/]+/manifest_(\d{8}_\d{6})\.jsonl")


def run_id(moment: datetime) -> str:
    """The id of a run that started at `moment`, in UTC: `20230405_101500`."""
    return moment.astimezone(UTC).strftime(RUN_FORMAT)


def check_run(text: object) -> str:
    """Return `text` if it has the shape of a run id.

    Raises:
        ContractError: with a sentence that says what a run id looks like.
    """
    if isinstance(text, str) and _RUN.fullmatch(text):
        return text
    raise ContractError(f"{text!r} is not a run: runs are named by the time they started, such as 20230405_101500")


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


def manifest_key(quarter: str, run: str) -> str:
    return f"manifests/{quarter}/manifest_{run}.jsonl"


def manifests_prefix(quarter: str) -> str:
    """Where the batch manifests and the summaries of a quarter's runs lie."""
    return f"manifests/{quarter}/"


def summary_key(quarter: str, run: str) -> str:
    """The record of how a run ended, whether it succeeded or not."""
    return f"manifests/{quarter}/summary_{run}.json"


def run_of_manifest(key: str) -> str:
    """The run that the batch manifest at `key` belongs to.

    Raises:
        ContractError: when `key` is not the key of a batch manifest.
    """
    match = _MANIFEST_KEY.fullmatch(key)
    if not match:
        raise ContractError(f"{key!r} is not a batch manifest: manifests/{{quarter}}/manifest_{{run}}.jsonl is")
    return match[1]


def parts_prefix(quarter: str, run: str) -> str:
    return f"intermediate/firm-topics/quarter={quarter}/run={run}/"


def part_key(quarter: str, run: str, batch: str, number: int) -> str:
    return f"{parts_prefix(quarter, run)}{batch}_part_{number:04d}.parquet"


def progress_prefix(quarter: str, run: str) -> str:
    return f"progress/{quarter}/{run}/"


def progress_key(quarter: str, run: str, batch: str) -> str:
    return f"{progress_prefix(quarter, run)}{batch}.json"


def latest_key(quarter: str) -> str:
    """The record of the last run that succeeded, for readers of results."""
    return f"progress/{quarter}/latest.json"


def claim_key(quarter: str) -> str:
    """Names the quarter's execution: who starts another one must find here that it has ended."""
    return f"progress/{quarter}/claim.json"
