"""What the themes job reads from its environment."""

from collections.abc import Mapping
from dataclasses import dataclass

from contract import ContractError, env
from contract.layout import RunRef, check_run
from contract.quarter import quarters_of
from contract.themes import ThemesRef
from llm.settings import LlmSettings, read_llm_settings


@dataclass(frozen=True)
class Settings:
    bucket: str
    themes: ThemesRef
    runs: list[RunRef]
    """The run of each quarter whose topics are clustered, in the order of the quarters."""
    llm: LlmSettings


def read_settings(environ: Mapping[str, str]) -> Settings:
    """The settings of one themes job.

    Raises:
        ContractError, LlmError: naming the variable that is missing or wrong.
    """
    range_ = env.required(environ, env.THEMES_RANGE)
    quarters = quarters_of(range_)
    runs = [check_run(run) for run in env.required(environ, env.THEMES_QUARTER_RUNS).split(",")]
    if len(runs) != len(quarters):
        raise ContractError(
            f"{env.THEMES_QUARTER_RUNS} names {len(runs)} runs, and {env.THEMES_RANGE} {len(quarters)} quarters"
        )
    return Settings(
        bucket=env.required(environ, env.S3_BUCKET),
        themes=ThemesRef(range_, check_run(env.required(environ, env.THEMES_RUN))),
        runs=[RunRef(quarter, run) for quarter, run in zip(quarters, runs, strict=True)],
        llm=read_llm_settings(environ),
    )
