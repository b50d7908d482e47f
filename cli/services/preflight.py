"""The checks before a run spends anything, and the resulting plan. Nothing is changed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cli.services import cost, executions, prefetch, starting, vllm
from cli.services.cost import Estimate
from cli.services.resumption import IncompleteRun
from cli.services.vllm import Vllm
from cli.stack import Stack
from contract.run import DEFAULT_BATCH_SIZE, MAX_LLM_CONCURRENCY, fit_batch_size

_SMALL_BATCH = 50
"""Minimum firms per batch: with fewer, starting another job costs more than it saves."""


@dataclass(frozen=True)
class QuarterPlan:
    """What a run of one quarter would do."""

    quarter: str
    firms: int
    batches: int
    batch_size: int
    """Firms per batch at most; larger than requested if there would be too many batches for one execution."""
    in_flight: int | None = None
    """Requests that one batch sends at once; None to leave it to the stack."""


@dataclass(frozen=True)
class Plan:
    """What would be run, and where."""

    bucket: str
    quarters: Sequence[QuarterPlan]
    at_once: int
    """Batches of a quarter that run at the same time."""
    vllm: Vllm | None
    """None when the stack's jobs use a hosted API."""
    vllm_size: int | None
    """GPU instances that AWS starts first; None to leave vLLM as it is."""
    keep_vllm: bool
    """Whether they are left on at the end."""
    smoke_test: bool
    """Whether vLLM names three topics before the first quarter."""
    estimate: Estimate
    """Of all quarters together."""


def plan(
    stack: Stack,
    quarters: Sequence[str],
    *,
    batch_size: int | None,
    vllm_size: int | None,
    keep_vllm: bool = False,
    smoke_test: bool = True,
    quarters_at_once: int = 1,
    force: bool = False,
) -> Plan:
    """Check everything that runs of `quarters` need, and plan them.

    Args:
        batch_size: firms per batch; if None, chosen so that all concurrent jobs have work: each of them sends its
            share of the requests that vLLM can take, and fewer would leave the GPU idle.
        smoke_test: whether vLLM may be tested first; it is when no run has succeeded since it came up.

    Raises:
        NotFoundError: when the state machine, the bucket, a prefetch or a healthy vLLM is missing.
        ConflictError: when a quarter is already running, and `force` is not set.
    """
    at_once = executions.check_state_machine(stack)
    plans = [_plan_quarter(stack, quarter, batch_size, at_once) for quarter in quarters]
    if not force:
        for quarter in quarters:
            starting.refuse_second(stack, quarter)
    return _plan(stack, plans, at_once, vllm_size, keep_vllm, smoke_test, min(quarters_at_once, len(plans)))


def plan_resumption(
    stack: Stack,
    quarter: str,
    left: IncompleteRun,
    *,
    vllm_size: int | None,
    keep_vllm: bool = False,
    smoke_test: bool = True,
) -> Plan:
    """Check everything that resuming a run needs, and plan it; raises what `plan` raises."""
    at_once = executions.check_state_machine(stack)
    prefetch.of_stack(stack, quarter)
    starting.refuse_second(stack, quarter)
    rest = QuarterPlan(quarter, left.firms, len(left.incomplete), batch_size=0)
    return _plan(stack, [rest], at_once, vllm_size, keep_vllm, smoke_test, quarters_at_once=1)


def document(plan: Plan) -> dict[str, object]:
    """The plan as `--dry-run --json` prints it."""
    return {
        "bucket": plan.bucket,
        "quarters": [vars(quarter) for quarter in plan.quarters],
        "at_once": plan.at_once,
        "vllm": plan.vllm and vars(plan.vllm),
        "vllm_size": plan.vllm_size,
        "keep_vllm": plan.keep_vllm,
        "smoke_test": plan.smoke_test,
        "estimate": plan.estimate,
    }


def _plan(
    stack: Stack,
    plans: Sequence[QuarterPlan],
    at_once: int,
    vllm_size: int | None,
    keep_vllm: bool,
    smoke_test: bool,
    quarters_at_once: int,
) -> Plan:
    checked = _check_vllm(stack, vllm_size)
    smoke_test = smoke_test and checked is not None and (vllm_size is not None or _came_up_since_a_run(stack))
    if checked and vllm_size:
        vllm_size = max(vllm_size, checked.desired)  # another operator may use the others
    gpus = (vllm_size or checked.healthy) if checked else 0
    plans = [
        replace(plan, in_flight=_in_flight(stack, gpus, min(at_once, plan.batches) * quarters_at_once))
        for plan in plans
    ]
    estimate = cost.estimate(
        stack,
        sum(quarter.firms for quarter in plans),
        gpus=gpus,
        at_once=at_once,
        cold=bool(checked and checked.healthy < gpus),
    )
    return Plan(stack.output("bucket"), plans, at_once, checked, vllm_size, keep_vllm, smoke_test, estimate)


def _in_flight(stack: Stack, gpus: int, batches_at_once: int) -> int | None:
    """One batch's share of the requests that all GPUs hold; None for a stack whose config sets the number."""
    per_gpu = stack.outputs.get("vllm_requests_per_gpu")
    if not per_gpu or not gpus:
        return None
    return min(MAX_LLM_CONCURRENCY, max(1, gpus * int(per_gpu) // max(1, batches_at_once)))


def _plan_quarter(stack: Stack, quarter: str, batch_size: int | None, at_once: int) -> QuarterPlan:
    firms = len(prefetch.of_stack(stack, quarter).firm_to_chunk)
    wanted = batch_size or min(max(-(-firms // at_once), _SMALL_BATCH), DEFAULT_BATCH_SIZE)
    size = fit_batch_size(firms, wanted)
    return QuarterPlan(quarter, firms, -(-firms // size), size)


def _check_vllm(stack: Stack, size: int | None) -> Vllm | None:
    if size is not None:
        return vllm.check_size(stack, size)
    return vllm.check_healthy(stack, or_else=", or add --vllm 1") if vllm.is_part_of(stack) else None


def _came_up_since_a_run(stack: Stack) -> bool:
    """Whether vLLM was started or deployed after the last successful run began."""
    if "llm_model" not in stack.outputs:  # an earlier version deployed the stack, without a smoke test
        return False
    succeeded = executions.last_success(stack)
    return succeeded is None or succeeded < vllm.came_up_at(stack)
