"""Topics by sentence embeddings, in the environment that has torch anyway."""

import json
import os
import subprocess
from pathlib import Path

from tests.vllm.server import ENVIRONMENT, ROOT


def test_topics_are_found_by_sentence_embeddings(tmp_path: Path) -> None:
    found = subprocess.run(
        [ENVIRONMENT / "bin" / "python", Path(__file__).with_name("find_topics.py"), tmp_path / "model"],
        env=os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    topics = [{int(sentence[-4:]) % 3 for sentence in topic} for topic in json.loads(found.stdout)]
    assert topics == [{0}, {1}, {2}]  # one topic a subject
