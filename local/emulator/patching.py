"""Replaces parts of moto, and fails loudly when moto has changed.

Each replacement records a hash of the source that it was written for. In another version of moto, where that source
differs, the replacement may be obsolete or wrong, so starting the embedded AWS fails with a message that names it.
"""

import functools
import hashlib
import inspect
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

WRITTEN_FOR = "5.2.5"
"""The version of moto that the replacements were written against."""

_originals: dict[tuple[int, str], Callable[..., Any]] = {}


class MotoDoesNotFitError(Exception):
    """The installed moto differs from the one that a replacement was written for."""


def replace(owner: Any, name: str, source: str, replacement: Callable[..., Any], everywhere: bool = False) -> None:
    """Replace `owner.name` by `replacement`, which is called with the original as its first argument.

    Args:
        owner: A class or module of moto.
        source: The original's `source_hash`.
        everywhere: Also replace it in the modules that imported it by name.

    Raises:
        MotoDoesNotFitError: if the original is missing or its source differs.
    """
    original = _originals.get((id(owner), name)) or getattr(owner, name, None)
    if original is None or source_hash(original) != source:
        raise MotoDoesNotFitError(
            f"moto {version('moto')} does not fit: {_title(owner)}.{name} differs from moto {WRITTEN_FOR}'s, for which "
            f"{replacement.__module__} replaces it; install moto=={WRITTEN_FOR}, or revise that replacement"
        )
    current = getattr(owner, name)
    _originals[id(owner), name] = original

    @functools.wraps(original)
    def replaced(*args: Any, **kwargs: Any) -> Any:
        return replacement(original, *args, **kwargs)

    owners = [owner, *_importers(name, current)] if everywhere else [owner]
    for each in owners:
        setattr(each, name, replaced)


def source_hash(function: Callable[..., Any]) -> str:
    """Twelve hex digits of the SHA-256 of a function's source."""
    return hashlib.sha256(inspect.getsource(function).encode()).hexdigest()[:12]


def _importers(name: str, value: Any) -> list[Any]:
    modules = [module for key, module in list(sys.modules.items()) if key.startswith("moto.")]
    return [module for module in modules if getattr(module, name, None) is value]


def _title(owner: Any) -> str:
    return f"{owner.__module__}.{owner.__qualname__}" if inspect.isclass(owner) else owner.__name__
