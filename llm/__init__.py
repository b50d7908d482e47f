"""The client of any OpenAI-compatible LLM server."""


class LlmError(Exception):
    """The LLM cannot be used; the text is one sentence for a person, and says what to do next."""


class LlmUnavailableError(LlmError):
    """The LLM cannot be used now; a later attempt may succeed."""
