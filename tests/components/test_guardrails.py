"""The guardrails: each alarm over recorded series, the action of the idle alarm, and disabling guardrails."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from components import alarms
from local.state import LocalError
from testing.alarms import Series, alarming_periods
from testing.paper_cloud import ACCOUNT, EVERYTHING_GIVEN, REGION, VARIANTS, Deploy, Deployed

ROOT = Path(__file__).parents[2]
ALARM = "cloudwatch/metricAlarm:MetricAlarm"
TOPIC = EVERYTHING_GIVEN["snsTopicArn"]

# Series in periods of five minutes. None: CloudWatch has no value, as for the requests of an idle load balancer.
COLD_START = 3

IDLE_SERIES: dict[str, tuple[Series, Series, Series, int | None]] = {
    # what happens: instances (the minimum of each period), requests, answers of the load balancer itself, and the
    # period at whose end the GPUs are switched off
    "busy for three hours": ([1] * 36, [500] * 36, [None] * 36, None),
    "forgotten after a run": ([1] * 36, [500] * 12 + [None] * 24, [None] * 36, 23),
    "forgotten without a single request": ([1] * 36, [None] * 36, [None] * 36, 11),
    "forgotten, two instances": ([2] * 36, [500] * 6 + [0] * 30, [None] * 36, 17),
    "scaled to zero": ([0] * 36, [None] * 36, [None] * 36, None),
    "no data at all": ([None] * 36, [None] * 36, [None] * 36, None),
    "cold start, then a run": ([0] + [1] * 35, [None] * (1 + COLD_START) + [300] * 32, [None] * 36, None),
    "slow cold start of 45 minutes": ([0] + [1] * 35, [None] * 10 + [300] * 26, [None] * 36, None),
    "jobs wait during the cold start": ([1] * 36, [None] * 18 + [300] * 18, [9] * 18 + [None] * 18, None),
    "Spot replaced in a run": ([1] * 8 + [0] * 3 + [1] * 25, [300] * 8 + [None] * 8 + [300] * 20, [None] * 36, None),
    "Spot replaced while idle": ([1] * 6 + [0] + [1] * 29, [None] * 36, [None] * 36, 18),
    "gaps of 20 minutes between batches": ([1] * 36, ([300] * 2 + [None] * 4) * 6, [None] * 36, None),
    "a gap of 50 minutes between quarters": ([1] * 36, [300] * 13 + [None] * 10 + [300] * 13, [None] * 36, None),
    "one request an hour": ([1] * 36, ([1] + [None] * 11) * 3, [None] * 36, None),
}


def alarm(deployed: Deployed, name: str) -> dict[str, Any]:
    return deployed.one(ALARM, name)


@pytest.mark.parametrize("scenario", IDLE_SERIES)
def test_only_idle_gpus_are_switched_off(deploy: Deploy, scenario: str) -> None:
    instances, requests, refused, switched_off = IDLE_SERIES[scenario]
    series = {"instances": instances, "requests": requests, "refused": refused}
    alarming = alarming_periods(alarm(deploy(), "vllm-idle"), series)
    assert (alarming[0] if alarming else None) == switched_off
    minutes = f"after {(switched_off + 1) * 5} minutes" if switched_off is not None else "never"
    print(f"| {scenario} | {minutes} |")


def test_the_idle_alarm_sets_group_and_service_to_zero_and_notifies(deploy: Deploy) -> None:
    deployed = deploy(**VARIANTS["everything given"])
    actions = alarm(deployed, "vllm-idle")["alarmActions"]
    assert actions[0] == TOPIC
    assert len(actions) == 3
    group = deployed.one("autoscaling/policy:Policy")
    assert (group["adjustmentType"], group["autoscalingGroupName"]) == ("ExactCapacity", "ftm-vllm-asg")
    assert group["stepAdjustments"] == [{"scalingAdjustment": 0, "metricIntervalLowerBound": "0"}]
    target = deployed.one("appautoscaling/target:Target")
    assert target["resourceId"] == "service/ftm-vllm-cluster/ftm-vllm-service"
    assert target["minCapacity"] == 0
    service = deployed.one("appautoscaling/policy:Policy")["stepScalingPolicyConfiguration"]
    assert service["adjustmentType"] == "ExactCapacity"
    assert service["stepAdjustments"] == [{"scalingAdjustment": 0, "metricIntervalLowerBound": "0"}]


def test_the_group_publishes_the_metrics_that_the_alarms_read(deploy: Deploy) -> None:
    deployed = deploy()
    published = set(deployed.one("autoscaling/group:Group")["enabledMetrics"])
    read = {
        query["metric"]["metricName"]
        for resource in deployed.all(ALARM)
        for query in resource.inputs["metricQueries"]
        if query.get("metric", {}).get("namespace") == "AWS/AutoScaling"
    }
    assert read == published


@pytest.mark.parametrize(
    ("name", "series", "alarming"),
    [
        ("vllm-no-capacity", {"desired": [1] * 6, "total": [0] * 6}, [2, 3, 4, 5]),
        ("vllm-no-capacity", {"desired": [1] * 6, "total": [0, 0, 1, 1, 1, 1]}, []),
        ("vllm-no-capacity", {"desired": [0] * 6, "total": [None] * 6}, []),
        ("vllm-unhealthy", {"desired": [1] * 12, "healthy": [None] * 12}, [8, 9, 10, 11]),
        ("vllm-unhealthy", {"desired": [1] * 12, "healthy": [0] * 4 + [1] * 8}, []),
        ("vllm-unhealthy", {"desired": [0] * 12, "healthy": [None] * 12}, []),
        ("quarter-failed", {"failed": [None, 1, None], "late": [None] * 3, "aborted": [None] * 3}, [1]),
        ("quarter-failed", {"failed": [None] * 3, "late": [None] * 3, "aborted": [0, 0, 1]}, [2]),
        ("quarter-failed", {"failed": [0] * 3, "late": [None] * 3, "aborted": [None] * 3}, []),
    ],
)
def test_the_other_alarms(deploy: Deploy, name: str, series: dict[str, Series], alarming: list[int]) -> None:
    assert alarming_periods(alarm(deploy(), name), series) == alarming


QUIET: dict[str, Series] = {
    key: [None] * 3 for key in ("failed", "late", "aborted", "list_failed", "list_late", "list_aborted")
}


@pytest.mark.parametrize(
    ("series", "alarming"),
    [
        ({}, []),
        ({"list_failed": [0, 0, 0]}, []),
        ({"list_failed": [None, 1, None]}, [1]),  # vLLM did not become healthy
        ({"list_late": [1, None, None]}, [0]),
        ({"list_aborted": [None, None, 2]}, [2]),
        ({"list_failed": [None, 1, None], "failed": [None, 1, None]}, []),  # a quarter of the list failed
        ({"list_aborted": [None, 1, None], "aborted": [None, 1, None]}, []),  # `ftm stop` stops both
        ({"failed": [1, 1, 1]}, []),
    ],
)
def test_a_list_that_ran_no_quarter_raises_one_alarm(
    deploy: Deploy, series: dict[str, Series], alarming: list[int]
) -> None:
    registered = alarm(deploy(), "quarters-failed")
    assert alarming_periods(registered, QUIET | series) == alarming
    machines = {
        one["metric"]["dimensions"]["StateMachineArn"] for one in registered["metricQueries"] if "metric" in one
    }
    assert machines == {deploy().run.outputs[f"{one}state_machine_arn"] for one in ("", "quarters_")}
    assert {one["metric"]["period"] for one in registered["metricQueries"] if "metric" in one} == {3600}


def test_failing_functions_raise_an_alarm(deploy: Deploy) -> None:
    registered = alarm(deploy(), "functions-failing")
    metrics = [query["metric"] for query in registered["metricQueries"] if "metric" in query]
    assert len(metrics) <= 10  # what one alarm may use
    assert {metric["dimensions"]["FunctionName"] for metric in metrics} == {
        "ftm-prefetch-check",
        "ftm-create-batch-manifest",
        "ftm-summarize-results",
        "ftm-notify-completion",
    }
    quiet: dict[str, Series] = {query["id"]: [None] * 3 for query in registered["metricQueries"] if "metric" in query}
    assert alarming_periods(registered, quiet) == []
    assert alarming_periods(registered, {**quiet, "throttles2": [None, 4, None]}) == [1]


def test_each_alarm_describes_the_next_step_and_names_a_section_of_the_runbook(deploy: Deploy) -> None:
    headings = [line[3:] for line in (ROOT / alarms.RUNBOOK).read_text().splitlines() if line.startswith("## ")]
    for resource in deploy().all(ALARM):
        description = resource.inputs["alarmDescription"]
        assert len(description) <= 1024
        assert description.split(f"{alarms.RUNBOOK}: ")[1] in headings, resource


def test_the_documents_name_only_alarms_that_exist(deploy: Deploy) -> None:
    names = {resource.name for resource in deploy().all(ALARM)}
    text = " ".join(path.read_text() for path in [ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
    assert (
        set(re.findall(r"alarm\s+`<prefix>-([\w-]+)`", text))
        == {"quarter-failed", "quarters-failed", "vllm-idle"}
        <= names
    )


def test_a_blocked_queue_is_reported_to_the_topic(deploy: Deploy) -> None:
    deployed = deploy(**VARIANTS["everything given"])
    pattern = json.loads(deployed.one("cloudwatch/eventRule:EventRule", "jobs-waiting")["eventPattern"])
    assert pattern["detail-type"] == ["Batch Job Queue Blocked"]
    assert pattern["resources"] == [deployed.run.outputs["job_queue_arn"]]
    assert deployed.one("cloudwatch/eventTarget:EventTarget", "jobs-waiting")["arn"] == TOPIC
    assert "jobs-waiting" not in [rule.name for rule in deploy().all("cloudwatch/eventRule:EventRule")]


def test_the_stacks_own_topic_is_encrypted_and_rejects_unencrypted_requests(deploy: Deploy) -> None:
    deployed = deploy(**VARIANTS["every option"])
    topic = deployed.one("sns/topic:Topic")
    assert topic["kmsMasterKeyId"].endswith(":notifications")  # the ARN of the key beside it
    assert deployed.one("kms/key:Key")["enableKeyRotation"] is True
    statements = json.loads(deployed.one("sns/topicPolicy:TopicPolicy")["policy"])["Statement"]
    assert {statement["Effect"] for statement in statements} == {"Allow", "Deny"}
    subscription = deployed.one("sns/topicSubscription:TopicSubscription")
    assert (subscription["protocol"], subscription["endpoint"]) == ("email", "operator@example.com")
    function = deployed.one("lambda/function:Function", "notify-completion")
    arn = f"arn:aws:sns:{REGION}:{ACCOUNT}:ftm-notifications"
    assert function["environment"]["variables"] == {"SNS_TOPIC_ARN": arn}
    with_key = deploy(**VARIANTS["vLLM disabled"])
    assert with_key.one("sns/topic:Topic")["kmsMasterKeyId"] == EVERYTHING_GIVEN["kmsKeyArn"]
    assert not with_key.all("kms/key:Key")


def test_a_budget_counts_the_stacks_tags_and_warns_of_actual_and_forecast_cost(deploy: Deploy) -> None:
    budget = deploy(**VARIANTS["everything given"]).one("budgets/budget:Budget")
    assert (budget["limitAmount"], budget["limitUnit"], budget["timeUnit"]) == ("50", "USD", "MONTHLY")
    tags = {one["tags"]["key"]: one["tags"]["values"] for one in budget["filterExpression"]["ands"]}
    assert tags == {"Project": ["ftm"], "Stack": ["prod"]}
    assert {one["notificationType"] for one in budget["notifications"]} == {"ACTUAL", "FORECASTED"}
    assert all(one["subscriberSnsTopicArns"] == [TOPIC] for one in budget["notifications"])
    assert not deploy().all("budgets/budget:Budget")


def test_the_dashboard_is_valid_and_fits(deploy: Deploy) -> None:
    widgets = json.loads(deploy().one("cloudwatch/dashboard:Dashboard")["dashboardBody"])["widgets"]
    titles = [widget["properties"]["title"] for widget in widgets]
    assert titles[0] == "Runs"
    assert "GPU hours" in titles
    assert len({(widget["x"], widget["y"]) for widget in widgets}) == len(widgets)
    without = json.loads(deploy(**VARIANTS["vLLM disabled"]).one("cloudwatch/dashboard:Dashboard")["dashboardBody"])[
        "widgets"
    ]
    assert [widget["properties"]["title"] for widget in without] == titles[:2]


@pytest.mark.parametrize(
    ("variant", "off", "removed"),
    [
        ("default", {"dashboardEnabled": False, "vllmIdleMinutes": 0}, {"dashboard", "vllm-idle", "vllm-service"}),
        (
            "everything given",
            {"alarmsEnabled": False},
            {
                "quarter-failed",
                "quarters-failed",
                "functions-failing",
                "vllm-no-capacity",
                "vllm-unhealthy",
                "jobs-waiting",
            },
        ),
    ],
)
def test_switching_a_guardrail_off_removes_exactly_its_resources(
    deploy: Deploy, variant: str, off: dict[str, Any], removed: set[str]
) -> None:
    settings = VARIANTS[variant]
    before, after = (
        {(resource.type, resource.name) for resource in deploy(**one).custom} for one in (settings, settings | off)
    )
    assert after < before
    assert {name for _, name in before - after} == removed
    kinds = ("Alarm", "Policy", "Target", "Dashboard", "Rule", "Budget")
    assert all(kind.endswith(kinds) for kind, _ in before - after)


def test_a_minimum_of_instances_is_not_switched_off(deploy: Deploy) -> None:
    assert "vllm-idle" not in [resource.name for resource in deploy(**VARIANTS["every option"]).custom]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"vllmIdleMinutes": 30}, "ftm:vllmIdleMinutes is 30: it should be 0 or at least 45"),
        ({"monthlyBudgetUsd": 50}, "ftm:monthlyBudgetUsd needs somebody to notify"),
        (
            {"notificationEmails": ["a@b.co"], "snsTopicArn": TOPIC},
            "ftm:notificationEmails and ftm:snsTopicArn are both",
        ),
        ({"notificationEmails": ["nobody"]}, "it should be e-mail addresses"),
    ],
)
def test_contradictory_guardrails_are_rejected(deploy: Deploy, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(LocalError) as caught:
        deploy(preview=True, **settings)
    assert sentence in str(caught.value)
