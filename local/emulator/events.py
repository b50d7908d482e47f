"""EventBridge: the end of an execution starts the state machines that are targets of a matching rule.

moto stores rules, but nothing of Step Functions reaches them.
"""

import json
from datetime import UTC, datetime
from typing import Any

from moto.events.models import events_backends
from moto.stepfunctions.parser.backend.execution import Execution


def publish_end(execution: Execution, stepfunctions: Any) -> None:
    """Deliver the event that `execution` has ended, as EventBridge does.

    Args:
        stepfunctions: A client of the embedded AWS.
    """
    _, _, _, region, account, *_ = execution.exec_arn.split(":")
    detail = {
        "executionArn": execution.exec_arn,
        "stateMachineArn": execution.state_machine_arn,
        "name": execution.name,
        "status": execution.exec_status,
        "input": json.dumps(execution.input_data),
    }
    event: Any = {
        "source": "aws.states",
        "detail-type": "Step Functions Execution Status Change",
        "account": account,
        "region": region,
        "time": datetime.now(UTC).timestamp(),
        "resources": [execution.exec_arn],
        "detail": detail,
    }
    for bus in events_backends[account][region].event_buses.values():
        for rule in list(bus.rules.values()):
            if rule.state == "ENABLED" and rule.event_pattern.matches_event(event):
                for target in rule.targets:
                    if ":states:" in target["Arn"]:
                        body = detail if target.get("InputPath") == "$.detail" else event
                        stepfunctions.start_execution(stateMachineArn=target["Arn"], input=json.dumps(body))
