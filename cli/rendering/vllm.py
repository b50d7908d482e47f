"""How vLLM's state and the results of a load test are printed."""

from collections.abc import Mapping
from typing import Any

from cli import output
from cli.rendering.runs import print_fallbacks
from cli.services.vllm import Vllm


def print_vllm(vllm: Vllm) -> None:
    """One line of counts, and a warning where the group and the service disagree."""
    columns = ("desired", "instances", "running", "healthy", "maximum", "base URL")
    values = (vllm.desired, vllm.instances, vllm.running, vllm.healthy, vllm.maximum, vllm.base_url)
    output.print_table(columns, [values])
    output.print_table(("model", "revision", "rollout"), [(vllm.model, vllm.revision, vllm.rollout)], wrap=("rollout",))
    if vllm.desired_tasks != vllm.desired:
        output.warn(f"the service wants {vllm.desired_tasks} tasks, but the group wants {vllm.desired} instances")


def print_smoke(result: Mapping[str, Any]) -> None:
    """What came of each topic; `result` is `evaluation.smoke`'s Smoke."""
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
            f"{level['requests_per_second']:.1f}",
            _seconds(level["p50"]),
            _seconds(level["p95"]),
            f"{level['tokens_per_second']:,.0f}",
            f"{level['cached_share']:.0%}",
            level["retries"],
            level["errors"],
        )
        for level in result["levels"]
    ]
    output.print_table(columns, rows)
    print_fallbacks(result["fallbacks"])
    output.print_line(f"Knee: {result['knee']} concurrent requests reach 90% of peak throughput.")


def _seconds(value: float | None) -> str | None:
    return None if value is None else f"{value:.3f}"
