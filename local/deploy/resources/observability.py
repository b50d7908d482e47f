"""Log groups, alarms, event rules and budgets. The embedded AWS stores alarms and budgets but never evaluates them."""

from typing import Any

from local.deploy.program import Resource
from local.deploy.resources.calls import Aws, fit, physical_name
from local.deploy.resources.registry import Created, creates


@creates("aws:cloudwatch/logGroup:LogGroup")
def log_group(aws: Aws, resource: Resource) -> Created:
    inputs, name = resource.inputs, physical_name(resource)
    without = ("name", "namePrefix", "retentionInDays", "skipDestroy")
    aws.call("logs", "create_log_group", inputs, without, logGroupName=name)
    if days := inputs.get("retentionInDays"):
        aws.client("logs").put_retention_policy(logGroupName=name, retentionInDays=days)
    return name, {"name": name, "arn": f"arn:aws:logs:{aws.region}:{aws.account}:log-group:{name}"}


@creates("aws:cloudwatch/metricAlarm:MetricAlarm")
def metric_alarm(aws: Aws, resource: Resource) -> Created:
    inputs, name = resource.inputs, physical_name(resource, "name")
    renamed: dict[str, Any] = {"alarmDescription": inputs.get("alarmDescription", "Managed by Pulumi")}
    if "dimensions" in inputs:
        renamed["dimensions"] = [{"name": key, "value": value} for key, value in inputs["dimensions"].items()]
    if "metricQueries" in inputs:
        renamed["metrics"] = [_metric_query(query) for query in inputs["metricQueries"]]
    aws.call("cloudwatch", "put_metric_alarm", inputs | renamed, ("name", "metricQueries"), AlarmName=name)
    return name, {"name": name, "arn": f"arn:aws:cloudwatch:{aws.region}:{aws.account}:alarm:{name}"}


@creates("aws:cloudwatch/dashboard:Dashboard")
def dashboard(aws: Aws, resource: Resource) -> Created:
    name = resource.inputs["dashboardName"]
    aws.call("cloudwatch", "put_dashboard", resource.inputs)
    return name, {"dashboardArn": f"arn:aws:cloudwatch::{aws.account}:dashboard/{name}"}


@creates("aws:budgets/budget:Budget")
def budget(aws: Aws, resource: Resource) -> Created:
    """Stores the amount and the notifications; cost filters and cost types are dropped."""
    inputs, name, account = resource.inputs, physical_name(resource), aws.account
    aws.client("budgets").create_budget(
        AccountId=account,
        Budget={
            "BudgetName": name,
            "BudgetType": inputs["budgetType"],
            "TimeUnit": inputs["timeUnit"],
            "BudgetLimit": {"Amount": str(inputs["limitAmount"]), "Unit": inputs["limitUnit"]},
        },
        NotificationsWithSubscribers=[_notification(aws, notice) for notice in inputs.get("notifications") or []],
    )
    return f"{account}:{name}", {"name": name, "arn": f"arn:aws:budgets::{account}:budget/{name}"}


@creates("aws:cloudwatch/eventRule:EventRule")
def event_rule(aws: Aws, resource: Resource) -> Created:
    name = physical_name(resource)
    made = aws.call("events", "put_rule", resource.inputs, ("name",), Name=name)
    return name, {"name": name, "arn": made["RuleArn"]}


@creates("aws:cloudwatch/eventTarget:EventTarget")
def event_target(aws: Aws, resource: Resource) -> Created:
    rule, target_id = resource.inputs["rule"], resource.inputs.get("targetId") or resource.name
    renamed = ("rule", "targetId", "inputTransformer")
    target = {"Id": target_id, **fit(aws, "events", "Target", resource.inputs, renamed)}
    if transformer := resource.inputs.get("inputTransformer"):
        target["InputTransformer"] = {
            "InputPathsMap": transformer["inputPaths"],
            "InputTemplate": transformer["inputTemplate"],
        }
    aws.client("events").put_targets(Rule=rule, Targets=[target])
    return f"{rule}-{target_id}", {"targetId": target_id}


def _metric_query(query: dict[str, Any]) -> dict[str, Any]:
    """Pulumi flattens AWS's `MetricStat` structure."""
    metric = query.get("metric")
    if not metric:
        return query
    others = {key: value for key, value in query.items() if key != "metric"}
    dimensions = [{"name": key, "value": value} for key, value in (metric.get("dimensions") or {}).items()]
    named = {"namespace": metric.get("namespace"), "metricName": metric["metricName"], "dimensions": dimensions}
    return {**others, "metricStat": {"metric": named, "period": metric["period"], "stat": metric["stat"]}}


def _notification(aws: Aws, notice: dict[str, Any]) -> dict[str, Any]:
    subscribers = ("subscriberEmailAddresses", "subscriberSnsTopicArns")
    emails, topics = (notice.get(key) or [] for key in subscribers)
    return {
        "Notification": fit(aws, "budgets", "Notification", notice, subscribers),
        "Subscribers": [
            *({"SubscriptionType": "EMAIL", "Address": email} for email in emails),
            *({"SubscriptionType": "SNS", "Address": topic} for topic in topics),
        ],
    }
