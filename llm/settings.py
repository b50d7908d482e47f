"""The settings of the LLM client, read from the environment. This module imports nothing heavy."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from contract import env
from contract.served_models import HOSTED_MODEL
from llm import LlmError

XAI_BASE_URL = "https://api.x.ai/v1"

DEFAULT_MAX_CONCURRENT = 16


@dataclass(frozen=True)
class LlmSettings:
    base_url: str
    model: str | None
    """None for the only model that the server has."""
    max_concurrent: int = DEFAULT_MAX_CONCURRENT
    api_key: str = field(default="", repr=False)
    url_option: str = env.LLM_BASE_URL
    """The variable or option that sets the address, for messages."""
    model_option: str = env.LLM_MODEL_NAME
    key_option: str = env.LLM_API_KEY

    @property
    def hosted(self) -> bool:
        """The xAI API, which requires a key and rejects vLLM's extensions of the OpenAI API."""
        return self.base_url == XAI_BASE_URL


def read_llm_settings(environ: Mapping[str, str], base_url: str | None = None) -> LlmSettings:
    """Read the settings. The address of the LLM is `base_url` if given, else LLM_BASE_URL, else the xAI API.

    Raises:
        LlmError: for an invalid address, or the xAI API without a key.
        ContractError: for a key that cannot be sent.
    """
    address = (base_url or environ.get(env.LLM_BASE_URL) or XAI_BASE_URL).rstrip("/")
    if "@" in address:
        raise LlmError(f"{env.LLM_BASE_URL} has a user or a password in it: leave it out, and set {env.LLM_API_KEY}")
    if not re.match(r"https?://[^/\s]+", address):
        raise LlmError(f"{env.LLM_BASE_URL} is {address!r}, which is no address: write http://host:port/v1")
    settings = LlmSettings(
        base_url=address,
        model=environ.get(env.LLM_MODEL_NAME) or (HOSTED_MODEL if address == XAI_BASE_URL else None),
        max_concurrent=env.positive(environ, env.LLM_MAX_CONCURRENT, DEFAULT_MAX_CONCURRENT),
        api_key=env.llm_api_key(environ),
    )
    if settings.hosted and not settings.api_key:
        raise LlmError(
            f"there is no LLM: set {env.LLM_BASE_URL} to a vLLM server, or {env.LLM_API_KEY} to a key of the xAI API"
        )
    return settings
