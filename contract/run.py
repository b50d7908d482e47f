"""A run of a quarter: the state machine's input, what its functions hand on, and how it ended."""

from typing import NotRequired, TypedDict

from contract.fallbacks import FallbackRecord

DEFAULT_BATCH_SIZE = 1000
"""Firms a batch, unless the input says otherwise."""

MAX_BATCH_SIZE = 10_000
"""Firms a batch at most: one batch should end within a day."""

MAX_BATCHES = 2_000
"""Batches a run at most: a batch costs ten of an execution's 25,000 events, which leaves room to retry 1,600 throttled
submissions, and about 100 bytes of the 256 KiB of a state. The tests of the state machine do the sums."""

MAX_FIRMS = 200_000
"""Firms a run at most: their prefetch manifest is read within the 256 MB of a function."""

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


class ManifestRequest(TypedDict):
    """What `create_batch_manifest` is asked."""

    input: QuarterInput
    execution: str
    """The execution's ARN: tells the retry of a function from another execution of the same second."""
    started_at: str
    """When the execution started, ISO 8601: the run is named after it, so that a retry names the same run."""


class BatchManifest(TypedDict):
    """What `create_batch_manifest` answers: batch ids only, since a state holds at most 256 KiB."""

    run: str
    manifest_key: str
    firms: int
    """Firms in the batches to process."""
    batch_size: int
    batch_ids: list[str]
    """The batches to process: of a resumed run, those that are not complete."""
    note: NotRequired[str]
    """Said when the batch size is not the one that was asked for."""


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
    """One sentence: what the bucket or the state machine says of it."""
    status_reason: NotRequired[str]
    """Batch's own, of the job and its last attempt."""
    exit_code: NotRequired[int]
    log_stream: NotRequired[str]
    attempts: NotRequired[int]


class BatchCounts(TypedDict):
    total: int
    succeeded: int
    failed: int


class FirmCounts(TypedDict):
    total: int
    completed: int
    skipped: int
    failed: int
    """Neither completed nor skipped: failed, or never reached."""


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
    fallbacks: list[FallbackRecord]
    """Why topics fell back to their keywords, the most frequent reason first."""
    seconds: float
    """Seconds of work of all batches together."""
    failures: list[Failure]
    """The first failed batches, few enough for a state; the record in the bucket has them all."""


class RunState(TypedDict):
    """The state machine's data when its Map has ended.

    A state that failed leaves `{"Error", "Cause"}` where its answer would be: the summary reports it.
    """

    quarter: str
    bucket: str
    manifest: object
    batches: NotRequired[object]


class SummaryRequest(TypedDict):
    """What `summarize_results` is asked."""

    state: RunState
    execution: str


class BatchRecord(TypedDict):
    """One batch in the run's record in the bucket."""

    batch_id: str
    succeeded: bool
    problem: NotRequired[str]
    firms: FirmCounts
    topics: TopicCounts
    tokens: TokenCounts
    seconds: float


class RunRecord(TypedDict):
    """How a run ended: `manifests/{quarter}/summary_{run}.json`, and `progress/{quarter}/latest.json` if it is that."""

    quarter: str
    run: str
    execution: str
    finished_at: str
    """ISO 8601, UTC."""
    summary: Summary
    batches: list[BatchRecord]


class NotificationRequest(TypedDict):
    """What `notify_completion` is asked."""

    summary: Summary
    execution: str


class Notification(TypedDict):
    """What `notify_completion` answers."""

    notified: bool
    reason: str
    """One sentence: who was told, or why nobody was."""
