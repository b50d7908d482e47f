"""What is checked before a run spends anything, and the plan that comes of it."""

from dataclasses import dataclass

from cli.services import executions, prefetch, vllm
from cli.services.vllm import Vllm
from cli.stack import Stack
from contract.run import DEFAULT_BATCH_SIZE, MAX_BATCHES


@dataclass(frozen=True)
class Plan:
    """What a run would do."""

    quarter: str
    bucket: str
    firms: int
    batch_size: int
    """Firms a batch; larger than asked when the batches would be too many for one execution."""
    at_once: int
    """Batches that run at the same time."""
    vllm: Vllm | None
    """None when the stack's jobs use a hosted API."""
    vllm_size: int | None
    """GPU instances to scale to first; None to take vLLM as it is."""

    @property
    def batches(self) -> int:
        return -(-self.firms // self.batch_size)


def plan(stack: Stack, quarter: str, *, batch_size: int | None, vllm_size: int | None, force: bool) -> Plan:
    """Check everything that the run needs, and plan it; changes nothing.

    Raises:
        NotFoundError: when the state machine, the bucket, the prefetch or a healthy vLLM is missing.
        ConflictError: when the quarter is being run already, and `force` is not set.
    """
    at_once = executions.check_state_machine(stack)
    firms = len(prefetch.of_stack(stack, quarter).firm_to_chunk)
    if not force:
        executions.refuse_second(stack, quarter)
    size = max(batch_size or DEFAULT_BATCH_SIZE, -(-firms // MAX_BATCHES))
    return Plan(quarter, stack.output("bucket"), firms, size, at_once, _check_vllm(stack, vllm_size), vllm_size)


def _check_vllm(stack: Stack, size: int | None) -> Vllm | None:
    if size is not None:
        return vllm.check_size(stack, size)
    return vllm.check_healthy(stack) if vllm.is_part_of(stack) else None
