"""Reading responses in every form that servers and models use."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.fallbacks import FallbackKind
from llm.answers import Unreadable, Usage, is_cut_off, read_object, text_of, usage_of

KEYS = ("name", "summary")
NAMED = {"name": "Labor cost inflation", "summary": "Wages rose."}
JSON = json.dumps(NAMED)


@pytest.mark.parametrize(
    "text",
    [
        JSON,
        f'<think>\nPerhaps {{"name": "No", "summary": "no"}}?\n</think>\n\n{JSON}',
        f"The keywords ask for it.</think>{JSON}",
        f"<think></think>{JSON}",
        f"[THINK]so[/THINK]{JSON}",
        f"<|channel|>analysis<|message|>so<|end|><|start|>assistant<|channel|>final<|message|>{JSON}",
        f"```json\n{json.dumps(NAMED, indent=2)}\n```",
        f"Here is {{the}} object:\n{JSON}\nI hope that it helps.<|im_end|>",
        f'{{"topic": {{"result": {JSON}}}}}',
        f"[{JSON}, {JSON}]",
        f"{JSON}\n{JSON}",
        json.dumps(JSON),
        json.dumps({"answer": JSON}),
        '{"Name": "Labor cost inflation", "SUMMARY": "Wages rose."}',
        JSON.replace('"', "&quot;"),
        f"<think>{JSON}</think>",
        str(NAMED),
        "{'name': 'Labor cost inflation', 'summary': 'Wages rose.', 'coherent': true,}",
        '{"name": "Labor cost inflation", "summary": "Wages rose.", "coherent": True}',
        '{"name": "Labor cost inflation", "summary": "Wages rose\\."}',
    ],
)
def test_json_objects_are_read_from_any_surrounding_text(text: str) -> None:
    assert read_object(text, KEYS) == NAMED


def test_entities_are_decoded_and_ampersands_stay() -> None:
    read = read_object('{"name": "R&amp;D &#8211; AT&T", "summary": "M&A &amp;lt; 3"}', KEYS)
    assert read == {"name": "R&D \u2013 AT&T", "summary": "M&A < 3"}


def test_an_optional_key_is_read_with_its_value() -> None:
    assert read_object('{"name": "a", "summary": "b", "Coherent": false}', KEYS, ("coherent",)) == {
        "name": "a",
        "summary": "b",
        "coherent": False,
    }


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "it is empty"),
        ("I am sorry", "it is not a JSON object"),
        ("<think>so and so", "thinking and no answer"),
        ('{"name": "Oil", "summary": "Pri', "broken or not closed"),
        ('{"name": "Oil"}', 'the strings "name" and "summary"'),
        ("[" * 100_000, "it is not a JSON object"),
    ],
)
def test_an_unreadable_answer_has_a_reason(text: str, reason: str) -> None:
    read = read_object(text, KEYS)
    assert isinstance(read, Unreadable)
    assert read.kind == FallbackKind.UNREADABLE
    assert reason in read.reason


@pytest.mark.parametrize(
    "message",
    [
        {"content": JSON},
        {"content": [{"type": "thinking", "thinking": "so"}, {"type": "text", "text": JSON}]},
        {"content": None, "reasoning_content": JSON},
        {"content": "", "reasoning": JSON},
        {"content": None, "tool_calls": [{"function": {"name": "topic", "arguments": JSON}}]},
        {"content": NAMED},
    ],
)
def test_the_text_is_found_in_every_place_where_servers_put_it(message: dict[str, Any]) -> None:
    text = text_of({"choices": [{"message": message}]})
    assert isinstance(text, str)
    assert read_object(text, KEYS) == NAMED


@pytest.mark.parametrize(
    ("response", "kind"),
    [
        ({"choices": []}, FallbackKind.UNREADABLE),
        (["no", "object"], FallbackKind.UNREADABLE),
        ({"choices": [{"message": {"content": None, "refusal": "No."}}]}, FallbackKind.CONTENT_FILTER),
        ({"choices": [{"message": {"content": ""}, "finish_reason": "length"}]}, FallbackKind.CUT_OFF),
    ],
)
def test_an_answer_without_text_has_a_kind(response: Any, kind: FallbackKind) -> None:
    text = text_of(response)
    assert isinstance(text, Unreadable)
    assert text.kind == kind


def test_token_counts_may_be_text_or_missing() -> None:
    usage = {"prompt_tokens": "400", "completion_tokens": 30.0, "prompt_tokens_details": {"cached_tokens": None}}
    assert usage_of({"usage": usage}) == Usage(400, 0, 30)
    assert usage_of({"usage": None}) == Usage()
    assert is_cut_off({"choices": [{"finish_reason": "length"}]})


PIECES = st.sampled_from(
    ['{"name": "', '"summary"', "<think>", "</think>", "```json", "&quot;", "}", "[", ",", "\\", "\n"]
)


@settings(max_examples=100, deadline=None, database=None)
@given(st.lists(PIECES | st.text(max_size=10), max_size=12).map("".join))
def test_any_text_is_read_as_an_object_with_the_keys_or_has_a_reason(text: str) -> None:
    read = read_object(text, KEYS)
    if isinstance(read, Unreadable):
        assert read.reason
    else:
        assert all(isinstance(read[key], str) for key in KEYS)


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["choices", "message", "content", "usage", "text", "finish_reason"]), inner)
    ),
    max_leaves=12,
)


@settings(max_examples=100, deadline=None, database=None)
@given(VALUES)
def test_any_response_has_a_text_or_a_reason(response: Any) -> None:
    assert isinstance(text_of(response), str | Unreadable)
    assert isinstance(usage_of(response), Usage)
    assert is_cut_off(response) in (True, False)
