"""The worker, started beside the stack as its jobs start it: `python -m worker...`."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from cli.errors import CliError, ExitCode, NotFoundError, UsageError
from cli.stack import Stack
from contract import env


def name(stack: Stack, quarter: str, firms: Sequence[str], out: Path, llm: Mapping[str, str]) -> None:
    """Find and name the topics of `firms` on this machine, into a Parquet file; nothing in the bucket changes.

    Args:
        out: where the file goes; it is replaced whole or not at all. When the LLM fails, it holds what was named until
            then.
        llm: LLM_BASE_URL and LLM_MODEL_NAME, if they are not to come from this process's environment.

    Raises:
        UsageError: when the worker is not installed here.
        CliError: when it fails; it has said why on stderr.
    """
    if find_spec("aiohttp") is None or find_spec("sklearn") is None:
        raise UsageError("naming on this machine needs the worker: pip install 'ftm[worker]'")
    batch = {
        env.S3_BUCKET: stack.output("bucket"),
        env.QUARTER: quarter,
        env.TOPIC_EMBEDDING_MODEL: _embedding_model(stack),
    }
    environment = {**os.environ, **_aws(stack), **llm, **batch}
    command = [sys.executable, "-m", "evaluation.name_sample", str(out)]
    done = subprocess.run(command, env=environment, input="\n".join(firms), text=True, check=False)
    if done.returncode:
        code = ExitCode.NOT_FOUND if done.returncode == os.EX_TEMPFAIL else ExitCode.FAILED
        raise CliError(f"the worker ended with {done.returncode}, as it said above", code)


def _embedding_model(stack: Stack) -> str:
    """What the stack's jobs find topics by: other topics could not be held against theirs."""
    arn = stack.output("job_definition_arn")
    definitions = stack.batch.describe_job_definitions(jobDefinitions=[arn])["jobDefinitions"]
    if not definitions:
        raise NotFoundError(f"the job definition {arn} is not there: is the stack deployed in this region?")
    variables = definitions[0].get("containerProperties", {}).get("environment", [])
    return next((item.get("value", "") for item in variables if item.get("name") == env.TOPIC_EMBEDDING_MODEL), "")


def _aws(stack: Stack) -> dict[str, str]:
    """The stack's AWS, as an SDK reads it from the environment."""
    if stack.endpoint:
        keys = {name.upper(): value for name, value in stack.credentials.items()}
        return {"AWS_ENDPOINT_URL": stack.endpoint, "AWS_DEFAULT_REGION": stack.region or "", **keys}
    found = {"AWS_PROFILE": stack.profile, "AWS_DEFAULT_REGION": stack.region}
    return {name: value for name, value in found.items() if value}
