"""Themes of one or more quarters: the Batch job that finds them, and its results."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypedDict, cast

from cli.errors import CliError, NotFoundError
from cli.services import parquet, runs, stalls, topics
from cli.stack import Stack
from contract import env, layout
from contract import resource_names as names
from contract.layout import RunRef
from contract.quarter import quarters_of
from contract.themes import ThemesRecord, ThemesRef, parse_themes_record, themes_prefix, themes_runs

_THEME_COLUMNS = ("theme_id", "name", "summary", "naming_method", "keywords", "n_firms", "n_topics", "quarters")
_ENDED = ("SUCCEEDED", "FAILED")


class Theme(TypedDict):
    """A theme, as `ftm themes --json` prints it."""

    theme_id: str
    name: str
    summary: str
    naming_method: str
    keywords: list[str]
    n_firms: int
    n_topics: int
    share: dict[str, float]
    """Quarter to the theme's share of the sentences of all topics."""
    change: dict[str, float | None]
    """Quarter to the change of its share since the quarter before; None in the first quarter."""


class Themes(TypedDict):
    """The results of one themes run."""

    range: str
    run: str
    themes: list[Theme]


@dataclass(frozen=True)
class QuarterTopics:
    """What a themes run will read of one quarter."""

    quarter: str
    run: str
    firms: int
    topics: int


@dataclass(frozen=True)
class ThemesJob:
    """The Batch job of a themes run at one moment."""

    status: str
    reason: str
    """Batch's reason for its end; empty until then."""
    record: ThemesRecord | None
    """None until the job has written it."""
    last_logged: str = ""
    """The last line of its log, once it has failed."""


def plan(stack: Stack, range_: str) -> list[QuarterTopics]:
    """The runs whose topics are clustered: the last one of each quarter that succeeded.

    Raises:
        ContractError: when the range is not valid.
        NotFoundError: when a quarter has no run that succeeded.
    """
    planned: list[QuarterTopics] = []
    for quarter in quarters_of(range_):
        run = topics.latest_run(stack, quarter)
        record = runs.record_of(stack, RunRef(quarter, run))
        if record is None:
            raise NotFoundError(f"run {run} of {quarter} has no summary, although it is the last one that succeeded")
        summary = record["summary"]
        planned.append(QuarterTopics(quarter, run, summary["firms"]["completed"], summary["topics"]["total"]))
    return planned


def submit(stack: Stack, range_: str, planned: Sequence[QuarterTopics]) -> tuple[ThemesRef, str]:
    """Submit the job, and return the themes run and the job's id."""
    ref = ThemesRef(range_, layout.run_id(datetime.now(UTC)))
    variables = {
        env.S3_BUCKET: stack.output("bucket"),
        env.THEMES_RANGE: range_,
        env.THEMES_RUN: ref.run,
        env.THEMES_QUARTER_RUNS: ",".join(each.run for each in planned),
    }
    job = stack.batch.submit_job(
        jobName=f"{names.prefix(stack.name)}-themes-{ref.run}",
        jobQueue=stack.output("job_queue_arn"),
        jobDefinition=stack.output("job_definition_arn"),
        containerOverrides={
            "command": ["python", "-m", "worker.themes"],
            "environment": [{"name": name, "value": value} for name, value in variables.items()],
        },
    )
    return ref, job["jobId"]


def watch(stack: Stack, ref: ThemesRef, job_id: str) -> Iterator[ThemesJob]:
    """The job and its record, until the job has ended."""
    while True:
        job = stack.batch.describe_jobs(jobs=[job_id])["jobs"][0]
        stream = job.get("container", {}).get("logStreamName", "")
        last_logged = stalls.last_line(stack, stream) if job["status"] == "FAILED" else ""
        yield ThemesJob(job["status"], job.get("statusReason", ""), _read_record(stack, ref), last_logged)
        if job["status"] in _ENDED:
            return
        time.sleep(stack.poll_interval)


def check_succeeded(ref: ThemesRef, job: ThemesJob) -> None:
    """Check that a job that has ended succeeded.

    Raises:
        CliError: with the reason, when it failed.
    """
    if job.record and job.record.state == "complete":
        return
    reason = job.record.error if job.record else ""
    if not reason:
        reason = job.reason or "it left no result"
        reason += f"; its log ends with: {job.last_logged}" if job.last_logged else ""
    raise CliError(f"the themes run {ref.run} of {ref.range} failed: {reason}")


def latest(stack: Stack, range_: str) -> ThemesRecord:
    """The record of the newest themes run of a range that succeeded.

    Raises:
        NotFoundError: when there is none.
    """
    for _, run in sorted(themes_runs(stack.bucket.keys(themes_prefix(range_))), reverse=True):
        record = _read_record(stack, ThemesRef(range_, run))
        if record and record.state == "complete":
            return record
    raise NotFoundError(f"{range_} has no themes: find them with `{stack.command} themes {range_}`")


def of_run(stack: Stack, run: RunRef) -> ThemesRef | None:
    """The newest themes run that succeeded and has clustered the topics of this run, of whatever range."""
    refs = {ThemesRef(range_, each) for range_, each in themes_runs(stack.bucket.keys(themes_prefix("")[:-1]))}
    for ref in sorted(refs, key=lambda ref: ref.run, reverse=True):
        record = _read_record(stack, ref)
        if record and record.state == "complete" and record.quarter_runs.get(run.quarter) == run.run:
            return ref
    return None


def members(stack: Stack, ref: ThemesRef, quarter: str) -> dict[str, str]:
    """The topics of a quarter that are in a theme: topic id -> theme id.

    Raises:
        NotFoundError: when the file is gone.
    """
    found = stack.bucket.get(ref.theme_topics_key)
    if found is None:
        raise NotFoundError(f"{stack.bucket.url(ref.theme_topics_key)} is gone, although the themes run has succeeded")
    columns = ("topic_id", "theme_id", "quarter")
    rows = parquet.read_rows(found.body, columns, None, stack.bucket.url(ref.theme_topics_key))
    return {row["topic_id"]: row["theme_id"] for row in rows if row["quarter"] == quarter}


def read(stack: Stack, ref: ThemesRef) -> Themes:
    """The themes of a run, the largest first.

    Raises:
        NotFoundError: when there is no such run.
    """
    found = stack.bucket.get(ref.themes_key)
    if found is None:
        raise NotFoundError(f"{ref.range} has no themes run {ref.run}: {stack.bucket.url(ref.themes_key)} is missing")
    rows = parquet.read_rows(found.body, _THEME_COLUMNS, None, stack.bucket.url(ref.themes_key))
    return {"range": ref.range, "run": ref.run, "themes": [_theme(row) for row in rows]}


def _theme(row: dict[str, Any]) -> Theme:
    quarters = row.pop("quarters")
    return cast(
        Theme,
        row
        | {
            "share": {each["quarter"]: each["share"] for each in quarters},
            "change": {each["quarter"]: each["change"] for each in quarters},
        },
    )


def _read_record(stack: Stack, ref: ThemesRef) -> ThemesRecord | None:
    found = stack.bucket.get(ref.record_key)
    return parse_themes_record(found.body) if found else None
