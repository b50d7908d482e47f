"""Fixtures that run the Pulumi program against a simulated account."""

import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from local.deploy import program
from testing.paper_cloud import Deploy, Deployed, PaperCloud

ROOT = Path(__file__).parents[2]

_DEPLOYED: dict[str, Deployed] = {}
"""Stacks that earlier tests deployed, by account and settings. Tests do not change the registered resources."""


@pytest.fixture
def cloud() -> PaperCloud:
    return PaperCloud()


@pytest.fixture
def project(tmp_path: Path) -> Callable[[str, dict[str, Any]], Path]:
    """Write a project whose stack has these settings; return its folder."""

    def write(stack: str, settings: dict[str, Any]) -> Path:
        for file in ("Pulumi.yaml", "__main__.py"):
            shutil.copy(ROOT / file, tmp_path)
        config = {f"ftm:{key}": value for key, value in settings.items()}
        (tmp_path / f"Pulumi.{stack}.yaml").write_text(yaml.safe_dump({"config": config}))
        return tmp_path

    return write


@pytest.fixture
def deploy(
    cloud: PaperCloud, project: Callable[[str, dict[str, Any]], Path], monkeypatch: pytest.MonkeyPatch
) -> Deploy:
    """`deploy(stack="dev", preview=False, vllmEnabled=False)` runs the program of that stack with those settings."""
    monkeypatch.setenv("PULUMI_ERROR_OUTPUT_STRING", "true")
    # Pulumi sends the stack trace of every registration to its engine, which takes an eighth of the program's time.
    monkeypatch.setattr(sys, "tracebacklimit", 1, raising=False)

    def run(stack: str = "prod", preview: bool = False, **settings: Any) -> Deployed:
        account = replace(cloud, invoked=[])
        key = repr((account, stack, preview, settings))
        if key not in _DEPLOYED:
            evaluate = program.preview if preview else program.up
            _DEPLOYED[key] = Deployed(evaluate(stack, account, root=project(stack, settings)), account.invoked)
        return _DEPLOYED[key]

    return run


@pytest.fixture
def example(deploy: Deploy) -> Deployed:
    """The stack of Pulumi.prod.yaml."""
    config = yaml.safe_load((ROOT / "Pulumi.prod.yaml").read_text())["config"]
    return deploy("prod", **{key[4:]: value for key, value in config.items() if key.startswith("ftm:")})
