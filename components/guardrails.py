"""The guardrails: alarms, switching idle GPUs off, a dashboard and a budget."""

import json
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws

from components import alarms
from components.account import Account
from components.alarms import Alarm, VllmDimensions
from components.quarter_state_machine import QuarterStateMachine
from components.settings import GuardrailSettings, StackSettings, VllmSettings
from components.vllm_cluster import VllmCluster
from contract.resource_names import PROJECT


@dataclass(frozen=True)
class GuardrailsArgs:
    stack: StackSettings
    guardrails: GuardrailSettings
    vllm_settings: VllmSettings
    account: Account
    topic_arn: pulumi.Output[str] | None
    job_queue_arn: pulumi.Output[str]
    quarter: QuarterStateMachine
    vllm: VllmCluster | None


class Guardrails(pulumi.ComponentResource):
    """Each guardrail has a setting that switches it off, which removes the guardrail's resources and no others."""

    def __init__(self, name: str, args: GuardrailsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("ftm:components:Guardrails", name, None, opts)
        self._args, self._stack = args, args.stack
        self._child = pulumi.ResourceOptions(parent=self)
        self._actions = [args.topic_arn] if args.topic_arn is not None else []

        vllm = args.vllm
        dimensions = VllmDimensions(vllm.asg_name, vllm.alb_dimension, vllm.target_group_dimension) if vllm else None
        if args.guardrails.alarms_enabled:
            for alarm in alarms.of_runs(args.quarter.arn, args.quarter.quarters_arn, args.quarter.function_names):
                self._create_alarm(alarm)
            for alarm in alarms.of_vllm(dimensions) if dimensions else ():
                self._create_alarm(alarm)
            self._report_blocked_queue()
        # With a minimum number of instances, the operator wants them to run even when idle.
        if vllm and dimensions and args.guardrails.vllm_idle_minutes and not args.vllm_settings.min_instances:
            self._switch_off_when_idle(vllm, alarms.idle(dimensions, args.guardrails.vllm_idle_minutes))
        if args.guardrails.dashboard_enabled:
            self._create_dashboard(dimensions)
        if args.guardrails.monthly_budget_usd:
            self._create_budget(args.guardrails.monthly_budget_usd)
        self.register_outputs({})

    def _create_alarm(self, alarm: Alarm, actions: list[pulumi.Output[str]] | None = None) -> None:
        queries = [
            aws.cloudwatch.MetricAlarmMetricQueryArgs(
                id=metric.key,
                metric=aws.cloudwatch.MetricAlarmMetricQueryMetricArgs(
                    namespace=metric.namespace,
                    metric_name=metric.name,
                    dimensions=metric.dimensions,
                    period=alarm.period,
                    stat=metric.stat,
                ),
            )
            for metric in alarm.metrics
        ]
        wrong = aws.cloudwatch.MetricAlarmMetricQueryArgs(
            id="wrong", expression=alarm.expression, label=alarm.name, return_data=True
        )
        aws.cloudwatch.MetricAlarm(
            alarm.name,
            name=self._stack.name(alarm.name, 255),
            alarm_description=alarm.description,
            metric_queries=[*queries, wrong],
            comparison_operator="GreaterThanOrEqualToThreshold",
            threshold=1,
            evaluation_periods=alarm.periods,
            datapoints_to_alarm=alarm.periods,
            treat_missing_data="notBreaching",
            alarm_actions=[*self._actions, *(actions or [])],
            tags=self._stack.tags,
            opts=self._child,
        )

    def _report_blocked_queue(self) -> None:
        """Notify when the first job of the queue cannot start, which Batch reports as an event, not as a metric."""
        if self._args.topic_arn is None:
            return
        rule = aws.cloudwatch.EventRule(
            "jobs-waiting",
            name=self._stack.name("jobs-waiting"),
            description="A batch job cannot start",
            event_pattern=pulumi.Output.json_dumps(
                {
                    "source": ["aws.batch"],
                    "detail-type": ["Batch Job Queue Blocked"],
                    "resources": [self._args.job_queue_arn],
                }
            ),
            tags=self._stack.tags,
            opts=self._child,
        )
        text = (
            "Batch cannot start the job <job> of ftm: <reason>. Batch cancels it if that lasts. Check "
            f"ftm:batchMaxVcpus and ftm:batchInstanceTypes. {alarms.RUNBOOK}: The run makes no progress"
        )
        aws.cloudwatch.EventTarget(
            "jobs-waiting",
            rule=rule.name,
            arn=self._args.topic_arn,
            input_transformer=aws.cloudwatch.EventTargetInputTransformerArgs(
                input_paths={"job": "$.detail.jobName", "reason": "$.detail.statusReason"},
                input_template=json.dumps(text),
            ),
            opts=self._child,
        )

    def _switch_off_when_idle(self, vllm: VllmCluster, alarm: Alarm) -> None:
        """Create the alarm and its two scaling policies: one sets the group to zero, the other the service."""
        group_to_zero = aws.autoscaling.Policy(
            "vllm-idle",
            name=self._stack.name("vllm-idle", 255),
            autoscaling_group_name=vllm.group_name,
            policy_type="StepScaling",
            adjustment_type="ExactCapacity",
            step_adjustments=[
                aws.autoscaling.PolicyStepAdjustmentArgs(scaling_adjustment=0, metric_interval_lower_bound="0")
            ],
            opts=self._child,
        )
        target = aws.appautoscaling.Target(
            "vllm-service",
            service_namespace="ecs",
            scalable_dimension="ecs:service:DesiredCount",
            resource_id=vllm.service_resource_id,
            min_capacity=0,
            max_capacity=self._args.vllm_settings.max_instances,
            tags=self._stack.tags,
            opts=self._child,
        )
        service_to_zero = aws.appautoscaling.Policy(
            "vllm-idle",
            name=self._stack.name("vllm-idle", 255),
            policy_type="StepScaling",
            service_namespace=target.service_namespace,
            scalable_dimension=target.scalable_dimension,
            resource_id=target.resource_id,
            step_scaling_policy_configuration=aws.appautoscaling.PolicyStepScalingPolicyConfigurationArgs(
                adjustment_type="ExactCapacity",
                step_adjustments=[
                    aws.appautoscaling.PolicyStepScalingPolicyConfigurationStepAdjustmentArgs(
                        scaling_adjustment=0, metric_interval_lower_bound="0"
                    )
                ],
            ),
            opts=self._child,
        )
        self._create_alarm(alarm, [group_to_zero.arn, service_to_zero.arn])

    def _create_dashboard(self, vllm: VllmDimensions | None) -> None:
        widgets = [self._runs_widget(), self._batches_widget()]
        if vllm and self._args.vllm:
            widgets += self._vllm_widgets(vllm, self._args.vllm.log_group)
        placed = [
            {**widget, "x": 12 * (n % 2), "y": 6 * (n // 2), "width": 12, "height": 6}
            for n, widget in enumerate(widgets)
        ]
        aws.cloudwatch.Dashboard(
            "dashboard",
            dashboard_name=self._stack.name("dashboard", 255),
            dashboard_body=pulumi.Output.json_dumps({"widgets": placed}),
            opts=self._child,
        )

    def _runs_widget(self) -> dict[str, Any]:
        names = (
            "ExecutionsStarted",
            "ExecutionsSucceeded",
            "ExecutionsFailed",
            "ExecutionsTimedOut",
            "ExecutionsAborted",
        )
        return self._widget("Runs", [["AWS/States", one, "StateMachineArn", self._args.quarter.arn] for one in names])

    def _batches_widget(self) -> dict[str, Any]:
        resource = f"arn:{self._args.account.partition}:states:::batch:submitJob.sync"
        names = ("ServiceIntegrationsStarted", "ServiceIntegrationsSucceeded", "ServiceIntegrationsFailed")
        return self._widget(
            "Batches (all state machines of the account)",
            [["AWS/States", one, "ServiceIntegrationResourceArn", resource] for one in names],
        )

    def _vllm_widgets(self, vllm: VllmDimensions, log_group: str) -> list[dict[str, Any]]:
        load_balancer = ["AWS/ApplicationELB", "LoadBalancer", vllm.load_balancer]
        namespace, *dimension = load_balancer
        return [
            self._widget(
                "Requests to vLLM", [[namespace, one, *dimension] for one in ("RequestCount", alarms.REFUSED)]
            ),
            self._widget(
                "Latency in seconds",
                [[namespace, "TargetResponseTime", *dimension, {"stat": stat}] for stat in ("p50", "p95")],
            ),
            self._widget(
                "GPU hours",
                [
                    [{"expression": "gpus * PERIOD(gpus) / 3600", "label": "GPU hours"}],
                    [
                        "AWS/AutoScaling",
                        "GroupInServiceInstances",
                        "AutoScalingGroupName",
                        vllm.group,
                        {"id": "gpus", "stat": "Average", "visible": False},
                    ],
                ],
                period=3600,
            ),
            {
                "type": "log",
                "properties": {
                    "title": "Tokens a second, from vLLM's log",
                    "region": self._args.account.region,
                    "view": "timeSeries",
                    "query": f"SOURCE '{log_group}' "
                    "| parse @message 'Avg prompt throughput: * tokens/s, Avg generation throughput: * tokens/s' "
                    "as prompt, answer | stats avg(prompt), avg(answer) by bin(5m)",
                },
            },
        ]

    def _widget(self, title: str, metrics: list[Any], period: int = alarms.PERIOD) -> dict[str, Any]:
        return {
            "type": "metric",
            "properties": {
                "title": title,
                "region": self._args.account.region,
                "view": "timeSeries",
                "stat": "Sum",
                "period": period,
                "metrics": metrics,
            },
        }

    def _create_budget(self, usd: int) -> None:
        """A monthly budget for everything with the stack's tags, which must be active as cost allocation tags."""
        tags = {"Project": PROJECT, "Stack": self._stack.stack}
        aws.budgets.Budget(
            "budget",
            name=self._stack.name("monthly", 100),
            budget_type="COST",
            time_unit="MONTHLY",
            limit_amount=str(usd),
            limit_unit="USD",
            filter_expression=aws.budgets.BudgetFilterExpressionArgs(
                ands=[
                    aws.budgets.BudgetFilterExpressionAndArgs(
                        tags=aws.budgets.BudgetFilterExpressionAndTagsArgs(key=key, values=[value])
                    )
                    for key, value in tags.items()
                ]
            ),
            notifications=[
                aws.budgets.BudgetNotificationArgs(
                    comparison_operator="GREATER_THAN",
                    notification_type=kind,
                    threshold=100,
                    threshold_type="PERCENTAGE",
                    subscriber_sns_topic_arns=self._actions,
                )
                for kind in ("ACTUAL", "FORECASTED")
            ],
            tags=self._stack.tags,
            opts=self._child,
        )
