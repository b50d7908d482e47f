"""What a quarter costs: estimated before a run, and computed from its tokens and times afterwards.

The prices are per hour and in US dollars. GPU prices are live Spot prices if EC2 provides them; the others are list
prices, which the answer names as assumptions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypedDict

from cli.services import runs, vllm
from cli.stack import Stack
from contract.prices import BATCH_HOUR, GPU_HOUR, HOSTED_PRICES, hosted_dollars
from contract.run import RunRecord, TokenCounts

_TOPICS_PER_FIRM = 13.0
_PROMPT_TOKENS_PER_TOPIC = 510.0
_COMPLETION_TOKENS_PER_TOPIC = 62.0
_CACHED_SHARE = 0.4
_REQUESTS_PER_SECOND = (6.0, 20.0)
"""Of one 24 GB GPU with Qwen3-8B; the range covers bf16 to quantised weights."""

_ASSUMED_SPEED = f"{_REQUESTS_PER_SECOND[0]:.0f} to {_REQUESTS_PER_SECOND[1]:.0f} requests a second per GPU"

_SPREAD = 1.25
"""Relative uncertainty of an estimate that is based on a measured run."""

_MEASURED_TOPICS = 1000
"""Runs with fewer topics are not used to estimate speed: most of their time is the start of their jobs."""

_START_MINUTES = (9.0, 14.0)
"""A cold GPU on Spot: capacity, image, weights, compilation."""


class Range(TypedDict):
    low: float
    high: float


class Estimate(TypedDict):
    """Estimated time, tokens and cost of a run."""

    firms: int
    topics: int
    tokens: TokenCounts
    minutes: Range
    gpu_hours: Range
    batch_hours: Range
    gpu_price: Range
    """Dollars per GPU-hour."""
    dollars: Range
    hosted_dollars: float
    """What the same tokens cost at the hosted API."""
    assumptions: list[str]


class Spent(TypedDict):
    """Time, tokens and cost of a run that has ended."""

    run: str
    topics: int
    tokens: TokenCounts
    gpu_hours: float
    batch_hours: float
    dollars: Range
    hosted_dollars: float
    assumptions: list[str]


@dataclass(frozen=True)
class _Rates:
    """Rates per firm and per topic for an estimate."""

    topics_per_firm: float
    prompt: float
    cached_share: float
    completion: float
    topics_per_second: tuple[float, float]
    source: str


def estimate(stack: Stack, firms: int, *, gpus: int, at_once: int, cold: bool) -> Estimate:
    """Estimate the time and cost of a run over `firms` firms.

    Args:
        gpus: how many will serve; 0 for a stack whose jobs use a hosted API.
        at_once: concurrent Batch jobs.
        cold: whether the GPUs have to be started first.
    """
    rates = _rates(stack)
    topics = round(firms * rates.topics_per_firm)
    prompt, completion = round(topics * rates.prompt), round(topics * rates.completion)
    tokens: TokenCounts = {"prompt": prompt, "cached": round(prompt * rates.cached_share), "completion": completion}
    slow, fast = (rate * max(gpus, 1) for rate in rates.topics_per_second)
    start_low, start_high = _START_MINUTES if cold and gpus else (0.0, 0.0)
    minutes = _range(topics / fast / 60 + start_low, topics / slow / 60 + start_high)
    gpu_hours = _range(minutes["low"] / 60 * gpus, minutes["high"] / 60 * gpus)
    working_high, working_low = minutes["high"] - start_high, minutes["low"] - start_low
    batch_hours = _range(working_low / 60 * at_once, working_high / 60 * at_once)
    price, price_source = gpu_price(stack)
    hosted = hosted_dollars(tokens)
    low = gpu_hours["low"] * price["low"] + batch_hours["low"] * BATCH_HOUR
    high = gpu_hours["high"] * price["high"] + batch_hours["high"] * BATCH_HOUR
    api = 0.0 if gpus else hosted
    return {
        "firms": firms,
        "topics": topics,
        "tokens": tokens,
        "minutes": minutes,
        "gpu_hours": gpu_hours,
        "batch_hours": batch_hours,
        "gpu_price": price,
        "dollars": _range(low + api, high + api),
        "hosted_dollars": hosted,
        "assumptions": [
            f"topics and tokens: {rates.source}",
            f"GPU price: {price_source}" if gpus else "no GPU: the stack's jobs use a hosted API",
            f"Batch: {at_once} hosts at ${BATCH_HOUR:.2f} an hour (c7i.large, Spot)",
            _hosted_assumption(),
        ],
    }


def spent(stack: Stack, record: RunRecord) -> Spent:
    """Time, tokens and cost of a run, from its record."""
    summary = record["summary"]
    wall = runs.seconds_of(record)
    gpus = 1 if vllm.is_part_of(stack) else 0
    gpu_hours, batch_hours = wall / 3600 * gpus, summary["seconds"] / 3600
    price, price_source = gpu_price(stack)
    hosted = hosted_dollars(summary["tokens"])
    batch_dollars = batch_hours * BATCH_HOUR + (0.0 if gpus else hosted)
    return {
        "run": summary["run"],
        "topics": summary["topics"]["total"],
        "tokens": summary["tokens"],
        "gpu_hours": round(gpu_hours, 3),
        "batch_hours": round(batch_hours, 3),
        "dollars": _range(gpu_hours * price["low"] + batch_dollars, gpu_hours * price["high"] + batch_dollars),
        "hosted_dollars": hosted,
        "assumptions": [
            "one GPU, from the run's start to its end; time in which it was up but idle is not included",
            f"GPU price: {price_source}",
            f"Batch: ${BATCH_HOUR:.2f} per hour of a job (c7i.large, Spot)",
            _hosted_assumption(),
        ],
    }


def gpu_price(stack: Stack) -> tuple[Range, str]:
    """Dollars per GPU-hour, and where the number comes from."""
    types = instance_types(stack)
    prices = spot_prices(stack, types)
    if not prices:
        return _range(*GPU_HOUR), f"assumed, ${GPU_HOUR[0]:.2f} to ${GPU_HOUR[1]:.2f} an hour on Spot"
    cheapest = min(prices, key=lambda price: price["dollars"])
    text = f"live Spot price, ${cheapest['dollars']:.3f} an hour for a {cheapest['type']} in {cheapest['zone']}"
    return _range(cheapest["dollars"], max(price["dollars"] for price in prices)), text


def instance_types(stack: Stack) -> list[str]:
    """The instance types of the stack's GPU group."""
    if not vllm.is_part_of(stack):
        return []
    groups = stack.autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[stack.output("vllm_asg_name")])
    policies = [group.get("MixedInstancesPolicy", {}) for group in groups["AutoScalingGroups"]]
    overrides = [item for policy in policies for item in policy.get("LaunchTemplate", {}).get("Overrides", [])]
    return [item["InstanceType"] for item in overrides if "InstanceType" in item]


def spot_prices(stack: Stack, types: Sequence[str]) -> list[dict[str, Any]]:
    """The current Spot price of each type and zone; empty if EC2 provides none, as on the embedded AWS."""
    if stack.endpoint or not types:
        return []
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        history = stack.client("ec2").describe_spot_price_history(
            InstanceTypes=list(types), ProductDescriptions=["Linux/UNIX"], StartTime=datetime.now(UTC)
        )["SpotPriceHistory"]
    except (BotoCoreError, ClientError):  # an estimate needs no permission for ec2:DescribeSpotPriceHistory
        return []
    return [
        {"type": item["InstanceType"], "zone": item["AvailabilityZone"], "dollars": float(item["SpotPrice"])}
        for item in history
    ]


def _rates(stack: Stack) -> _Rates:
    """From the newest successful run of any quarter, or else from the defaults."""
    for record in runs.latest_records(stack):
        summary = record["summary"]
        firms, topics = summary["firms"]["completed"], summary["topics"]["total"]
        if not firms or not topics:
            continue
        tokens, pace = summary["tokens"], topics / max(runs.seconds_of(record), 1.0)
        is_long = topics >= _MEASURED_TOPICS
        source = f"as in run {summary['run']} of {summary['quarter']} ({topics} topics of {firms} firms)"
        return _Rates(
            topics_per_firm=topics / firms,
            prompt=tokens["prompt"] / topics,
            cached_share=tokens["cached"] / max(tokens["prompt"], 1),
            completion=tokens["completion"] / topics,
            topics_per_second=(pace / _SPREAD, pace * _SPREAD) if is_long else _REQUESTS_PER_SECOND,
            source=source if is_long else f"{source}, but {_ASSUMED_SPEED}",
        )
    return _Rates(
        _TOPICS_PER_FIRM,
        _PROMPT_TOKENS_PER_TOPIC,
        _CACHED_SHARE,
        _COMPLETION_TOKENS_PER_TOPIC,
        _REQUESTS_PER_SECOND,
        f"no run has succeeded yet: {_TOPICS_PER_FIRM:.0f} topics per firm, {_PROMPT_TOKENS_PER_TOPIC:.0f} + "
        f"{_COMPLETION_TOKENS_PER_TOPIC:.0f} tokens per topic, {_ASSUMED_SPEED}",
    )


def _hosted_assumption() -> str:
    prompt, cached, completion = HOSTED_PRICES
    return f"hosted API: ${prompt:.2f} prompt, ${cached:.2f} cached, ${completion:.2f} completion per million tokens"


def _range(low: float, high: float) -> Range:
    return {"low": round(low, 3), "high": round(high, 3)}
