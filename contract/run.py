"""A run of a quarter: the state machine's input, what its functions hand on, and how it ended."""

from typing import NotRequired, TypedDict

DEFAULT_BATCH_SIZE = 1000
"""Firms a batch, unless the input says otherwise."""

DEFAULT_MIN_NAMED_SHARE = 0.98
"""Below this share of topics named by the LLM a run has failed."""


class QuarterInput(TypedDict):
    quarter: str
    bucket: str
    batch_size: NotRequired[int]
    resume: NotRequired[str]
    """A run id: process only that run's batches that are not complete."""


class PrefetchCheck(TypedDict):
    """What `prefetch_check` answers. `error` and `cause` are the Fail state's, when the run cannot start."""

    exists: bool
    error: NotRequired[str]
    cause: NotRequired[str]


class BatchManifest(TypedDict):
    """What `create_batch_manifest` answers: batch ids only, since a state holds at most 256 KiB."""

    run: str
    manifest_key: str
    firms: int
    batch_size: int
    batch_ids: list[str]


class BatchOutcome(TypedDict):
    """What one iteration of the Map returns."""

    batch_id: str
    status: str
    """`SUCCEEDED` or `FAILED`."""
    error: NotRequired[str]


class Failure(TypedDict):
    """A batch that failed, and why."""

    batch_id: str
    reason: str


class BatchCounts(TypedDict):
    total: int
    succeeded: int
    failed: int


class FirmCounts(TypedDict):
    total: int
    completed: int
    skipped: int
    failed: int


class TopicCounts(TypedDict):
    total: int
    named: int


class TokenCounts(TypedDict):
    prompt: int
    cached: int
    completion: int


class Summary(TypedDict):
    """What `summarize_results` answers, counted from the bucket as well as from the Map."""

    quarter: str
    run: str
    has_failures: bool
    message: str
    """One sentence: how the run ended, and why if it failed."""
    batches: BatchCounts
    firms: FirmCounts
    topics: TopicCounts
    tokens: TokenCounts
    failures: list[Failure]
    """The first failed batches, few enough for a state."""
