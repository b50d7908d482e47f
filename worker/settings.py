"""The worker's settings, read from its environment. Nothing heavy is imported here: a wrong variable is reported at
once."""

from collections.abc import Mapping
from dataclasses import dataclass

from contract import ContractError, env
from contract.layout import RunRef, run_of_manifest
from contract.quarter import check_quarter
from llm.settings import LlmSettings, read_llm_settings
from worker import WorkerError

DEFAULT_CHECKPOINT_INTERVAL = 25


@dataclass(frozen=True)
class Settings:
    bucket: str
    run: RunRef
    batch_id: str
    checkpoint_interval: int
    """Firms between two checkpoints."""
    embedding_model: str
    """Empty when topics are found by LSA."""
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
    if run.quarter != quarter:
        raise WorkerError(f"{env.MANIFEST_S3_KEY} is of {run.quarter}, but {env.QUARTER} is {quarter}")
    return Settings(
        bucket=env.required(environ, env.S3_BUCKET),
        run=run,
        batch_id=env.required(environ, env.BATCH_ID),
        checkpoint_interval=env.positive(environ, env.CHECKPOINT_INTERVAL, DEFAULT_CHECKPOINT_INTERVAL),
        embedding_model=environ.get(env.TOPIC_EMBEDDING_MODEL, ""),
        llm=read_llm_settings(environ),
    )
