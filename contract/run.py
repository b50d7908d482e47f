"""A run of a quarter: the state machine's input, the events and answers of its functions, and the record of its end."""

import math
from collections.abc import Sequence
from typing import NotRequired, TypedDict

from contract.fallbacks import FallbackRecord
from contract.layout import RunRef

DEFAULT_BATCH_SIZE = 1000
"""Firms in a batch, unless the input says otherwise."""

MAX_BATCH_SIZE = 10_000
"""Upper bound on the firms in a batch: a batch should end within a day."""

MAX_BATCHES = 2_000
"""Upper bound on the batches of a run: a batch takes 10 of an execution's 25,000 events, which leaves room to retry
1,600 throttled submissions, and about 100 bytes of the 256 KiB of a state. The state machine's tests check this."""

MAX_FIRMS = 200_000
"""Upper bound on the firms of a run: their prefetch manifest is read within the 256 MB of a function."""

MAX_LLM_CONCURRENCY = 1024
"""Upper bound on the requests that one batch sends at once."""

DEFAULT_MIN_NAMED_SHARE = 0.98
"""A run fails when the LLM has named less than this share of its topics."""


def model_conflict(run: RunRef, began_with: str, stack_has: str, command: str = "ftm") -> str:
    """Why a run is not resumed with another model, in a sentence; empty when the model is the same or is not known."""
    if not began_with or not stack_has or began_with == stack_has:
        return ""
    return (
        f"run {run.run} of {run.quarter} began with the model {began_with}, and the stack now has {stack_has}: "
        f"`{command} resume {run.quarter} {run.run} --model-change` continues with {stack_has}"
    )


def fit_batch_size(firms: int, wanted: int) -> int:
    """The requested batch size, or the smallest that keeps a run of `firms` within MAX_BATCHES."""
    return max(wanted, math.ceil(firms / MAX_BATCHES))


class QuarterInput(TypedDict):
    quarter: str
    bucket: str
    batch_size: NotRequired[int]
    resume: NotRequired[str]
    """A run id: process only that run's batches that are not complete, or lack names."""
    model_change: NotRequired[bool]
    """Whether the resumed run may use another model than the one that it began with."""
    llm_concurrency: NotRequired[int]
    """Requests that one batch sends at once; by default as the stack is deployed."""


class VllmInput(TypedDict):
    """vLLM around a list of quarters."""

    size: NotRequired[int]
    """GPU instances to start before the first quarter. Absent to take vLLM as it is, which must then be kept."""
    keep: bool
    """Leave them on after the last one."""
    smoke_test: NotRequired[bool]
    """Whether vLLM names three topics before the first quarter; by default it does."""


class QuartersInput(TypedDict):
    """The input of the state machine that runs a list of quarters."""

    quarters: Sequence[QuarterInput]
    at_once: int
    vllm: NotRequired[VllmInput]


class PrefetchCheck(TypedDict):
    """The answer of `prefetch_check`. `error` and `cause` go to the Fail state when the run cannot start."""

    exists: bool
    error: NotRequired[str]
    cause: NotRequired[str]


class ManifestRequest(TypedDict):
    """The event of `create_batch_manifest`."""

    input: QuarterInput
    execution: str
    """The execution's ARN: distinguishes a retry of the function from another execution in the same second."""
    started_at: str
    """When the execution started, ISO 8601: the run is named after it, so that a retry creates the same run."""


class BatchManifest(TypedDict):
    """The answer of `create_batch_manifest`: batch ids only, since a state has at most 256 KiB."""

    run: str
    manifest_key: str
    firms: int
    """Firms in the batches to process."""
    batch_size: int
    batch_ids: list[str]
    """The batches to process: of a resumed run, those that are not complete or lack names."""
    llm_concurrency: NotRequired[int]
    """Requests that one batch sends at once; absent for a stack without vLLM."""
    note: NotRequired[str]
    """Present when the batch size is not the requested one."""


class Failure(TypedDict):
    """A batch that failed, and why."""

    batch_id: str
    reason: str
    """One sentence, from the progress record or the state machine."""
    status_reason: NotRequired[str]
    """Batch's reasons for the end of the job and of its last attempt."""
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


class Repair(TypedDict):
    """How a resumed run repairs a run with too few names: it requests names for the topics without one."""

    repeated_names: list[str]
    """Names that many unrelated topics have, in lower case and without punctuation: these topics are named again
    too."""


class TopicCounts(TypedDict):
    total: int
    named: int
    incoherent: NotRequired[int]
    """Named topics whose sentences do not share a single subject, according to the LLM. Absent if there are none."""


class TokenCounts(TypedDict):
    prompt: int
    cached: int
    completion: int


class Summary(TypedDict):
    """The answer of `summarize_results`, counted from the bucket and from the outcomes of the Map."""

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
    """The first failed batches, few enough for a state; the run's record in the bucket has all of them."""
    repair: NotRequired[Repair]
    """Present when too few topics have a name."""


class FailedState(TypedDict):
    """What Step Functions stores instead of the answer of a failed state."""

    Error: str
    Cause: str


class UncountedSummary(TypedDict):
    """What replaces the summary when `summarize_results` failed."""

    message: FailedState


class RunState(TypedDict):
    """The state machine's data when its Map has ended.

    A state that failed leaves `{"Error", "Cause"}` instead of its answer, and the summary reports it.
    """

    quarter: str
    bucket: str
    manifest: object
    batches: NotRequired[object]


class SummaryRequest(TypedDict):
    """The event of `summarize_results`."""

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
    """How a run ended. It is `manifests/{quarter}/summary_{run}.json`, and of the last success `.../latest.json`."""

    quarter: str
    run: str
    execution: str
    finished_at: str
    """ISO 8601, UTC."""
    summary: Summary
    batches: list[BatchRecord]


class NotificationRequest(TypedDict):
    """The event of `notify_completion`."""

    summary: Summary | UncountedSummary
    quarter: str
    execution: str
    started_at: NotRequired[str]
    """When the execution began: ISO 8601, UTC."""
    own_gpu: NotRequired[bool]
    """Whether the LLM runs on a GPU of the stack."""


class Notification(TypedDict):
    """Whether the notice was published."""

    notified: bool
    reason: str
    """One sentence: where the notice was published, or why it was not."""


class NotifiedRun(TypedDict):
    """The answer of `notify_completion`: the last data of the state machine."""

    summary: Summary
    """As it was given; after a failure of `summarize_results`, one without counts whose message explains it."""
    notification: Notification
