"""`ftm report`: the page is complete, opens without a network, and a browser renders its charts."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from .conftest import SUCCEEDS, Aws, Ftm, put_manifest, put_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture
def page(aws: Aws, ftm: Ftm, tmp_path: Path) -> Path:
    """The report of a run."""
    put_manifest(aws, SUCCEEDS)
    put_run(aws, SUCCEEDS)
    file = tmp_path / "report.html"
    assert ftm("report", SUCCEEDS, "--out", str(file)).stdout == f"{file}\n"
    return file


def test_the_page_is_self_contained(page: Path) -> None:
    text = page.read_text()

    assert f"ftm: {SUCCEEDS}, run " in text
    assert "Topics per firm" in text
    assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=", text)


def test_a_page_that_cannot_be_written_is_rejected(ftm: Ftm, tmp_path: Path) -> None:
    missing = tmp_path / "missing" / "report.html"

    assert "name a file in a folder that exists" in ftm("report", SUCCEEDS, "--out", str(missing), exit_code=2).stderr


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_chromium_renders_the_charts(page: Path, tmp_path: Path) -> None:
    screenshot = tmp_path / "report.png"
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=4000", "--window-size=1000,1500"]
    drawn = subprocess.run(
        [str(CHROMIUM), *options, f"--screenshot={screenshot}", "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert drawn.stdout.count('class="main-svg"') >= 3
    assert screenshot.stat().st_size > 20_000
