"""Topic discovery with sentence embeddings instead of LSA, selected by TOPIC_EMBEDDING_MODEL.

It needs the extra `embeddings` (torch). On one core MiniLM takes 3.4 s for a firm, and LSA a few hundredths of a
second: only a GPU makes them equally fast. `python -m worker.topics.embeddings MODEL` stores a model in the image.
"""

import errno
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from contract import env
from worker import TemporaryError, WorkerError

Embed = Callable[[list[str]], np.ndarray]
"""Converts texts to vectors of unit length: texts x dimensions."""

MODELS = Path(__file__).resolve().parents[2] / "models"
"""The folder of models in the image, with a subfolder per model id."""

_HUB_SECONDS = 15.0


@lru_cache(maxsize=1)
def load(model: str) -> Embed:
    """Load a sentence-transformers model: from the image, from a folder, or by its id from the Hugging Face hub.

    Raises:
        WorkerError: when sentence-transformers is not installed, or there is no such model.
        TemporaryError: when the hub cannot be reached.
    """
    try:
        from sentence_transformers import SentenceTransformer  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise WorkerError(
            f"{env.TOPIC_EMBEDDING_MODEL} is {model!r}, but sentence-transformers is not installed: install ftm's "
            "extra `embeddings`, for an image by `make image EXTRAS='worker embeddings'`, or unset the stack's "
            "ftm:topicEmbeddingModel"
        ) from error
    stored = MODELS / model
    is_local = stored.is_dir() or Path(model).is_dir()
    is_at_hub = not is_local and _is_at_hub(model)
    try:
        encoder: Any = SentenceTransformer(str(stored) if stored.is_dir() else model)
    except (OSError, ValueError) as error:
        problem = f"{env.TOPIC_EMBEDDING_MODEL} {model!r} cannot be loaded: {error}"
        is_download = is_at_hub and getattr(error, "errno", None) != errno.ENOSPC
        raise (TemporaryError if is_download else WorkerError)(problem) from error
    return lambda texts: encoder.encode(texts, normalize_embeddings=True, show_progress_bar=False)


def _is_at_hub(model: str) -> bool:
    """Ask the hub for the model once: sentence-transformers itself tries for minutes to reach it.

    Raises:
        TemporaryError: when the hub cannot be reached.
    """
    from huggingface_hub import HfApi  # pyright: ignore[reportMissingImports]
    from huggingface_hub.errors import RepositoryNotFoundError  # pyright: ignore[reportMissingImports]

    try:
        HfApi().model_info(model if "/" in model else f"sentence-transformers/{model}", timeout=_HUB_SECONDS)
    except (RepositoryNotFoundError, ValueError):
        return False
    except Exception as error:
        raise TemporaryError(
            f"the model hub cannot be reached for {env.TOPIC_EMBEDDING_MODEL} {model!r} ({type(error).__name__}): "
            f"another attempt tries again; `make image EXTRAS='worker embeddings' MODEL={model}` puts it into the image"
        ) from error
    return True


def store(model: str) -> None:
    """Download a model into the image's folder."""
    from sentence_transformers import SentenceTransformer  # pyright: ignore[reportMissingImports]

    encoder: Any = SentenceTransformer(model)
    encoder.save(str(MODELS / model))


if __name__ == "__main__":
    store(sys.argv[1])
