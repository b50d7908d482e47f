"""The state machine of several quarters, which starts the machine of one quarter for each of them."""

import itertools
import json
from typing import Any

import pytest

from components import definition
from tests.state_machine.conftest import BUCKET, Stack

QUARTERS = ("2022Q3", "2022Q4", "2023Q1")


@pytest.fixture(scope="module")
def machine(stack: Stack) -> str:
    return stack.create_machine(definition.quarters(stack.quarter_machine))


def run(stack: Stack, machine: str, **run_input: Any) -> dict[str, Any]:
    return stack.ended(stack.start_with(json.dumps(run_input), machine))


def items(*quarters: str) -> list[dict[str, Any]]:
    return [{"quarter": quarter, "bucket": BUCKET, "batch_size": 2} for quarter in quarters]


def children(stack: Stack, execution: dict[str, Any]) -> list[dict[str, Any]]:
    pages = stack.states.get_paginator("list_executions").paginate(stateMachineArn=stack.quarter_machine)
    found = [child for page in pages for child in page["executions"] if child["name"].startswith(execution["name"])]
    return sorted(found, key=lambda child: child["startDate"])


def test_quarters_run_one_after_the_other_also_after_a_failed_one(stack: Stack, machine: str) -> None:
    for quarter in ("2022Q3", "2023Q1"):
        stack.put_prefetch(firms=2, quarter=quarter)
    ended = run(stack, machine, quarters=items(*QUARTERS))
    assert (ended["status"], ended["error"]) == ("FAILED", "QuartersCompletedWithFailures")
    assert ended["cause"] == 'of 3 quarters these failed: ["2022Q4"]'
    started = children(stack, ended)
    assert [child["name"] for child in started] == [f"{ended['name']}-{quarter}" for quarter in QUARTERS]
    assert [child["status"] for child in started] == ["SUCCEEDED", "FAILED", "SUCCEEDED"]
    for before, after in itertools.pairwise(started):
        assert before["stopDate"] <= after["startDate"]


def test_as_many_quarters_run_at_once_as_requested(stack: Stack, machine: str) -> None:
    at_once = QUARTERS[:2]
    for quarter in at_once:
        stack.put_prefetch(firms=2, quarter=quarter)
    ended = run(stack, machine, quarters=items(*at_once), at_once=2)
    assert ended["status"] == "SUCCEEDED", ended
    assert json.loads(ended["output"])["summary"] == {"total": 2, "succeeded": list(at_once), "failed": []}
    first, last = children(stack, ended)
    assert last["startDate"] < first["stopDate"]


def test_an_invalid_quarter_and_an_item_without_one_are_failed_quarters(stack: Stack, machine: str) -> None:
    stack.put_prefetch(firms=2)
    invalid = [{"quarter": 2023, "bucket": BUCKET}, {"quarter": "no/name"}, {"bucket": BUCKET}, "2023Q1"]
    ended = run(stack, machine, quarters=[*items("2023Q1"), *invalid])
    assert ended["status"] == "FAILED"
    assert ended["cause"] == 'of 5 quarters these failed: [2023,"no/name",{"bucket":"pipeline"},"2023Q1"]'
    assert children(stack, ended)[0]["status"] == "SUCCEEDED"


@pytest.mark.parametrize(
    "run_input",
    [
        {},
        {"quarters": []},
        {"quarters": "2023Q1"},
        {"quarters": ["2023Q1"]},
        {"quarters": items("2023Q1"), "at_once": 0},
        {"quarters": items("2023Q1"), "at_once": 41},
        {"quarters": items("2023Q1"), "at_once": "2"},
        {"quarters": items("2023Q1"), "at_once": 1.5},
    ],
)
def test_an_invalid_list_is_rejected(stack: Stack, machine: str, run_input: dict[str, Any]) -> None:
    ended = run(stack, machine, **run_input)
    assert (ended["status"], ended["error"]) == ("FAILED", "InvalidInput")
    assert 'the input is {"quarters": [{"quarter": "2022Q1", "bucket": "..."}, ...], "at_once": 1}' in ended["cause"]
    assert not children(stack, ended)
