"""The client of any OpenAI-compatible LLM server."""


class LlmError(Exception):
    """The LLM cannot be used; the text is one sentence for a person, and says what to do next."""


class LlmUnavailableError(LlmError):
    """The LLM cannot be used now; a later attempt may succeed."""


class LlmAddressError(LlmError):
    """The server at the address is not OpenAI-compatible."""


class LlmModelError(LlmError):
    """The server does not have the model, or has several and none was chosen."""


class LlmKeyError(LlmError):
    """The server rejects the key, or requires one."""
