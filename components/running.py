"""Warns that a deployment disturbs a run that is in progress.

The program records the settings that matter to a run in an SSM parameter. At the next preview it compares them, and
only if one of them changes, it asks Step Functions for running executions.
"""

import json
from collections.abc import Iterator
from typing import Any, cast

import pulumi

from components.account import Account
from components.settings import Settings, StackSettings, affecting_runs

_SHOWN = 60
"""Characters of a value in a warning."""


def recorded_settings(stack: StackSettings) -> str:
    """The SSM parameter that holds the deployed values of `affecting_runs`, as a JSON object."""
    return f"/{stack.prefix}/settings"


def disturbed_runs(settings: Settings, account: Account, recorded: str) -> Iterator[str]:
    """One warning when a run is in progress and a setting changes that it depends on.

    Args:
        recorded: The value of the parameter `recorded_settings`, from the last deployment.
    """
    before = cast(dict[str, Any], json.loads(recorded))
    changes = [
        f"ftm:{key} from {_show(before[key])} to {_show(value)} ({effect})"
        for key, (value, effect) in affecting_runs(settings).items()
        if key in before and before[key] != value
    ]
    if changes and (run := _find_running(settings.stack, account)):
        yield (
            f"the run {run} is in progress, and this deployment changes {' and '.join(changes)}: wait until it has "
            "ended (`ftm watch` shows it), or stop it with `ftm stop` and continue it afterwards with `ftm resume`"
        )


def _show(value: object) -> str:
    if value is None:
        return "the default"
    text = ", ".join(map(str, cast(list[object], value))) if isinstance(value, list) else str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _find_running(stack: StackSettings, account: Account) -> str | None:
    """The name of a running execution; None as well when Step Functions does not answer or refuses, since a warning is
    not worth a failed preview.

    Pulumi's provider has no data source for executions. boto3 is imported here, because it takes a quarter of a second
    that only few previews need.
    """
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    config = Config(connect_timeout=2, read_timeout=4, retries={"total_max_attempts": 1})
    try:
        session: Any = boto3.Session(profile_name=pulumi.Config("aws").get("profile"), region_name=account.region)
        client = session.client("stepfunctions", config=config)
        # An execution for a list that still waits for vLLM has started no quarter yet.
        for machine in ("quarter-processor", "quarters"):
            arn = account.arn("states", f"stateMachine:{stack.name(machine, 80)}")
            answer = client.list_executions(stateMachineArn=arn, statusFilter="RUNNING", maxResults=1)
            for execution in answer["executions"]:
                return execution["name"]
    except (BotoCoreError, ClientError):
        return None
    return None
