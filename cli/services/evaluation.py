"""The tools in `evaluation/`, each started as a process."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cli.errors import CliError, NotFoundError, UsageError
from cli.services import parquet, prefetch, processes, topics
from cli.stack import Stack
from contract import ContractError, env, layout
from contract import resource_names as names
from contract.exit_codes import ExitCode
from contract.layout import RunRef, check_run
from contract.topics import NAME_COLUMNS

_BOOT_SECONDS = 300
"""Time limit for the start of a new Batch host; local processes start at once."""

_SHOWN_SENTENCES = 8
"""Number of sentences per topic that the judge is shown."""


def name_sample(stack: Stack, quarter: str, firms: Sequence[str], out: Path, llm: Mapping[str, str]) -> None:
    """Find and name the topics of `firms` on this machine, into a Parquet file; nothing in the bucket changes.

    Args:
        out: the file, replaced as a whole or not at all. If the LLM fails midway, it holds the topics named until then.
        llm: LLM_BASE_URL and LLM_MODEL_NAME, if they should not come from this process's environment.

    Raises:
        UsageError: when the worker is not installed here.
        CliError: when naming fails; the process has printed why on stderr.
    """
    _check_worker("naming on this machine")
    batch = {
        env.S3_BUCKET: stack.output("bucket"),
        env.QUARTER: quarter,
        env.TOPIC_EMBEDDING_MODEL: _embedding_model(stack),
    }
    environment = {**os.environ, **processes.aws_environment(stack), **llm, **batch}
    command = [sys.executable, "-m", "evaluation.name_sample", str(out)]
    done = subprocess.run(command, env=environment, input="\n".join(firms), text=True, check=False)
    if done.returncode:
        code = ExitCode.NOT_FOUND if done.returncode == os.EX_TEMPFAIL else ExitCode.FAILED
        raise CliError(f"naming failed with exit code {done.returncode}; the reason is above", code)


def naming_methods(out: Path) -> list[str]:
    """How each topic of a file that `name_sample` wrote was named."""
    return [row["naming_method"] for row in parquet.read_rows(out.read_bytes(), ["naming_method"], None, str(out))]


def compare(
    stack: Stack, ref: RunRef, other: str, *, show: int, judged: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Compare the topic names of a run with those of another run, or of a file that `ftm name` wrote.

    Returns:
        `evaluation.compare`'s Comparison, and the pairs for `judge`.

    Raises:
        UsageError: when `other` is neither a run nor a file, or nothing in it can be compared.
        NotFoundError: when there is no such run.
    """
    with tempfile.TemporaryDirectory() as folder:
        a = {"path": _save_names(stack, ref, Path(folder) / "a.parquet"), "source": ref.run}
        if Path(other).is_file():
            b = {"path": other, "source": other}
        else:
            path = _save_names(stack, RunRef(ref.quarter, _run(other)), Path(folder) / "b.parquet")
            b = {"path": path, "source": other}
        request = {"quarter": ref.quarter, "a": a, "b": b, "show": show, "judged": judged}
        answer = processes.ask("evaluation.compare", request)
    return answer["comparison"], answer["to_judge"]


def judge(
    stack: Stack, quarter: str, url: str, model: str | None, pairs: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Have an LLM decide which name of each pair is better; returns `evaluation.judge`'s Verdicts.

    Raises:
        UsageError: when the worker is not installed here.
        CliError: when the judge cannot be used.
    """
    _check_worker("judging names")
    ids = (sentence for pair in pairs for sentence in pair["sentence_ids"])
    texts = _sentences(stack, quarter, ids, {pair["firm_id"] for pair in pairs})
    with_sentences = [
        {
            "a_name": pair["a_name"],
            "b_name": pair["b_name"],
            "sentences": [texts[sentence] for sentence in pair["sentence_ids"] if sentence in texts][:_SHOWN_SENTENCES],
        }
        for pair in pairs
    ]
    return processes.ask("evaluation.judge", {"url": url, "model": model, "pairs": with_sentences})


def load_test(stack: Stack, jobs: int, levels: Sequence[int], seconds: int) -> dict[str, Any]:
    """Measure the stack's vLLM under the load of `jobs` Batch jobs; returns `evaluation.load_test`'s Load.

    Raises:
        CliError: when a job fails, or none of the requests is answered.
    """
    request = {
        "name_prefix": names.prefix(stack.name),
        "job_queue_arn": stack.output("job_queue_arn"),
        "job_definition_arn": stack.output("job_definition_arn"),
        "log_group": stack.output("batch_log_group"),
        "jobs": jobs,
        "levels": list(levels),
        "seconds": seconds,
        "boot_seconds": _BOOT_SECONDS if stack.endpoint is None else 10,
        "poll_interval": stack.poll_interval,
    }
    return processes.ask("evaluation.load_test", request, processes.aws_environment(stack))


def smoke_test(stack: Stack, quarter: str | None) -> dict[str, Any]:
    """Name three topics through the stack's LLM, from a Batch job; returns `evaluation.smoke`'s Smoke.

    Args:
        quarter: whose topics to name; None for topics that are built in.

    Raises:
        NotFoundError: when the quarter has no prefetch.
        CliError: when the job fails, with the end of its log.
    """
    if quarter:
        prefetch.of_stack(stack, quarter)
    request = {
        "name_prefix": names.prefix(stack.name),
        "job_queue_arn": stack.output("job_queue_arn"),
        "job_definition_arn": stack.output("job_definition_arn"),
        "log_group": stack.output("batch_log_group"),
        "bucket": stack.output("bucket"),
        "quarter": quarter,
        "poll_interval": stack.poll_interval,
    }
    return processes.ask("evaluation.smoke", request, processes.aws_environment(stack))


def sample_firms(stack: Stack, quarter: str, count: int) -> list[str]:
    """A reproducible random sample of the firms in the quarter's prefetch.

    Raises:
        NotFoundError: when the quarter has no prefetch.
    """
    import random

    firms = sorted(prefetch.of_stack(stack, quarter).firm_to_chunk)
    return sorted(random.Random(quarter).sample(firms, min(count, len(firms))))  # noqa: S311 (nothing to guess)


def _check_worker(what: str) -> None:
    if find_spec("openai") is None or find_spec("sklearn") is None:
        raise UsageError(f"{what} needs the worker: pip install -e '.[worker]'")


def _run(text: str) -> str:
    try:
        return check_run(text)
    except ContractError as error:
        raise UsageError(f"{text} is neither a file nor a run such as 20230405_101500") from error


def _save_names(stack: Stack, ref: RunRef, path: Path) -> str:
    parquet.write_rows(topics.rows(stack, ref, NAME_COLUMNS), path)
    return str(path)


def _sentences(stack: Stack, quarter: str, ids: Iterable[str], firms: Iterable[str]) -> dict[str, str]:
    """The texts of sentences of some firms, by sentence id; sentences that the prefetch lacks are left out."""
    wanted = set(ids)
    manifest = prefetch.of_stack(stack, quarter)
    chunks = sorted({manifest.firm_to_chunk[firm] for firm in firms if firm in manifest.firm_to_chunk})
    texts: dict[str, str] = {}
    for chunk in chunks:
        key = layout.chunk_key(quarter, chunk)
        found = stack.bucket.get(key)
        if found is None:
            raise NotFoundError(f"{stack.bucket.url(key)} is missing, although the prefetch manifest names it")
        for row in parquet.read_rows(found.body, ("sentence_id", "raw_text"), None, stack.bucket.url(key)):
            if row["sentence_id"] in wanted:
                texts[row["sentence_id"]] = row["raw_text"] or ""
    return texts


def _embedding_model(stack: Stack) -> str:
    """The embedding model of the stack's jobs: topics found with another one cannot be compared with theirs."""
    arn = stack.output("job_definition_arn")
    definitions = stack.batch.describe_job_definitions(jobDefinitions=[arn])["jobDefinitions"]
    if not definitions:
        raise NotFoundError(f"the job definition {arn} does not exist: is the stack deployed in this region?")
    variables = definitions[0].get("containerProperties", {}).get("environment", [])
    return next((item.get("value", "") for item in variables if item.get("name") == env.TOPIC_EMBEDDING_MODEL), "")
