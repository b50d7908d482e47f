"""An LLM server whose failures a test chooses."""

from collections.abc import Iterator

import pytest

from testing.worker import LlmServer, serving


@pytest.fixture
def llm() -> Iterator[LlmServer]:
    server = LlmServer()
    server.gate.set()
    with serving(server):
        yield server
