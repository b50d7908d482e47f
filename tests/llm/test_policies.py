"""How errors are classified, fallbacks for servers that reject fields, and concurrency; without a server."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from llm.concurrency import FIRST_LEVEL, Concurrency
from llm.dialect import Dialect
from llm.faults import Fault, read_refusal, seconds_to_wait

SCHEMA = {
    "type": "json_schema",
    "json_schema": {"name": "t", "schema": {"properties": {"name": {"type": "string", "maxLength": 80}}}},
}


@pytest.mark.parametrize(
    ("status", "body", "fault"),
    [
        (401, "", Fault.KEY),
        (403, "denied", Fault.KEY),
        (400, '{"error": {"message": "No connected db.", "type": "no_db_connection"}}', Fault.KEY),
        (429, '{"error": {"code": "insufficient_quota", "message": "You exceeded your quota"}}', Fault.QUOTA),
        (429, '{"error": {"message": "Rate limit reached"}}', Fault.RATE),
        (404, '{"error": {"message": "no such model"}}', Fault.MODEL),
        (400, '{"error": {"message": "Invalid model name passed in model=x"}}', Fault.MODEL),
        (400, '{"error": {"message": "the request exceeds the available context size"}}', Fault.CONTEXT),
        (400, '{"error": {"message": "no", "code": "content_filter"}}', Fault.FILTER),
        (422, '{"detail": "temperature"}', Fault.REFUSED),
        (500, '{"error": {"message": "EngineCore encountered an issue"}}', Fault.FAILING),
        (200, '{"error": {"message": "Provider returned error", "code": 429}}', Fault.RATE),
        (200, '{"error": {"message": "Provider returned error"}}', Fault.FAILING),
        (200, "<html></html>", Fault.NOT_AN_API),
        (301, "", Fault.MOVED),
        (529, '{"error": {"message": "Overloaded"}}', Fault.BUSY),
    ],
)
def test_the_text_of_an_error_takes_precedence_over_its_status(status: int, body: str, fault: Fault) -> None:
    assert read_refusal(status, {}, body, "").fault is fault


def test_a_server_that_sends_a_retry_delay_has_not_failed() -> None:
    assert read_refusal(503, {"Retry-After": "30"}, "", "").fault is Fault.RATE
    assert read_refusal(503, {}, "", "").fault is Fault.FAILING


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "12"}, 12),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"retry-after": "Fri, 27 Nov 2026 12:01:00 GMT"}, 60),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1m12s"}, 72),
        ({"x-ratelimit-remaining-requests": "3", "x-ratelimit-reset-requests": "1m12s"}, None),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "250ms"}, 0.25),
        ({"llm_provider-retry-after": "60"}, 60),
        ({"llm_provider-retry-after": "60", "Retry-After": "5"}, 5),
        ({}, None),
    ],
)
def test_the_servers_retry_delay_is_read(headers: dict[str, str], seconds: float | None) -> None:
    assert seconds_to_wait(headers, datetime(2026, 11, 27, 12, 0, tzinfo=UTC)) == seconds


@pytest.mark.parametrize(
    ("words", "left_out"),
    [
        ("Unrecognized request argument supplied: chat_template_kwargs", "chat_template_kwargs"),
        ("Unsupported parameter: 'max_tokens'; use 'max_completion_tokens' instead", "max_tokens"),
        ("Unsupported value: 'temperature' does not support 0", "temperature"),
    ],
)
def test_fields_that_the_server_rejects_by_name_are_left_out(words: str, left_out: str) -> None:
    lesser = Dialect().without_what_is_named(words)
    assert lesser
    assert left_out in Dialect().request([], 9, SCHEMA)
    assert left_out not in lesser.request([], 9, SCHEMA)


def test_instructions_are_in_the_question_of_a_server_without_system_messages() -> None:
    lesser = Dialect().without_what_is_named("System role not supported")
    assert lesser
    asked = [{"role": "system", "content": "Name it."}, {"role": "user", "content": "Oil?"}]
    assert lesser.request(asked, 9, SCHEMA)["messages"] == [{"role": "user", "content": "Name it.\n\nOil?"}]


def test_every_field_that_can_be_left_out_is_left_out_before_a_server_is_given_up() -> None:
    dialect = Dialect()
    while lesser := dialect.smaller():
        dialect = lesser
    assert dialect.request([], 9, SCHEMA).keys() == {"messages"}


def test_the_response_format_falls_back_step_by_step_to_plain_text() -> None:
    dialect, formats = Dialect(), list[object]()
    while lesser := dialect.without_what_is_named("This response_format type is unavailable now"):
        dialect = lesser
        formats.append(dialect.request([], 9, SCHEMA).get("response_format"))
    assert formats == [
        {"type": "json_object", "schema": SCHEMA["json_schema"]["schema"]},
        {"type": "json_object"},
        None,
    ]


def flight(maximum: int, latency: Callable[[int], float], requests: int) -> Concurrency:
    """Send requests, each with the latency of the concurrency level at which it is sent."""

    async def send_all() -> Concurrency:
        concurrency = Concurrency(maximum, lambda: 0.0)
        concurrency.succeeded(concurrency.epoch, latency(1))  # the client sends its first request alone

        async def send() -> None:
            async with concurrency.slot():
                epoch, level = concurrency.epoch, concurrency.level
                await asyncio.sleep(0)
                concurrency.succeeded(epoch, latency(level))

        await asyncio.gather(*(send() for _ in range(requests)))
        return concurrency

    return asyncio.run(send_all())


def test_concurrency_grows_while_throughput_grows() -> None:
    assert flight(64, lambda _: 1.0, 1000).level == 64


def test_a_server_that_handles_one_request_at_a_time_gets_few() -> None:
    assert flight(64, float, 1000).level == FIRST_LEVEL + 1


def test_an_overload_halves_the_concurrency_once_for_all_requests_in_flight() -> None:
    concurrency = Concurrency(64, lambda: 0.0)
    concurrency.level = 32
    epoch = concurrency.epoch
    for _ in range(10):
        concurrency.overloaded(epoch)
    assert concurrency.level == 16
