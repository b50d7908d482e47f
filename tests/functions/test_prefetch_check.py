from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract import ContractError
from contract.layout import prefetch_manifest_key
from tests.functions.conftest import BUCKET, QUARTER, Bucket

INPUT = {"quarter": QUARTER, "bucket": BUCKET}


@pytest.fixture
def check(modules: dict[str, ModuleType], s3: Any) -> ModuleType:
    return modules["prefetch_check"]


def test_a_prefetch_is_found_with_one_head_request(check: ModuleType, bucket: Bucket) -> None:
    bucket.put_prefetch({f"F{n}": f"chunk_{n:04d}.parquet" for n in range(50)})
    requests: list[str] = []

    def note(request: Any, **_: Any) -> None:
        requests.append(request.method)

    from functions import storage

    storage.s3.meta.events.register_first("before-send.s3", note)
    try:
        answer = check.handler(INPUT | {"batch_size": 10, "resume": "20230405_101500"}, None)
    finally:
        storage.s3.meta.events.unregister("before-send.s3", note)
    assert answer == {"exists": True}
    assert requests == ["HEAD"]


def test_a_missing_prefetch_is_required(check: ModuleType) -> None:
    answer = check.handler(INPUT, None)
    assert not answer["exists"]
    assert answer["error"] == "PrefetchRequired"
    assert f"s3://{BUCKET}/{prefetch_manifest_key(QUARTER)} does not exist" in answer["cause"]
    assert "ftm prefetch put 2023Q1 DIR" in answer["cause"]


def test_a_missing_bucket_is_named(check: ModuleType) -> None:
    answer = check.handler(INPUT | {"bucket": "not-there"}, None)
    assert answer["error"] == "PrefetchRequired"
    assert "s3://not-there/" in answer["cause"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"quarter": 2023}, "2023 is not a quarter"),
        ({"quarter": "2023Q5"}, "'2023Q5' is not a quarter"),
        ({"quarter": None}, "None is not a quarter"),
        ({"bucket": 7}, "7 is not the name of a bucket"),
        ({"bucket": "No/Bucket"}, "'No/Bucket' is not the name of a bucket"),
        ({"batch_size": "50"}, "batch_size is '50': write a whole number, without quotes"),
        ({"batch_size": True}, "batch_size is True: write a whole number"),
        ({"batch_size": 2.5}, "batch_size is 2.5: write a whole number"),
        ({"batch_size": 0}, "batch_size is 0: it can be 1 to 10000 firms"),
        ({"batch_size": 1_000_000}, "batch_size is 1000000: it can be 1 to 10000 firms"),
        ({"resume": "yesterday"}, "'yesterday' is not a run"),
        ({"resume": 20230405}, "20230405 is not a run"),
        ({"AWS_STEP_FUNCTIONS_STARTED_BY_EXECUTION_ID": "x" * 10_000}, "longer than an ARN"),
        ({"batchsize": 50}, "unknown field 'batchsize': it takes batch_size, "),
    ],
)
def test_invalid_input_is_reported_in_one_sentence(check: ModuleType, changes: dict[str, Any], words: str) -> None:
    answer = check.handler(INPUT | changes, None)
    assert (answer["exists"], answer["error"]) == (False, "InvalidInput")
    assert words in answer["cause"]


@pytest.mark.parametrize("field", ["quarter", "bucket"])
def test_a_missing_field_is_named(check: ModuleType, field: str) -> None:
    answer = check.handler({key: value for key, value in INPUT.items() if key != field}, None)
    assert answer == {"exists": False, "error": "InvalidInput", "cause": f"the input lacks {field!r}"}


@pytest.mark.parametrize("event", [None, [], "2023Q1", 1])
def test_input_that_is_not_an_object_fails_with_a_named_error(check: ModuleType, event: object) -> None:
    with pytest.raises(check.InvalidInput, match="not an object"):
        check.handler(event, None)


def test_the_field_that_nested_executions_add_is_accepted(check: ModuleType, bucket: Bucket) -> None:
    bucket.put_prefetch({"F1": "chunk_0000.parquet"})
    event = INPUT | {"AWS_STEP_FUNCTIONS_STARTED_BY_EXECUTION_ID": "arn:aws:states:..."}
    assert check.handler(event, None) == {"exists": True}


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = {**INPUT, "batch_size": 10, "resume": "20230405_101500"}


@settings(max_examples=60, deadline=None, database=None)
@given(st.fixed_dictionaries({}, optional={name: st.just(value) | VALUES for name, value in FIELDS.items()}), VALUES)
def test_any_input_is_valid_or_refused_with_a_sentence(
    modules: dict[str, ModuleType], run_input: dict[str, Any], unknown: Any
) -> None:
    for event in (run_input, run_input | {"unknown": unknown}):
        try:
            assert modules["prefetch_check"].check_input(event) == event
            assert set(event) <= FIELDS.keys()
        except ContractError as error:
            refused = str(error)
            assert 10 < len(refused) < 400
