"""Compares the preview of changing each setting of a deployed stack with the effect that the setting declares.

`TEST_PULUMI=1 pytest -n0 -s tests/pulumi/test_changes.py` prints the table.
"""

from collections.abc import Iterable
from typing import Any

import pytest

from components.setting_types import Change
from components.settings import SECTIONS
from testing.paper_cloud import ACCOUNT, CERTIFICATE, EVERYTHING_GIVEN, REGION
from testing.pulumi_engine import EngineError, Stack, Steps
from tests.pulumi.conftest import Aws

SECRET = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:ftm-AbCdEf"

CHANGED: dict[str, Any] = {
    **{key: value for key, value in EVERYTHING_GIVEN.items() if key.endswith("Arn")},
    "accessLogsBucket": "access-logs",
    "alarmsEnabled": False,
    "batchGpus": {"batchGpus": 1, "batchInstanceTypes": ["g5"]},
    "batchInstanceTypes": ["c7i"],
    "batchMaxVcpus": 64,
    "batchMemoryMib": 7000,
    "batchOnDemandFallback": True,
    "batchTimeoutHours": 6,
    "batchVcpus": 4,
    "bucketName": "calls",
    "checkpointInterval": 10,
    "dashboardEnabled": False,
    "deletionProtection": False,
    "huggingFaceTokenSecretArn": SECRET,
    "llmApiKeySecretArn": SECRET,
    "llmMaxConcurrent": 7,
    "logRetentionDays": 90,
    "mapConcurrency": 6,
    "minNamedPercent": 90,
    "monthlyBudgetUsd": {"monthlyBudgetUsd": 50, "snsTopicArn": EVERYTHING_GIVEN["snsTopicArn"]},
    "notificationEmails": ["operator@example.com"],
    "topicEmbeddingModel": "all-MiniLM-L6-v2",
    "vllmCertificateArn": {"vllmCertificateArn": CERTIFICATE, "vllmHostname": "vllm.example.com"},
    "vllmEnabled": False,
    "vllmHostname": {"vllmCertificateArn": CERTIFICATE, "vllmHostname": "llm.example.com"},
    "vllmIdleMinutes": 120,
    "vllmImage": "vllm/vllm-openai:v0.33.0",
    "vllmInstanceTypes": ["g6e.xlarge"],
    "vllmMaxInstances": 3,
    "vllmMaxModelLen": 8192,
    "vllmMaxNumSeqs": 8,
    "vllmMemoryMib": 12_000,
    "vllmMinInstances": 1,
    "vllmModel": "Qwen/Qwen3-4B",
    "vllmOnDemandFallbackMinutes": 10,
    "vllmOnDemandInstances": 1,
    "vllmRootVolumeGib": 150,
    "vllmServedModelName": "namer",
    "vllmTokensPerRequest": 2048,
    "workerImage": EVERYTHING_GIVEN["workerImage"],
    "workerImageTag": "v2",
}
"""Another value of each setting, or of several settings that must change together. A fixture creates the network."""

TASK = "vllm (aws:ecs/taskDefinition:TaskDefinition)"
SERVICE = "vllm-service (aws:ecs/service:Service)"
RUN = {
    "worker (aws:batch/jobDefinition:JobDefinition)",
    "quarter-processor (aws:sfn/stateMachine:StateMachine)",
}
DATA = ("aws:s3/", "aws:ecr/repository")
ROLES = ("aws:iam/",)
REMOVING = ("vllmEnabled", "alarmsEnabled", "dashboardEnabled", "vllmMinInstances")
"""Settings that remove resources; a minimum of instances removes the alarm on idle ones."""


@pytest.fixture(scope="module")
def network(aws: Aws) -> dict[str, Any]:
    """Another VPC, and fewer subnets of the stack's VPC."""
    for bucket in ("calls", "access-logs"):
        aws.client("s3").create_bucket(Bucket=bucket)
    ec2 = aws.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.8.0.0/16")["Vpc"]["VpcId"]
    subnets = [
        ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.8.{n}.0/24", AvailabilityZone=zone)["Subnet"]["SubnetId"]
        for n, zone in enumerate(("us-east-1a", "us-east-1b"))
    ]
    for subnet in subnets:
        ec2.modify_subnet_attribute(SubnetId=subnet, MapPublicIpOnLaunch={"Value": True})
    default = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"][0]["VpcId"]
    known = ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [default]}])["Subnets"]
    own = sorted(subnet["SubnetId"] for subnet in known)[:2]
    return {
        "vpcId": {"vpcId": vpc, "subnetIds": subnets},
        "subnetIds": {"vpcId": default, "subnetIds": own},
    }


def test_changing_each_setting_has_its_declared_effect(deployed: Stack, network: dict[str, Any]) -> None:
    declared = {
        key: section.model_json_schema()["properties"][key]["change"]
        for section in SECTIONS.values()
        for key in section.config_keys()
    }
    changed = CHANGED | network
    assert changed.keys() == declared.keys()
    problems: list[str] = []
    print("\n| setting | declared | as the engine showed it |\n|---|---|---|")
    for key, change in declared.items():
        settings = changed[key] if isinstance(changed[key], dict) else {key: changed[key]}
        deployed.configure(settings)
        steps, refusal = preview(deployed)
        print(f"| {key} | {change} | {refusal or describe(steps)} |")
        problems += [f"{key}: {problem}" for problem in judge(key, Change(change), steps, refusal)]
    deployed.configure({})
    assert problems == []


def preview(stack: Stack) -> tuple[Steps, str]:
    """The steps of a preview, and the message of its rejection, or an empty text."""
    try:
        return stack.preview(), ""
    except EngineError as error:
        return error.steps, str(error)


def judge(key: str, change: Change, steps: Steps, refusal: str) -> Iterable[str]:
    """The differences between the steps of a preview and what the setting declares."""
    if change is Change.REFUSED:
        if f"ftm:{key}" not in refusal:
            yield f"it should be refused, and is not: {refusal or describe(steps)}"
        return
    if refusal:
        yield f"it is refused: {refusal}"
    touched = steps.of("update", "replace", "create", "delete")
    if not touched:
        yield "it changes nothing"
    if (SERVICE in steps.of("update")) != (change is Change.RESTARTS_VLLM):
        yield f"it {'does not restart' if change is Change.RESTARTS_VLLM else 'restarts'} vLLM"
    if change is Change.NEXT_RUN and not touched & RUN:
        yield "neither the job definition nor the state machine changes"
    yield from (f"{one} is replaced" for one in steps.of("replace") - {TASK})
    gone = steps.of("replace", "delete")
    yield from (f"{one} holds data, and is deleted" for one in gone if f"({DATA[0]}" in one or f"({DATA[1]}" in one)
    if key not in REMOVING:
        yield from (f"{one} is deleted" for one in steps.of("delete") if f"({ROLES[0]}" not in one)


def describe(steps: Steps) -> str:
    """`update worker:JobDefinition (containerProperties); delete ...`, and warnings."""
    parts = [
        f"{operation} " + ", ".join(sorted(_short(one, steps) for one in resources))
        for operation, resources in steps.by_operation.items()
        if operation in ("create", "update", "replace", "delete")
    ]
    return "; ".join([*parts, *(f"warning: {message}" for message in steps.messages)])


def _short(resource: str, steps: Steps) -> str:
    inputs = ", ".join(steps.details[resource])
    short = resource.split(" ")[0] + ":" + resource.rstrip(")").rsplit(":", 1)[-1]
    return f"{short} ({inputs})" if inputs else short
