"""How costs are printed."""

from cli import output
from cli.services.cost import Estimate, Range, Spent


def print_estimate(found: Estimate) -> None:
    """What a run would take and cost, with its assumptions."""
    tokens = found["tokens"]
    rows = [
        ("firms", f"{found['firms']:,}"),
        ("topics", f"{found['topics']:,}"),
        ("tokens", f"{tokens['prompt']:,} prompt, {tokens['completion']:,} completion"),
        ("time", minutes(found["minutes"])),
        ("GPU hours", _hours(found["gpu_hours"])),
        ("Batch hours", _hours(found["batch_hours"])),
        ("cost", dollars(found["dollars"])),
        ("at the hosted API", f"${found['hosted_dollars']:.2f}"),
    ]
    output.print_table(("estimate", ""), rows, wrap=("",))
    for assumption in found["assumptions"]:
        output.print_line(f"- {assumption}")


def print_spent(found: Spent) -> None:
    """What a run took."""
    rows = [
        ("topics", f"{found['topics']:,}"),
        ("tokens", f"{found['tokens']['prompt']:,} prompt, {found['tokens']['completion']:,} completion"),
        ("GPU hours", f"{found['gpu_hours']:.2f}"),
        ("Batch hours", f"{found['batch_hours']:.2f}"),
        ("cost", dollars(found["dollars"])),
        ("at the hosted API", f"${found['hosted_dollars']:.2f}"),
    ]
    output.print_table((f"run {found['run']}", ""), rows, wrap=("",))
    for assumption in found["assumptions"]:
        output.print_line(f"- {assumption}")


def dollars(found: Range) -> str:
    """`$0.81 to $1.40`."""
    low, high = f"${found['low']:.2f}", f"${found['high']:.2f}"
    return low if low == high else f"{low} to {high}"


def minutes(found: Range) -> str:
    """`about 25 to 60 minutes`, or hours where there are many."""
    if found["high"] < 1:
        return "less than a minute"
    unit, factor = ("hours", 60) if found["high"] > 120 else ("minutes", 1)
    low, high = (f"{found[end] / factor:.{1 if factor > 1 else 0}f}" for end in ("low", "high"))
    return f"about {low} {unit}" if low == high else f"about {low} to {high} {unit}"


def _hours(found: Range) -> str:
    return f"{found['low']:.2f} to {found['high']:.2f}"
