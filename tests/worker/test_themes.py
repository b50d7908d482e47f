"""`python -m worker.themes`: topics of many firms are grouped into themes, which the LLM names."""

import io
import json
import os
import random
from collections.abc import Iterable
from contextlib import redirect_stderr, redirect_stdout
from typing import Any
from unittest.mock import patch

import pyarrow.parquet as pq
import pytest

from contract import env
from contract.batch import BatchLine
from contract.themes import ThemesRef, parse_themes_record
from testing.worker import BATCH, QUARTER, RUN, Bucket, LlmServer, Reply, Worker, call
from worker.themes import clustering, job
from worker.themes.__main__ import main
from worker.themes.clustering import find_themes
from worker.themes.topics import FirmTopic

THEMES = ThemesRef(QUARTER, "20230406_080000")
FIRMS = 6


@pytest.fixture
def topics(bucket: Bucket, worker: Worker, llm: LlmServer) -> list[dict[str, Any]]:
    """The topics of a successful run of firms that discuss the same five subjects."""
    firms = [f"FIRM{number}" for number in range(FIRMS)]
    bucket.put_firms({firm: call(firm) for firm in firms})
    bucket.put(RUN.manifest_key, BatchLine(BATCH, QUARTER, firms).to_json().encode())
    assert worker.run().returncode == 0
    llm.requests.clear()
    return bucket.topics()


def find(worker: Worker, **changes: str) -> tuple[int, str]:
    """Run the themes job in this process; return its exit code and stderr."""
    environ = {
        **worker.environ,
        env.THEMES_RANGE: QUARTER,
        env.THEMES_RUN: THEMES.run,
        env.THEMES_QUARTER_RUNS: RUN.run,
        **changes,
    }
    stderr = io.StringIO()
    with patch.dict(os.environ, environ, clear=True), redirect_stdout(io.StringIO()), redirect_stderr(stderr):
        return main(environ), stderr.getvalue()


def read(bucket: Bucket, key: str) -> list[dict[str, Any]]:
    return pq.read_table(io.BytesIO(bucket.get(key))).to_pylist()


def test_themes_have_several_firms_and_a_name(bucket: Bucket, worker: Worker, topics: list[dict[str, Any]]) -> None:
    code, stderr = find(worker)

    assert code == 0, stderr
    themes = read(bucket, THEMES.themes_key)
    members = read(bucket, THEMES.theme_topics_key)
    assert [theme["theme_id"] for theme in themes] == [f"theme_{number:04d}" for number in range(len(themes))]
    assert all(theme["naming_method"] == "llm" and theme["name"] and theme["summary"] for theme in themes)
    assert len({theme["name"] for theme in themes}) == len(themes)
    assert {member["topic_id"] for member in members} <= {topic["topic_id"] for topic in topics}
    assert len({member["topic_id"] for member in members}) == len(members)  # a topic is in one theme at most
    for theme in themes:
        own = [member["firm_id"] for member in members if member["theme_id"] == theme["theme_id"]]
        assert theme["n_topics"] == len(own)
        assert theme["n_firms"] == len(set(own)) >= clustering.MIN_FIRMS
        assert max(map(own.count, own)) <= clustering.MAX_FIRM_SHARE * len(own)
    shares = [theme["quarters"][0]["share"] for theme in themes]
    assert 0 < sum(shares) <= 1.0001
    assert parse_themes_record(bucket.get(THEMES.record_key)).state == "complete"


def test_another_attempt_requests_only_missing_names(
    bucket: Bucket, worker: Worker, llm: LlmServer, topics: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "CHECKPOINT_THEMES", 1)
    llm.behave = lambda number, _request: Reply() if number < 2 else Reply(401, {"error": {"message": "no"}})
    assert find(worker)[0] == 1
    kept = parse_themes_record(bucket.get(THEMES.record_key))
    assert len(kept.names) == 2
    assert THEMES.themes_key not in bucket.keys("themes/")  # an incomplete result is not readable

    llm.requests.clear()
    llm.behave = lambda _number, _request: Reply()
    code, stderr = find(worker)

    assert code == 0, stderr
    assert len(llm.requests) == kept.themes - 2
    assert find(worker) == (0, "")  # already complete
    assert len(llm.requests) == kept.themes - 2


def test_unnamed_themes_fail_the_run(
    bucket: Bucket, worker: Worker, llm: LlmServer, topics: list[dict[str, Any]]
) -> None:
    llm.behave = lambda _number, _request: Reply(body=None, finish_reason="length")
    code, stderr = find(worker)

    assert code == 1
    assert "the LLM named 0 of" in stderr
    record = parse_themes_record(bucket.get(THEMES.record_key))
    assert record.state == "failed"
    assert sum(fallback.topics for fallback in record.fallbacks.values()) == record.themes
    assert {theme["naming_method"] for theme in read(bucket, THEMES.themes_key)} == {"keywords"}


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        (env.THEMES_RANGE, "2023Q1..2022Q1", "2023Q1..2022Q1 runs backwards: write 2022Q1..2023Q1"),
        (env.THEMES_RANGE, "2023Q1..2023Q2", "names 1 runs, and THEMES_RANGE 2 quarters"),
        (env.THEMES_QUARTER_RUNS, "20230101_000000", "2023Q1 has no run 20230101_000000"),
        (env.THEMES_RUN, "yesterday", "'yesterday' is not a run id"),
    ],
)
def test_invalid_input_is_reported_in_one_sentence(
    worker: Worker, bucket: Bucket, variable: str, value: str, reason: str
) -> None:
    code, stderr = find(worker, **{variable: value})
    assert code == 1
    assert reason in stderr
    assert stderr.count("\n") == 1


def topic(firm: str, number: int, words: str) -> FirmTopic:
    sentences = [f"{words} said {firm} {n}" for n in range(6)]
    return FirmTopic(f"{firm}_{number}", firm, firm, QUARTER, None, None, None, "", "", words.split(), 6, sentences)


def test_a_theme_that_one_firm_dominates_loses_its_topics() -> None:
    wine, ferry = "grape harvest vineyard cellar", "ferry island crossing passenger"
    many = [topic("LARGE", number, wine) for number in range(10)]
    others = [topic(firm, 0, wine) for firm in ("A", "B", "C")]
    ferries = [topic(firm, 1, ferry) for firm in ("A", "B", "C", "D")]

    topics = [*many, *others, *ferries, *(topic(f"X{n}", 2, f"kiln{n} tiles bricks") for n in range(20))]

    themes = find_themes(topics)

    wines = next(theme for theme in themes if "harvest" in theme.keywords)
    firms = [topics[row].firm_id for row in wines.members]
    assert sorted(firms) == ["A", "B", "C", "LARGE", "LARGE"]
    assert next(theme for theme in themes if "ferry" in theme.keywords).members == [13, 14, 15, 16]


def test_topics_that_have_little_in_common_are_no_theme() -> None:
    """200 topics of random words end up in one cluster, since 60 subjects occupy all dimensions."""
    chance = random.Random(0)
    subjects = [topic(f"S{f}", s, words(range(4 * s, 4 * s + 4))) for s in range(60) for f in range(5)]
    loose = [topic(f"L{f}", 0, words(chance.sample(range(9_000, 9_200), 5))) for f in range(200)]

    themes = find_themes([*subjects, *loose])

    assert themes
    assert all(member < len(subjects) for theme in themes for member in theme.members)


def words(numbers: Iterable[int]) -> str:
    """A word of four letters for each number."""
    return " ".join("".join(chr(ord("a") + number // 26**place % 26) for place in range(4)) for number in numbers)


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_too_few_topics_are_rejected(count: int) -> None:
    themes = find_themes([topic(f"F{number}", 0, "grape harvest vineyard cellar") for number in range(count)])
    assert len(themes) <= 1


def test_the_record_can_be_written_and_read_back() -> None:
    body = json.dumps({"range": QUARTER}).encode()
    with pytest.raises(ValueError, match="the themes record is not one of ftm's: KeyError"):
        parse_themes_record(body)
