"""What the worker reads from its environment. Nothing heavy is imported here: a wrong variable is told at once."""

from collections.abc import Mapping
from dataclasses import dataclass

from contract import ContractError, env
from contract.layout import run_of_manifest
from contract.quarter import check_quarter
from llm.settings import LlmSettings, read_llm_settings
from worker import WorkerError

DEFAULT_CHECKPOINT_INTERVAL = 25


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
        WorkerError, ContractError, LlmError: naming the variable that is missing or wrong.
    """
    manifest_key = env.required(environ, env.MANIFEST_S3_KEY)
    try:
        quarter = check_quarter(env.required(environ, env.QUARTER))
        run = run_of_manifest(manifest_key)
    except ContractError as error:
        raise WorkerError(f"{env.QUARTER} or {env.MANIFEST_S3_KEY} is wrong: {error}") from error
    return Settings(
        bucket=env.required(environ, env.S3_BUCKET),
        quarter=quarter,
        batch_id=env.required(environ, env.BATCH_ID),
        manifest_key=manifest_key,
        run=run,
        checkpoint_interval=env.positive(environ, env.CHECKPOINT_INTERVAL, DEFAULT_CHECKPOINT_INTERVAL),
        embedding_model=environ.get(env.TOPIC_EMBEDDING_MODEL, ""),
        llm=read_llm_settings(environ),
    )
