"""The account's quotas of GPU instances: whether AWS may start as many as are wanted, and what to request otherwise."""

from collections.abc import Iterator
from dataclasses import dataclass

from cli.services import cost, vllm
from cli.stack import Stack

_VCPUS = {"xlarge": 4, "2xlarge": 8, "4xlarge": 16, "8xlarge": 32, "16xlarge": 64}
"""vCPUs of the sizes of the GPU families g4dn, g5, g6 and g6e."""


@dataclass(frozen=True)
class Quota:
    """A quota, and how much of it a number of instances needs."""

    code: str
    kind: str
    vcpus: float
    """What the account may use at once in this region."""
    needed: int
    instances: int
    command: str
    """Requests as much as is needed."""

    @property
    def suffices(self) -> bool:
        return self.vcpus >= self.needed

    @property
    def sentence(self) -> str:
        instances = "1 instance needs" if self.instances == 1 else f"{self.instances} instances need"
        return (
            f"the account may use {self.vcpus:.0f} vCPUs of {self.kind} GPU instances at once, and {instances} "
            f"{self.needed}: request quota {self.code} with `{self.command}`; the answer takes hours to days"
        )


def quotas(stack: Stack, size: int) -> Iterator[Quota]:
    """The quotas that `size` GPU instances need; none where AWS knows no such quota, as on the embedded AWS.

    Raises:
        ClientError: botocore's, when the caller may not read quotas.
    """
    vcpus = min((_VCPUS.get(kind.partition(".")[2], 4) for kind in cost.instance_types(stack)), default=4)
    on_demand = min(size, vllm.on_demand_base(stack))
    # Without Spot capacity, all of them may be on demand.
    fallback = size if stack.outputs.get("vllm_on_demand_fallback_minutes") else on_demand
    for code, kind, count in (("L-3819A6DF", "Spot", size - on_demand), ("L-DB2E81BA", "on-demand", fallback)):
        if count and (allowed := _read(stack, code)) is not None:
            request = f"--service-code ec2 --quota-code {code} --desired-value {count * vcpus}"
            command = stack.aws_command(f"service-quotas request-service-quota-increase {request}")
            yield Quota(code, kind, allowed, count * vcpus, count, command)


def _read(stack: Stack, code: str) -> float | None:
    client = stack.client("service-quotas")
    try:
        return client.get_service_quota(ServiceCode="ec2", QuotaCode=code)["Quota"]["Value"]
    except client.exceptions.NoSuchResourceException:
        return None
