"""Evaluates a registered CloudWatch alarm over series of datapoints, as CloudWatch documents it.

Covers what ftm's alarms use: sums of FILL(metric, value), comparisons, IF and AND; all datapoints of the evaluation
window must breach; missing data does not.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Series = Sequence[float | None]
"""One value for each period; None where the metric published nothing."""


def alarming_periods(alarm: Mapping[str, Any], series: Mapping[str, Series]) -> list[int]:
    """The numbers of the periods after which the alarm is in the state ALARM.

    Args:
        alarm: The inputs of the registered `aws:cloudwatch/metricAlarm:MetricAlarm`.
        series: The values of each metric, by its id in the alarm.
    """
    (expression,) = [query["expression"] for query in alarm["metricQueries"] if query.get("returnData")]
    ids = {query["id"] for query in alarm["metricQueries"] if "metric" in query}
    assert ids == series.keys()
    assert alarm["comparisonOperator"] == "GreaterThanOrEqualToThreshold"
    assert alarm["treatMissingData"] == "notBreaching"
    window = alarm["evaluationPeriods"]
    assert alarm["datapointsToAlarm"] == window
    evaluate = _compile(expression)
    length = max(map(len, series.values()))
    breaching = [
        evaluate({key: values[n] for key, values in series.items()}) >= alarm["threshold"] for n in range(length)
    ]
    return [n for n in range(window - 1, length) if all(breaching[n - window + 1 : n + 1])]


def _compile(expression: str) -> Callable[[Mapping[str, float | None]], float]:
    assert re.fullmatch(r"[\w\s(),+<>=]*", expression), expression
    source = compile(expression.replace(" AND ", " and "), "expression", "eval")

    def fill(value: float | None, default: float) -> float:
        return default if value is None else value

    def choose(condition: bool, yes: float, no: float) -> float:
        return yes if condition else no

    # The expression comes from the program and contains names, numbers and operators only.
    return lambda values: float(eval(source, {"__builtins__": {}}, {"FILL": fill, "IF": choose, **values}))  # noqa: S307
