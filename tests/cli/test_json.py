"""docs/json.md documents what `--json` prints: its tables match the code."""

import re
from pathlib import Path
from typing import get_type_hints

import pytest

from cli.commands import local, naming, quarter, report, stack
from cli.commands import prefetch as commands
from cli.commands import themes as commands_of_themes
from cli.services import (
    cost,
    doctor,
    gpus,
    history,
    logs,
    prefetch,
    preflight,
    quarters,
    runs,
    themes,
    topic_files,
    topics,
    vllm,
)
from evaluation import compare, judge, load_test, smoke_job

PAGE = (Path(__file__).parents[2] / "docs" / "json.md").read_text()

SHAPES: dict[str, type] = {
    "run-quarter, resume, watch": runs.Report,
    "run-quarters, watch without a quarter": quarters.QuartersReport,
    "status, runs": history.RunItem,
    "status QUARTER, status RUN": history.RunStatus,
    "A batch in status": history.BatchItem,
    "cost: estimate": cost.Estimate,
    "cost: last_run": cost.Spent,
    "run-quarter, resume, run-quarters --dry-run": preflight.Plan,
    "A quarter in --dry-run": preflight.QuarterPlan,
    "stop": quarter.StoppedRun,
    "logs": logs.LoggedAttempt,
    "report": report.WrittenReport,
    "doctor": doctor.Finding,
    "console": stack.ConsoleAddress,
    "vllm status, vllm scale": vllm.Vllm,
    "vllm status, in addition": gpus.Use,
    "vllm status: an instance": gpus.Gpu,
    "vllm status: load": gpus.Load,
    "local up, local status": local.LocalStatus,
    "local down": local.StoppedLocal,
    "themes": themes.Themes,
    "themes --dry-run": commands_of_themes.PlannedThemes,
    "themes --detach": commands_of_themes.SubmittedThemes,
    "A theme": themes.Theme,
    "topics": topics.Topic,
    "topics --skipped": topics.FirmWithoutTopics,
    "topics --out": topic_files.WrittenFile,
    "prefetch put, prefetch sample": commands.UploadedPrefetch,
    "prefetch make": commands.MadePrefetch,
    "prefetch list": prefetch.InventoryItem,
    "prefetch show": prefetch.Description,
    "name": naming.NamedSample,
    "compare": compare.Comparison,
    "compare: judge": judge.Verdicts,
    "vllm smoke": smoke_job.Smoke,
    "vllm smoke: a topic": smoke_job.SmokeTopic,
    "vllm bench": load_test.Load,
}


@pytest.mark.parametrize("title", SHAPES)
def test_each_table_has_the_fields_of_the_code(title: str) -> None:
    section = PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]

    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == list(get_type_hints(SHAPES[title]))


def test_every_table_belongs_to_a_command() -> None:
    assert re.findall(r"^## (.*)$", PAGE, re.MULTILINE) == list(SHAPES)
