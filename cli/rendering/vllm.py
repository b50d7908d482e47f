"""How vLLM's state and the results of a load test are printed."""

from collections.abc import Mapping
from typing import Any

from cli import output
from cli.rendering.runs import print_fallbacks
from cli.services.gpus import Use
from cli.services.vllm import Vllm


def print_vllm(vllm: Vllm) -> None:
    """The counts, what is deployed, and a warning where the group and the service disagree."""
    columns = ("desired", "instances", "running", "healthy", "maximum")
    output.print_table(columns, [(vllm.desired, vllm.instances, vllm.running, vllm.healthy, vllm.maximum)])
    output.print_table(("model", "revision", "rollout"), [(vllm.model, vllm.revision, vllm.rollout)], wrap=("rollout",))
    output.print_line(f"base URL: {vllm.base_url}")
    if vllm.desired_tasks != vllm.desired:
        output.warn(f"the service wants {vllm.desired_tasks} tasks, but the group wants {vllm.desired} instances")


def print_use(use: Use, healthy: int) -> None:
    """The GPU instances and how busy they are; why something is unknown goes to stderr."""
    if use["gpus"]:
        columns = ("instance", "type", "zone", "state", "market", "$/hour", "up")
        rows = [
            (
                gpu["instance_id"],
                gpu["type"],
                gpu["zone"],
                gpu["state"],
                gpu["market"],
                None if gpu["dollars_per_hour"] is None else f"{gpu['dollars_per_hour']:.3f}",
                None if gpu["minutes_up"] is None else _hours(gpu["minutes_up"]),
            )
            for gpu in use["gpus"]
        ]
        output.print_table(columns, rows, drop=("state", "zone", "market"))
    if use["minutes_idle"] is not None:
        output.print_line(f"idle for {output.count(use['minutes_idle'], 'minute')}")
    if load := use["load"]:
        of = f", at one of {healthy} instances" if healthy > 1 else ""
        cache = "" if load["kv_cache_use"] is None else f"; {load['kv_cache_use']:.0%} of the KV cache is used"
        output.print_line(f"requests: {load['running']:,} running, {load['waiting']:,} waiting{of}{cache}")
    for note in use["notes"]:
        output.hint(note)


def print_smoke(result: Mapping[str, Any]) -> None:
    """The result for each topic; `result` is `evaluation.smoke`'s Smoke."""
    rows = [
        (
            topic["firm_id"],
            topic["name"],
            topic["problem"] or topic["summary"],
            f"{topic['seconds']:.1f}",
            topic["requests"],
            topic["prompt_tokens"],
            topic["completion_tokens"],
        )
        for topic in result["topics"]
    ]
    columns = ("firm", "name", "summary or problem", "s", "requests", "prompt", "completion")
    output.print_table(columns, rows, wrap=("summary or problem",), drop=("completion", "prompt", "requests"))
    output.print_line(f"{result['model']} at {result['base_url']}: {'passed' if result['passed'] else 'FAILED'}")


def print_load(result: Mapping[str, Any]) -> None:
    """Throughput and latency by concurrency level; `result` is `evaluation.load_test`'s Load."""
    columns = ("in flight", "requests/s", "p50 s", "p95 s", "tokens/s", "cached", "retries", "errors")
    rows = [
        (
            level["in_flight"],
            round(level["requests_per_second"], 1),
            _seconds(level["p50"]),
            _seconds(level["p95"]),
            round(level["tokens_per_second"]),
            f"{level['cached_share']:.0%}",
            level["retries"],
            level["errors"],
        )
        for level in result["levels"]
    ]
    output.print_table(columns, rows)
    print_fallbacks(result["fallbacks"])
    requests = output.count(result["knee"], "concurrent request")
    output.print_line(f"Knee: 90% of the peak throughput is reached with {requests}.")


def _hours(minutes: int) -> str:
    """`0:05`, hours and minutes."""
    return f"{minutes // 60}:{minutes % 60:02}"


def _seconds(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
