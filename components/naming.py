"""Names that fit: AWS limits them to 32 (a load balancer) or 64 characters (a role), a stack's name may be longer."""

import hashlib


def fit(name: str, limit: int) -> str:
    """Return `name`, or, when it is longer than `limit`, its start and a digest that keeps it unique."""
    if len(name) <= limit:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:7]
    return f"{name[: limit - len(digest) - 1].rstrip('-')}-{digest}"
