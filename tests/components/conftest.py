"""Fixtures that run the Pulumi program against a simulated account."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from local.deploy import program
from testing.paper_cloud import Deploy, Deployed, PaperCloud

ROOT = Path(__file__).parents[2]

_DEPLOYED: dict[str, Deployed] = {}
"""Stacks already deployed to the default account by earlier tests. The registered resources are never changed."""


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

    def run(stack: str = "prod", preview: bool = False, **settings: Any) -> Deployed:
        key = repr((stack, preview, settings))
        usual = cloud == PaperCloud()
        if usual and key in _DEPLOYED:
            return _DEPLOYED[key]
        evaluate = program.preview if preview else program.up
        deployed = Deployed(evaluate(stack, cloud, root=project(stack, settings)), cloud.invoked)
        if usual:
            _DEPLOYED[key] = deployed
        return deployed

    return run
