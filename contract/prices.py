"""What a run costs: list prices in US dollars of us-east-1. docs/costs.md has their sources."""

from contract.run import TokenCounts

GPU_HOUR = (0.35, 0.50)
"""A g6.xlarge or g5.xlarge on Spot."""

BATCH_HOUR = 0.04
"""A c7i.large on Spot, which runs one job."""

HOSTED_PRICES = (0.20, 0.05, 0.50)
"""Dollars per million prompt, cached and completion tokens of the xAI API (grok-4-1-fast)."""


def hosted_dollars(tokens: TokenCounts) -> float:
    """What the tokens cost at the hosted API."""
    prompt, cached, completion = HOSTED_PRICES
    fresh = tokens["prompt"] - tokens["cached"]
    return round((fresh * prompt + tokens["cached"] * cached + tokens["completion"] * completion) / 1e6, 2)
