"""docs/costs.md and the README agree with the resources that the program registers for `Pulumi.prod.yaml`."""

import re
from collections import Counter
from pathlib import Path

from testing.paper_cloud import VARIANTS, Deploy, Deployed

ROOT = Path(__file__).parents[2]
_, BILLED, WITH_SETTING, FREE, _ = re.split(r"^## .*$", (ROOT / "docs/costs.md").read_text(), flags=re.MULTILINE)
TYPE = re.compile(r"`(aws:[\w/:]+)`")
AMOUNT = re.compile(r"\$([\d.]+)(?: to \$([\d.]+))?")


def rows(section: str) -> dict[str, list[str]]:
    """The cells of the table's rows by their type, without the type itself."""
    lines = [cells_of(line) for line in section.splitlines() if line.startswith("| `aws:")]
    return {first.strip("`"): cells for first, *cells in lines}


def cells_of(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("|")[1:-1]]


def amounts(cells: list[str]) -> tuple[float, float]:
    """The sums of the lower and of the upper amounts. Amounts that depend on size are left out."""
    found = [match for cell in cells if (match := AMOUNT.search(cell))]
    return sum(float(one[1]) for one in found), sum(float(one[2] or one[1]) for one in found)


def test_every_registered_type_is_billed_or_free(example: Deployed) -> None:
    registered = Counter(one.type for one in example.custom)
    billed, free = rows(BILLED), set(TYPE.findall(FREE.split("; with")[0]))
    assert not billed.keys() & free
    assert billed.keys() | free == registered.keys()
    assert {name: int(cells[0]) for name, cells in billed.items()} == {name: registered[name] for name in billed}


def test_every_type_that_a_setting_adds_is_billed_or_free(deploy: Deploy) -> None:
    added = {resource.type for settings in VARIANTS.values() for resource in deploy(**settings).custom}
    listed = set(TYPE.findall(BILLED + WITH_SETTING + FREE))
    assert added <= listed
    assert rows(WITH_SETTING).keys() <= added


def test_the_sums_are_those_of_the_rows_and_the_readme_has_them() -> None:
    _, *together = cells_of(next(line for line in BILLED.splitlines() if line.startswith("| **together**")))
    for column in (2, 3):
        low, high = amounts([cells[column] for cells in rows(BILLED).values()])
        assert f"${low:.2f} to ${high:.2f}" in together[column]
    low, high = amounts([cells[2] for cells in rows(BILLED).values()])
    assert f"costs ${low:.0f} to ${high:.0f} a month" in " ".join((ROOT / "README.md").read_text().split())


def test_the_alarms_metrics_are_counted(deploy: Deploy) -> None:
    alarms = deploy().all("cloudwatch/metricAlarm:MetricAlarm")
    metrics = sum("metric" in query for alarm in alarms for query in alarm.inputs["metricQueries"])
    price = rows(BILLED)["aws:cloudwatch/metricAlarm:MetricAlarm"]
    assert f"$0.10 for each of their {metrics} metrics" in price[1]
    assert amounts([price[2]]) == ((metrics - 10) / 10, metrics / 10)
