"""The worker's image, as far as it can be tested without Docker."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from fnmatch import fnmatch
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from testing.worker import Worker
from worker.requirements import read

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "worker/Dockerfile").read_text()
ROOMS = ("contract", "llm", "worker", "evaluation")


def copied() -> list[str]:
    """The sources of the COPY lines of the Dockerfile, without those that copy from the build stage."""
    lines = re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.M)
    return [source for line in lines for source in line.split()[:-1]]


def pins() -> dict[str, str]:
    lines = [
        line
        for name in ("constraints.txt", "constraints-embeddings.txt")
        for line in (ROOT / name).read_text().splitlines()
    ]
    found = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert len(found) == len({canonicalize_name(name) for name, _ in found}), "a package is pinned twice"
    return {canonicalize_name(name): version for name, version in found}


def test_every_path_that_is_copied_exists_and_is_in_the_build_context() -> None:
    kept = [line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"]
    for source in copied():
        path = ROOT / source
        assert path.exists(), source
        files = [path] if path.is_file() else sorted(path.rglob("*.py"))
        for file in files:
            relative = str(file.relative_to(ROOT))
            assert any(fnmatch(relative, pattern.replace("**/", "*")) for pattern in kept), f"{relative} is left out"


@pytest.mark.parametrize("extras", [["worker"], ["worker", "embeddings"]])
def test_every_installed_package_is_pinned_to_a_version_that_its_dependents_accept(extras: list[str]) -> None:
    """The requirements and their own requirements, as far as installed here (packages for embeddings are not)."""
    pinned, todo, seen = pins(), [Requirement(line) for line in read(ROOT / "pyproject.toml", extras)], set[str]()
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        assert name in pinned, f"{name} is not pinned"
        assert requirement.specifier.contains(pinned[name], prereleases=True), f"{requirement}, but {pinned[name]}"
        if name in seen or ("embeddings" in extras and not is_installed(name)):
            continue
        seen.add(name)
        needed = map(Requirement, distribution(name).requires or [])
        todo += [each for each in needed if each.marker is None or applies(each, requirement.extras)]


def is_installed(name: str) -> bool:
    try:
        return bool(distribution(name))
    except ModuleNotFoundError:
        return False


def applies(requirement: Requirement, extras: set[str]) -> bool:
    assert requirement.marker
    return any(requirement.marker.evaluate({"extra": extra}) for extra in extras | {""})


def test_an_unknown_extra_is_reported() -> None:
    with pytest.raises(SystemExit, match="has no extra 'gpu': EXTRAS can be "):
        read(ROOT / "pyproject.toml", ["gpu"])


def test_the_copied_packages_start_alone_and_report_missing_variables(tmp_path: Path) -> None:
    for room in ROOMS:
        assert room in copied()
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run(
        [sys.executable, "-m", "worker"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "worker: the environment lacks MANIFEST_S3_KEY; ftm or its state machine sets it"
    ]

    everything = "import sys, worker.batch, evaluation.name_sample, evaluation.load_generator; "
    where = (
        "print([m for m in sys.modules if m.split('.')[0] in ('cli', 'components', 'functions', 'local', 'testing')])"
    )
    alone = subprocess.run(
        [sys.executable, "-c", everything + where],
        cwd=tmp_path, env={"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (alone.stdout, alone.stderr) == ("[]\n", "")


@pytest.mark.parametrize("module", ["worker", "worker.themes"])
def test_sigterm_while_the_interpreter_starts_leaves_the_work_to_another_attempt(worker: Worker, module: str) -> None:
    """As Batch starts a job: the image's entry point with the job definition's command."""
    entry_point: list[str] = json.loads(re.findall(r"^ENTRYPOINT (.+)$", DOCKERFILE, re.M)[0])
    process = subprocess.Popen(
        [*entry_point, sys.executable, "-m", module],
        env=worker.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    status = Path(f"/proc/{process.pid}/status")
    while not int(re.findall(r"SigBlk:\s+(\w+)", status.read_text())[0], 16) >> (signal.SIGTERM - 1) & 1:
        time.sleep(0.0001)
    process.terminate()
    _, stderr = process.communicate(timeout=240)

    assert process.returncode == os.EX_TEMPFAIL
    assert stderr == "worker: stopped by SIGTERM before the work began; another attempt does it\n"


def test_both_stages_have_the_same_base_image_pinned_by_its_digest() -> None:
    assert re.findall(r"^FROM (\S+)", DOCKERFILE, re.M) == ["${BASE}", "${BASE}"]
    assert re.search(r"^ARG BASE=python:3\.11\.\d+-slim-bookworm@sha256:[0-9a-f]{64}$", DOCKERFILE, re.M)


def test_building_and_pushing_the_image_checks_prerequisites_first(tmp_path: Path) -> None:
    """Prerequisites are checked before the build. The PATH has the tools of make, and then one more tool at a time."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("make", "sh", "cut", "env"):
        (tools / name).symlink_to(shutil.which(name) or f"/bin/{name}")

    def make(target: str) -> str:
        return subprocess.run(
            ["make", target], cwd=ROOT, env={"PATH": str(tools)}, capture_output=True, text=True, check=False
        ).stdout  # fmt: skip

    def tool(name: str, script: str) -> None:
        (tools / name).write_text(f"#!/bin/sh\n{script}\n")
        (tools / name).chmod(0o755)

    assert "this needs Docker" in make("image")
    tool("docker", "echo docker $*")
    assert "make push needs the Pulumi CLI" in make("push")
    tool("pulumi", "exit 1")
    assert "make push needs the stack prod, deployed by `pulumi up --stack prod`" in make("push")
    tool("pulumi", "echo 123456789012.dkr.ecr.us-east-1.amazonaws.com/ftm-worker:1")
    assert "make push needs the AWS CLI, to log in to 123456789012.dkr.ecr.us-east-1.amazonaws.com" in make("push")
    tool("pulumi", "echo registry.example.com/ftm-worker:1")
    pushed = make("push")
    assert "docker build --platform linux/amd64 --provenance=false" in pushed
    assert "docker push registry.example.com/ftm-worker:1" in pushed
    assert "docker login" not in pushed
