"""The names of the environment variables that one package sets and another reads, and functions that read them."""

import re
from collections.abc import Mapping

from contract import ContractError

# The worker: one batch (state machine -> Batch job).
S3_BUCKET = "S3_BUCKET"
QUARTER = "QUARTER"
BATCH_ID = "BATCH_ID"
MANIFEST_S3_KEY = "MANIFEST_S3_KEY"
CHECKPOINT_INTERVAL = "CHECKPOINT_INTERVAL"
TOPIC_EMBEDDING_MODEL = "TOPIC_EMBEDDING_MODEL"
"""A sentence-transformers model; without it topics are found by LSA."""

# The worker: its LLM (job definition). Absent when the stack has no vLLM.
LLM_BASE_URL = "LLM_BASE_URL"
LLM_MODEL_NAME = "LLM_MODEL_NAME"
LLM_MAX_CONCURRENT = "LLM_MAX_CONCURRENT"
LLM_API_KEY = "LLM_API_KEY"

# The worker's image as a load generator (`ftm vllm bench`).
BENCH_LEVELS = "BENCH_LEVELS"
"""The concurrency levels in their order, as requests in flight: `1,2,4`."""
BENCH_SECONDS = "BENCH_SECONDS"
"""Duration of each concurrency level, in seconds."""
BENCH_START = "BENCH_START"
"""When the first level starts, in seconds since the epoch: it synchronises the jobs."""
BENCH_PAUSE_SECONDS = 10
"""Pause between two levels, in which the requests of the last one end."""

# The operator's machine.
FTM_PROJECT = "FTM_PROJECT"
"""The checkout whose stacks `ftm` reads, when ftm is installed elsewhere."""
FTM_LOCAL_DIR = "FTM_LOCAL_DIR"
"""Where the embedded AWS keeps its state and logs, if not in the project's `.ftm`."""

# The worker: a themes job (`ftm themes`).
THEMES_RANGE = "THEMES_RANGE"
"""A quarter, or a range such as `2021Q2..2021Q4`."""
THEMES_RUN = "THEMES_RUN"
"""The id of the themes run."""
THEMES_QUARTER_RUNS = "THEMES_QUARTER_RUNS"
"""The run of each quarter of the range whose topics are clustered, joined by commas."""

# The functions.
MIN_NAMED_SHARE = "MIN_NAMED_SHARE"
JOB_QUEUE_ARN = "JOB_QUEUE_ARN"
JOB_NAME_PREFIX = "JOB_NAME_PREFIX"
SNS_TOPIC_ARN = "SNS_TOPIC_ARN"


def llm_api_key(environ: Mapping[str, str]) -> str:
    """The key in LLM_API_KEY; empty without one.

    Raises:
        ContractError: when no HTTP header can carry it; the HTTP libraries' own errors would print it.
    """
    key = environ.get(LLM_API_KEY, "")
    if not re.fullmatch("[!-~]*", key):
        raise ContractError(
            f"{LLM_API_KEY} holds a blank, a line break or another character that no key has: set it, or store its "
            "secret, without it"
        )
    return key


def required(environ: Mapping[str, str], name: str) -> str:
    """The value of a variable.

    Raises:
        ContractError: when it is missing or empty.
    """
    value = environ.get(name, "")
    if not value:
        raise ContractError(f"the environment lacks {name}; ftm or its state machine sets it")
    return value


def positive(environ: Mapping[str, str], name: str, default: int) -> int:
    """The whole number, at least 1, in a variable; `default` where it is missing or empty.

    Raises:
        ContractError: when it is anything else.
    """
    text = environ.get(name) or str(default)
    if not text.isdecimal() or int(text) < 1:
        raise ContractError(f"{name} is {text!r}; it must be a whole number of at least 1")
    return int(text)
