"""Shortens resource names to AWS's limits: 32 characters for a load balancer, 64 for a role. A stack's name may be
longer than that."""

import hashlib


def fit(name: str, limit: int) -> str:
    """Return `name`. When it is longer than `limit`, return its start and a digest that keeps the result unique."""
    if len(name) <= limit:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:7]
    return f"{name[: limit - len(digest) - 1].rstrip('-')}-{digest}"
