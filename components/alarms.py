"""The alarms, as data without Pulumi: what each one measures, when it goes off, and what the operator should do.

Most of them evaluate periods of five minutes. Every expression is 1 or more while something is wrong and 0 otherwise.
Metrics that are not published, such as the requests of an idle load balancer, count as 0.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PERIOD = 300
"""Seconds of a usual period."""

_HOUR = 3600

RUNBOOK = "docs/runbook.md"

REFUSED = "HTTPCode_ELB_5XX_Count"
"""The metric of 5xx responses that the load balancer generated because no target could answer."""

COLD_START_MINUTES = 45
"""A new GPU instance answers its first request after 9 to 14 minutes (docs/adr/0002); three times as long is a fault.
An alarm that switches idle GPUs off must wait at least as long."""


@dataclass(frozen=True)
class Metric:
    key: str
    """Its name in the alarm's expression."""
    namespace: str
    name: str
    dimensions: Mapping[str, Any]
    stat: str = "Sum"


@dataclass(frozen=True)
class Alarm:
    name: str
    """Without the stack's prefix."""
    description: str
    """What happened, what to do, and the heading in the runbook."""
    expression: str
    metrics: Sequence[Metric]
    minutes: int = PERIOD // 60
    """How long the expression must be at least 1."""
    period: int = PERIOD
    """Seconds over which the metrics are added up."""

    @property
    def periods(self) -> int:
        return self.minutes * 60 // self.period


@dataclass(frozen=True)
class VllmDimensions:
    """How CloudWatch names the parts of vLLM. The values may be Pulumi outputs."""

    group: Any
    load_balancer: Any
    target_group: Any


def idle(vllm: VllmDimensions, minutes: int) -> Alarm:
    """GPU instances without a request for `minutes`.

    Responses that the load balancer generates count as requests: without a healthy target, it answers waiting jobs
    with 503. The metric is the minimum of the instances in each period, so that replacing a Spot instance restarts the
    countdown.
    """
    requests, refused = (_load_balancer(vllm, *one) for one in (("requests", "RequestCount"), ("refused", REFUSED)))
    return Alarm(
        "vllm-idle",
        f"GPU instances ran for {minutes} minutes without a request, and are being switched off. Nothing to do, unless "
        f"a run is waiting for vLLM: `ftm vllm scale 1 --wait`. {RUNBOOK}: A GPU was left running",
        "IF(FILL(instances, 0) > 0 AND FILL(requests, 0) + FILL(refused, 0) == 0, 1, 0)",
        [_group(vllm, "instances", "GroupInServiceInstances"), requests, refused],
        minutes,
    )


def of_vllm(vllm: VllmDimensions) -> Iterator[Alarm]:
    """The alarms that concern the GPU instances and the service on them."""
    desired = _group(vllm, "desired", "GroupDesiredCapacity")
    yield Alarm(
        "vllm-no-capacity",
        "AWS could not start the desired GPU instances for 15 minutes: no Spot capacity, or the quota is too small. "
        f"Wait, or allow more instance types or an on-demand instance. {RUNBOOK}: vLLM does not come up",
        "IF(FILL(desired, 0) > FILL(total, 0), 1, 0)",
        [desired, _group(vllm, "total", "GroupTotalInstances")],
        15,
    )
    yield Alarm(
        "vllm-unhealthy",
        f"GPU instances are wanted, and none has answered health checks for {COLD_START_MINUTES} minutes. Read vLLM's "
        f"log, or switch it off with `ftm vllm scale 0`. {RUNBOOK}: vLLM does not come up",
        "IF(FILL(desired, 0) > 0 AND FILL(healthy, 0) < 1, 1, 0)",
        [
            desired,
            Metric(
                "healthy",
                "AWS/ApplicationELB",
                "HealthyHostCount",
                {"LoadBalancer": vllm.load_balancer, "TargetGroup": vllm.target_group},
                "Maximum",
            ),
        ],
        COLD_START_MINUTES,
    )


def of_runs(quarter_machine: Any, quarters_machine: Any, functions: Sequence[Any]) -> Iterator[Alarm]:
    """The alarms that concern runs. The state machines are given by their ARNs, the functions by their names."""
    failures = _failures(quarter_machine)
    yield Alarm(
        "quarter-failed",
        "A quarter failed, timed out or was stopped. See why with `ftm resume QUARTER`, which asks before it starts "
        f"anything. {RUNBOOK}: The run failed",
        _total(failures),
        failures,
    )
    # A list also fails when one of its quarters does, which the alarm above has reported already. The period is an hour
    # because the list may fail some minutes after its quarter.
    of_lists = _failures(quarters_machine, "list_")
    yield Alarm(
        "quarters-failed",
        "A run with `--vllm`, or a list of quarters, failed, timed out or was stopped, and no quarter failed: vLLM did "
        "not become healthy, or its smoke test failed. See why with `ftm watch`, and start it again afterwards. GPUs "
        f"that it started are switched off, unless `--keep-vllm` was given. {RUNBOOK}: A run ended before its quarters",
        f"IF({_total(of_lists)} > 0 AND {_total(failures)} == 0, 1, 0)",
        [*of_lists, *failures],
        _HOUR // 60,
        _HOUR,
    )
    errors = [
        Metric(f"{kind.lower()}{n}", "AWS/Lambda", kind, {"FunctionName": function})
        for n, function in enumerate(functions)
        for kind in ("Errors", "Throttles")
    ]
    yield Alarm(
        "functions-failing",
        "A function of the state machine failed or was throttled. Read the logs under /aws/lambda/. A run that failed "
        f"because of it continues with `ftm resume QUARTER`. {RUNBOOK}: The run failed",
        _total(errors),
        errors,
    )


def _failures(state_machine: Any, prefix: str = "") -> list[Metric]:
    names = {"failed": "ExecutionsFailed", "late": "ExecutionsTimedOut", "aborted": "ExecutionsAborted"}
    return [
        Metric(f"{prefix}{key}", "AWS/States", name, {"StateMachineArn": state_machine}) for key, name in names.items()
    ]


def _total(metrics: Sequence[Metric]) -> str:
    return " + ".join(f"FILL({metric.key}, 0)" for metric in metrics)


def _group(vllm: VllmDimensions, key: str, name: str) -> Metric:
    return Metric(key, "AWS/AutoScaling", name, {"AutoScalingGroupName": vllm.group}, "Minimum")


def _load_balancer(vllm: VllmDimensions, key: str, name: str) -> Metric:
    return Metric(key, "AWS/ApplicationELB", name, {"LoadBalancer": vllm.load_balancer})
