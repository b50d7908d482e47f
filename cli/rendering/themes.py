"""Themes on a terminal."""

from collections.abc import Sequence

from cli import output
from cli.services.themes import QuarterTopics, Theme, Themes, ThemesJob
from contract.fallbacks import fallback_records
from contract.themes import ThemesRecord

_SHOWN = 20
"""Themes in each table."""


def print_plan(planned: Sequence[QuarterTopics]) -> None:
    """What a themes run will read."""
    rows = [(each.quarter, each.run, each.firms, each.topics) for each in planned]
    output.print_table(("quarter", "run", "firms", "topics"), rows, err=True)


def progress_line(job: ThemesJob) -> str:
    """One line on a job: its state, and how many themes are named."""
    if job.record is None or not job.record.themes:
        return f"job {job.status}"
    record = job.record
    return f"job {job.status}: {record.topics:,} topics, {len(record.names)} of {record.themes} themes named"


def print_unnamed(record: ThemesRecord) -> None:
    """How many themes of a run that succeeded show keywords instead of a name, and why."""
    unnamed = record.themes - len(record.names)
    if unnamed:
        output.hint(f"{unnamed} of {output.count(record.themes, 'theme')} got no name from the LLM and show keywords")
    for kind in fallback_records(record.fallbacks):
        output.hint(f"{kind['topics']} for the reason {kind['reason']}: {kind['example']}")


def print_themes(results: Themes) -> None:
    """The largest themes, and for several quarters those whose share moved most since the quarter before."""
    themes = results["themes"]
    quarters = list(themes[0]["share"]) if themes else []
    _print_table(themes[:_SHOWN], quarters)
    if len(quarters) > 1:
        last = quarters[-1]
        moved = sorted(themes, key=lambda theme: -abs(theme["change"][last] or 0))[:_SHOWN]
        output.hint(f"the themes whose share changed most from {quarters[-2]} to {last}:")
        _print_table(moved, quarters)
    topics = sum(theme["n_topics"] for theme in themes)
    shown = f", of which {_SHOWN} are shown" if len(themes) > _SHOWN else ""
    output.hint(f"{output.count(len(themes), 'theme')} of {topics:,} topics{shown}; --json has all of them")


def _print_table(themes: Sequence[Theme], quarters: Sequence[str]) -> None:
    last = quarters[-1] if quarters else ""
    columns = ["theme", "name", "firms", "topics", f"share {last}"]
    rows: list[list[object]] = [
        [theme["theme_id"], theme["name"], theme["n_firms"], theme["n_topics"], f"{theme['share'][last]:.2%}"]
        for theme in themes
    ]
    if len(quarters) > 1:
        columns.append("change")
        for row, theme in zip(rows, themes, strict=True):
            row.append(f"{theme['change'][last] or 0:+.2%}")
    columns.append("keywords")
    for row, theme in zip(rows, themes, strict=True):
        row.append(", ".join(theme["keywords"][:4]))
    output.print_table(columns, rows, wrap=("name", "keywords"), drop=("keywords", "topics"))
