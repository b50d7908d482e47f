"""The GPU instances behind vLLM: what they are, what they cost, and how busy they are, for `ftm vllm status`.

A value that cannot be read is None, and a note says why: the operator's role may lack a permission, and the load
balancer is internal, so vLLM itself is rarely reachable from the operator's machine.
"""

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from threading import Thread
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

from cli.errors import explain
from cli.services import cost, vllm
from cli.services.vllm import Vllm
from cli.stack import Stack

if TYPE_CHECKING:
    from mypy_boto3_autoscaling.type_defs import InstanceTypeDef

T = TypeVar("T")

METRICS_SECONDS = 2.0
"""Timeout for reading vLLM's metrics, including the DNS lookup of the load balancer."""

_BUSY_MINUTES = 5
"""The load balancer cuts a request after 5 minutes without an answer: if it received none for as long, none runs."""

_HISTORY = timedelta(hours=24)
"""How far back to search for the last request: CloudWatch answers at most 1,440 periods."""


class Gpu(TypedDict):
    """One instance of the GPU group."""

    instance_id: str
    type: str
    zone: str
    state: str
    """Its state in the group, such as Pending or InService."""
    market: str | None
    """`spot` or `on-demand`."""
    dollars_per_hour: float | None
    """The current Spot price of its type in its zone; None for an on-demand instance."""
    minutes_up: int | None


class Load(TypedDict):
    """Values of vLLM's `/metrics`. With several instances, those of the instance that answered."""

    running: int
    """Requests that are being computed."""
    waiting: int
    kv_cache_use: float | None
    """Share of the KV cache, from 0 to 1."""


class Use(TypedDict):
    """What `ftm vllm status` adds to vLLM's state."""

    gpus: list[Gpu]
    minutes_idle: int | None
    """Minutes since the load balancer last forwarded a request, at most the oldest instance's uptime."""
    load: Load | None
    """None also after some idle minutes: no request runs then, and vLLM is not queried."""
    notes: list[str]
    """Why something is None."""


def use(stack: Stack, state: Vllm) -> Use:
    """The instances of the stack's GPU group and their use."""
    notes: list[str] = []
    gpus = _gpus(stack, notes)
    idle = _minutes_idle(stack, gpus, notes)
    return {"gpus": gpus, "minutes_idle": idle, "load": _load(state, idle, notes), "notes": notes}


def _gpus(stack: Stack, notes: list[str]) -> list[Gpu]:
    instances = vllm.group(stack).get("Instances", [])
    if not instances:
        return []
    described = _optional(notes, "Spot or on demand, and uptime", lambda: _describe(stack, instances)) or {}
    prices = {
        (price["type"], price["zone"]): price["dollars"]
        for price in cost.spot_prices(stack, sorted({one.get("InstanceType", "") for one in instances}))
    }
    return [_gpu(one, described.get(one["InstanceId"]), prices) for one in instances]


def _describe(stack: Stack, instances: Sequence["InstanceTypeDef"]) -> dict[str, Any]:
    # A filter leaves out instances that have ended meanwhile; with InstanceIds, EC2 would refuse the whole request.
    ids = [{"Name": "instance-id", "Values": [one["InstanceId"] for one in instances]}]
    reservations = stack.client("ec2").describe_instances(Filters=ids)["Reservations"]
    return {one["InstanceId"]: one for reservation in reservations for one in reservation["Instances"]}


def _gpu(member: "InstanceTypeDef", described: dict[str, Any] | None, prices: dict[tuple[str, str], float]) -> Gpu:
    kind, zone = member.get("InstanceType", ""), member["AvailabilityZone"]
    market, up = None, None
    if described:
        market = described.get("InstanceLifecycle", "on-demand")
        up = _minutes_since(described["LaunchTime"])
    return {
        "instance_id": member["InstanceId"],
        "type": kind,
        "zone": zone,
        "state": member["LifecycleState"],
        "market": market,
        "dollars_per_hour": prices.get((kind, zone)) if market == "spot" else None,
        "minutes_up": up,
    }


def _minutes_idle(stack: Stack, gpus: Sequence[Gpu], notes: list[str]) -> int | None:
    if not gpus:
        return None
    answered = _optional(notes, "minutes without a request", lambda: _request_counts(stack))
    if answered is None:
        return None
    waits = [_minutes_since(one["Timestamp"]) for one in answered if one["Sum"] > 0]
    up = max((gpu["minutes_up"] for gpu in gpus if gpu["minutes_up"] is not None), default=None)
    return min(waits if up is None else [*waits, up], default=None)


def _request_counts(stack: Stack) -> list[dict[str, Any]]:
    """The requests that the load balancer forwarded, by minute; minutes without any are missing."""
    now = datetime.now(UTC)
    return stack.client("cloudwatch").get_metric_statistics(
        Namespace="AWS/ApplicationELB",
        MetricName="RequestCountPerTarget",
        Dimensions=[{"Name": "TargetGroup", "Value": stack.output("vllm_target_group_arn").rpartition(":")[2]}],
        StartTime=now - _HISTORY,
        EndTime=now + timedelta(minutes=1),
        Period=60,
        Statistics=["Sum"],
    )["Datapoints"]


def _minutes_since(moment: datetime) -> int:
    return max(0, int((datetime.now(UTC) - moment).total_seconds() // 60))


def _load(state: Vllm, minutes_idle: int | None, notes: list[str]) -> Load | None:
    if not state.healthy:
        return None
    if minutes_idle is not None and minutes_idle > _BUSY_MINUTES:
        return None  # this would count as a request, and keep an idle GPU from being switched off
    text = _fetch(f"{state.base_url.removesuffix('/v1')}/metrics")
    if text is None:
        notes.append("requests running and waiting: unknown, the load balancer cannot be reached from here")
        return None
    running, waiting = _samples(text, "num_requests_running"), _samples(text, "num_requests_waiting")
    if not running or not waiting:
        notes.append("requests running and waiting: unknown, the LLM server has no metrics of vLLM")
        return None
    # Older versions of vLLM have the second name.
    shares = _samples(text, "kv_cache_usage_perc") or _samples(text, "gpu_cache_usage_perc")
    return {"running": int(sum(running)), "waiting": int(sum(waiting)), "kv_cache_use": max(shares, default=None)}


def _fetch(url: str) -> str | None:
    """The text at `url`; None without an answer in METRICS_SECONDS, and empty for an error of the server.

    A DNS lookup cannot be interrupted, so a daemon thread does it.
    """
    answers: list[str] = []
    thread = Thread(target=_get, args=(url, answers), daemon=True)
    thread.start()
    thread.join(METRICS_SECONDS)
    return answers[0] if answers else None


def _get(url: str, answers: list[str]) -> None:
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.request import ProxyHandler, build_opener

    try:
        with build_opener(ProxyHandler({})).open(url, timeout=METRICS_SECONDS) as answer:
            answers.append(answer.read().decode(errors="replace"))
    except HTTPError:
        answers.append("")
    except (OSError, HTTPException):
        return


def _samples(text: str, name: str) -> list[float]:
    """The values of one of vLLM's gauges in Prometheus' text format: one for each engine of the server."""
    found = re.findall(rf"^vllm:{name}(?:{{.*}})? ([-+.\deE]+)", text, re.MULTILINE)
    return [float(value) for value in found]


def _optional(notes: list[str], what: str, ask: Callable[[], T]) -> T | None:
    """The answer of AWS, or None and a note when AWS refuses or does not answer."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return ask()
    except (BotoCoreError, ClientError) as error:
        notes.append(f"{what}: unknown, {explain(error)[0]}")
        return None
