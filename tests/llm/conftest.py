"""An LLM server that fails as it is told."""

from collections.abc import Iterator

import pytest

from testing.worker import LlmServer, serving


@pytest.fixture
def llm() -> Iterator[LlmServer]:
    server = LlmServer()
    server.gate.set()
    with serving(server):
        yield server
