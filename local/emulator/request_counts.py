"""How many requests each target group received, as a metric in CloudWatch; moto has no metrics of load balancers."""

from collections import defaultdict
from datetime import datetime
from typing import Any, ClassVar

from moto.cloudwatch.models import MetricDatum
from moto.core.common_models import CloudWatchMetricProvider
from moto.core.utils import utcnow
from moto.elbv2.models import elbv2_backends


class RequestCounts(CloudWatchMetricProvider):
    """`RequestCountPerTarget` by minute; moto's CloudWatch finds every subclass of its provider."""

    _per_target: ClassVar[defaultdict[tuple[str, datetime], float]] = defaultdict(float)
    """By the target group's ARN and the start of the minute."""

    @classmethod
    def count(cls, account_id: str, region: str) -> None:
        """Count a request that every target group with targets received now."""
        minute = utcnow().replace(second=0, microsecond=0)
        for arn, group in list(elbv2_backends[account_id][region].target_groups.items()):
            if group.targets:
                cls._per_target[arn, minute] += 1 / len(group.targets)

    @classmethod
    def get_cloudwatch_metrics(cls, account_id: str, region: str) -> Any:  # type: ignore[override]
        return [
            MetricDatum(
                namespace="AWS/ApplicationELB",
                name="RequestCountPerTarget",
                value=requests,
                dimensions=[{"Name": "TargetGroup", "Value": arn.rpartition(":")[2]}],
                timestamp=minute,
                unit="Count",
            )
            for (arn, minute), requests in list(cls._per_target.items())
            if f":{region}:{account_id}:" in arn
        ]
