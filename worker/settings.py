"""What the worker reads from its environment. Nothing heavy is imported here: a wrong variable is told at once."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from contract import ContractError, env
from contract.layout import run_of_manifest
from contract.quarter import check_quarter
from worker import WorkerError

XAI_BASE_URL = "https://api.x.ai/v1"
XAI_MODEL = "grok-4-1-fast-non-reasoning"

DEFAULT_CHECKPOINT_INTERVAL = 25
DEFAULT_MAX_CONCURRENT = 16


@dataclass(frozen=True)
class LlmSettings:
    base_url: str
    model: str | None
    """None: the only model that the server has."""
    max_concurrent: int = DEFAULT_MAX_CONCURRENT
    api_key: str = field(default="", repr=False)

    @property
    def hosted(self) -> bool:
        """The xAI API, which wants a key, and refuses what vLLM knows beyond OpenAI's API."""
        return self.base_url == XAI_BASE_URL


@dataclass(frozen=True)
class Settings:
    bucket: str
    quarter: str
    batch_id: str
    manifest_key: str
    run: str
    checkpoint_interval: int
    """Firms a checkpoint."""
    embedding_model: str
    """Empty: topics are found by LSA."""
    llm: LlmSettings


def read_settings(environ: Mapping[str, str]) -> Settings:
    """The settings of one batch.

    Raises:
        WorkerError, ContractError: naming the variable that is missing or wrong.
    """
    manifest_key = required(environ, env.MANIFEST_S3_KEY)
    try:
        quarter = check_quarter(required(environ, env.QUARTER))
        run = run_of_manifest(manifest_key)
    except ContractError as error:
        raise WorkerError(f"{env.QUARTER} or {env.MANIFEST_S3_KEY} is wrong: {error}") from error
    return Settings(
        bucket=required(environ, env.S3_BUCKET),
        quarter=quarter,
        batch_id=required(environ, env.BATCH_ID),
        manifest_key=manifest_key,
        run=run,
        checkpoint_interval=_positive(environ, env.CHECKPOINT_INTERVAL, DEFAULT_CHECKPOINT_INTERVAL),
        embedding_model=environ.get(env.TOPIC_EMBEDDING_MODEL, ""),
        llm=read_llm_settings(environ),
    )


def read_llm_settings(environ: Mapping[str, str], base_url: str | None = None) -> LlmSettings:
    """The LLM's address is `base_url` if given, else LLM_BASE_URL, else the xAI API.

    Raises:
        WorkerError: for an address that is none, or the xAI API without a key.
        ContractError: for a key that cannot be sent.
    """
    address = (base_url or environ.get(env.LLM_BASE_URL) or XAI_BASE_URL).rstrip("/")
    if "@" in address:
        raise WorkerError(f"{env.LLM_BASE_URL} has a user or a password in it: leave it out, and set {env.LLM_API_KEY}")
    if not re.match(r"https?://[^/\s]+", address):
        raise WorkerError(f"{env.LLM_BASE_URL} is {address!r}, which is no address: write http://host:port/v1")
    settings = LlmSettings(
        base_url=address,
        model=environ.get(env.LLM_MODEL_NAME) or (XAI_MODEL if address == XAI_BASE_URL else None),
        max_concurrent=_positive(environ, env.LLM_MAX_CONCURRENT, DEFAULT_MAX_CONCURRENT),
        api_key=env.llm_api_key(environ),
    )
    if settings.hosted and not settings.api_key:
        raise WorkerError(
            f"there is no LLM: set {env.LLM_BASE_URL} to a vLLM server, or {env.LLM_API_KEY} to a key of the xAI API"
        )
    return settings


def required(environ: Mapping[str, str], name: str) -> str:
    """The value of a variable.

    Raises:
        WorkerError: when it is missing or empty.
    """
    value = environ.get(name, "")
    if not value:
        raise WorkerError(f"the environment lacks {name}; ftm or its state machine sets it")
    return value


def _positive(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name) or str(default)
    if not text.isdecimal() or int(text) < 1:
        raise WorkerError(f"{name} is {text!r}; it must be a whole number of at least 1")
    return int(text)
