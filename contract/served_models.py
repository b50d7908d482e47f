"""Which model to ask an OpenAI-compatible server for, given the ids that it lists."""

import re
from collections.abc import Sequence

from contract import ContractError

HOSTED_MODEL = "grok-4-1-fast-non-reasoning"
"""The model of the hosted API, which a stack without vLLM uses."""

_EMBEDDING = re.compile(r"embed|rerank|\bbge-|\be5-|\bgte-|minilm|whisper|\btts\b", re.IGNORECASE)
"""Parts of the ids of models that cannot chat; servers such as LM Studio and Ollama list them too."""


def choose_model(served: Sequence[str], wanted: str | None, setting: str) -> str:
    """The id of the model to use, as the server spells it.

    A server may list a model under a longer id than the one that people use: `qwen3:latest` for `qwen3` (Ollama),
    `models/gemini` (Google), or the path of a file, `/models/Qwen3-8B.gguf` (llama.cpp). Such an id is found by the
    shorter one, in any case of letters.

    Args:
        served: The ids that the server lists.
        wanted: The model that was asked for; None for the only chat model that the server has. If the server lists
            no models, this name is used unchanged.
        setting: The variable or option that names the model, for the error message.

    Raises:
        ContractError: if the server does not list `wanted`, or lists no chat model or several and none is wanted.
    """
    if wanted:
        if wanted in served or not served:
            return wanted
        found = [model for model in served if _short(wanted) in (_short(model), _short(model.rpartition("/")[2]))]
        if len(found) == 1:
            return found[0]
        raise ContractError(f"it serves {_list(served)}, not {wanted}: set {setting} to a model that it serves")
    chat = [model for model in served if not _EMBEDDING.search(model)]
    if len(chat) == 1:
        return chat[0]
    if chat:
        raise ContractError(f"it serves several models ({_list(chat)}): choose one with {setting}")
    raise ContractError(f"it serves no chat model ({_list(served)}): name one with {setting}")


def _short(model: str) -> str:
    return model.lower().removeprefix("models/").removesuffix(":latest").removesuffix(".gguf")


def _list(models: Sequence[str], most: int = 10) -> str:
    shown = ", ".join(models[:most]) or "none"
    return f"{shown} and {len(models) - most} more" if len(models) > most else shown
