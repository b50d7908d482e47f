"""Files of a run's results, written by a process of the worker, which can read the prefetch."""

from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Literal, TypedDict

from cli.errors import NotFoundError, UsageError
from cli.services import processes, themes, topics
from cli.services.topics import FirmWithoutTopics
from cli.stack import Stack
from contract.layout import RunRef
from contract.quarter import quarter_before
from contract.themes import ThemesRef

Kind = Literal["topics", "sentences", "sentiment"]
SUFFIXES = (".parquet", ".csv", ".jsonl")


class WrittenFile(TypedDict):
    """What `ftm topics --out --json` prints."""

    quarter: str
    run: str
    file: str
    rows: int
    previous_run: str | None
    """The run of the quarter before that topics are linked to."""
    linked: int
    """Topics that are linked to one of the quarter before."""
    skipped: list[FirmWithoutTopics]


def write_topics(
    stack: Stack, ref: RunRef, out: Path, firm: str | None, topic_ids: Sequence[str] | None
) -> WrittenFile:
    """Write the topics of a run with all their columns, each linked to the quarter before.

    Args:
        topic_ids: only these topics; None for all.

    Raises:
        UsageError: when the file cannot be written.
        CliError: when a part of the run or of the prefetch is missing.
    """
    return _write(stack, ref, "topics", out, firm, topic_ids, None)


def write_sentences(stack: Stack, ref: RunRef, out: Path, firm: str | None) -> WrittenFile:
    """Write every sentence of the run's firms with its topic.

    Raises:
        UsageError, CliError: as `write_topics`.
    """
    return _write(stack, ref, "sentences", out, firm, None, None)


def write_sentiment(
    stack: Stack, quarter: str, run: str | None, range_: str, out: Path, firm: str | None
) -> WrittenFile:
    """Write a row for each topic that is in a theme of the newest themes run of `range_`, with its sentences.

    Args:
        run: the quarter's run; None for the one that the themes are of.

    Raises:
        UsageError, CliError: as `write_topics`; also when the themes are of another run.
        NotFoundError: when the range has no themes.
    """
    record = themes.latest(stack, range_)
    of_themes = record.quarter_runs.get(quarter)
    if of_themes is None:
        raise UsageError(f"the themes of {range_} are not of {quarter}: name a range that contains it with --themes")
    if run not in (None, of_themes):
        raise UsageError(f"the themes of {range_} are of run {of_themes}, not of {run}: leave out --run")
    return _write(stack, RunRef(quarter, of_themes), "sentiment", out, firm, None, record.ref)


def check_path(out: Path) -> None:
    """Refuse a file that cannot be written, before anything is read.

    Raises:
        UsageError: when it has another suffix, or its folder does not exist.
    """
    if out.suffix not in SUFFIXES:
        raise UsageError(f"--out {out} ends in none of {', '.join(SUFFIXES)}, which decide what is written")
    if out.is_dir() or not out.absolute().parent.is_dir():
        raise UsageError(f"--out {out} cannot be written: name a file in a folder that exists")


def _write(
    stack: Stack,
    run: RunRef,
    kind: Kind,
    out: Path,
    firm: str | None,
    topic_ids: Sequence[str] | None,
    themes_run: ThemesRef | None,
) -> WrittenFile:
    skipped = topics.without_topics(stack, run, firm)
    previous = _run_before(stack, run.quarter) if kind == "topics" else None
    request = {
        "bucket": stack.output("bucket"),
        "run": astuple(run),
        "previous": previous and astuple(previous),
        "kind": kind,
        "themes": themes_run and astuple(themes_run),
        "topic_ids": topic_ids,
        "firm_id": firm,
        "path": str(out.absolute()),
    }
    written = processes.ask("worker.export", request, processes.aws_environment(stack))
    return {
        "quarter": run.quarter,
        "run": run.run,
        "file": str(out),
        "rows": written["rows"],
        "previous_run": previous and previous.run,
        "linked": written["linked"],
        "skipped": skipped,
    }


def _run_before(stack: Stack, quarter: str) -> RunRef | None:
    before = quarter_before(quarter)
    try:
        return RunRef(before, topics.latest_run(stack, before))
    except NotFoundError:
        return None
