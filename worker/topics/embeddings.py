"""Sentence embeddings in the place of LSA: the variant of topic discovery that TOPIC_EMBEDDING_MODEL switches on.

It needs the extra `embeddings` (torch), and a GPU to be as fast as LSA is on a CPU: MiniLM takes 3.4 s a firm on one
core, LSA a few hundredths.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from contract import env
from worker import WorkerError

Embed = Callable[[list[str]], np.ndarray]
"""Texts to vectors of unit length: texts x dimensions."""


@lru_cache(maxsize=1)
def load(model: str) -> Embed:
    """The embeddings of a sentence-transformers model, by its id on the Hugging Face hub or its folder.

    Raises:
        WorkerError: when sentence-transformers is not installed, or the model cannot be had.
    """
    try:
        from sentence_transformers import SentenceTransformer  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise WorkerError(
            f"{env.TOPIC_EMBEDDING_MODEL} is {model!r}, and there is no sentence-transformers here: install ftm's "
            "extra `embeddings`, for an image by `make image EXTRAS='worker embeddings'`, or unset the stack's "
            "ftm:topicEmbeddingModel"
        ) from error
    try:
        encoder = SentenceTransformer(model)
    except (OSError, ValueError) as error:
        raise WorkerError(f"{env.TOPIC_EMBEDDING_MODEL} {model!r} cannot be loaded: {error}") from error
    return lambda texts: encoder.encode(texts, normalize_embeddings=True, show_progress_bar=False)
