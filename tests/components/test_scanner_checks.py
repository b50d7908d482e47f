"""Checks every registered resource against the applicable checks of Checkov and Prowler.

`pytest -n0 -s tests/components/test_scanner_checks.py` prints the table of what passed and what was waived. Each waiver
has its reason in docs/adr/0006-waived-checks.md. A waiver that is no longer needed or has no reason fails the tests.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.policies import NO_NARROWER_RESOURCE
from local.deploy.program import Resource
from testing.paper_cloud import CERTIFICATE, EVERYTHING_GIVEN, Deploy, Deployed

ROOT = Path(__file__).parents[2]
ADR = "docs/adr/0006-waived-checks.md"

Inputs = dict[str, Any]

WAIVED = {
    "CKV_AWS_2",
    "CKV_AWS_18",
    "CKV_AWS_91",
    "CKV_AWS_103",
    "CKV_AWS_115",
    "CKV_AWS_150",
    "CKV_AWS_158",
    "CKV_AWS_173",
    "CKV_AWS_287",
}
"""The checks that the example stack does not pass."""

WAIVED_WITH_EVERYTHING_GIVEN = {"CKV_AWS_115", "CKV_AWS_150", "CKV_AWS_287"}
"""The checks that fail even if a key, a certificate and a bucket for access logs are configured."""

LAMBDA_RUNTIMES = {"python3.11", "python3.12", "python3.13", "python3.14"}
"""Runtimes that AWS supports for several more years."""

CREDENTIALS = {"ecr:GetAuthorizationToken", "sts:AssumeRole", "sts:GetSessionToken", "iam:CreateAccessKey"}
DATA = re.compile(r"(s3:GetObject|ssm:GetParameters?|secretsmanager:GetSecretValue|dynamodb:.*)")
ESCALATION = re.compile(r"(iam:.*|lambda:(Create|Update)Function.*|ec2:RunInstances|sts:AssumeRole)")
PERMISSIONS = re.compile(r"(\w+:(Put|Add|Remove|Delete|Set)\w*(Policy|Permission)|iam:.*)")
WRITES = re.compile(r"\w[\w-]*:(Put|Create|Delete|Update|Submit|Terminate|Start|Stop|Register|Deregister|Publish).*")


@dataclass(frozen=True)
class Check:
    """One scanner's check of one kind of resource."""

    id: str
    what: str
    kind: str
    passes: Callable[[Inputs], bool]
    needed_by: str = ""
    """The resource type whose resources each need one of the checked type, as a bucket needs its versioning."""


def _metadata(template: Inputs) -> Inputs:
    return template["metadataOptions"]


def _containers(task: Inputs) -> list[Inputs]:
    return json.loads(task["containerDefinitions"])


def _secret_free(container: Inputs) -> bool:
    names = [one["name"] for one in container["environment"]]
    return not [name for name in names if re.search(r"KEY|TOKEN|SECRET|PASSWORD", name)]


def _job(definition: Inputs) -> Inputs:
    return json.loads(definition["containerProperties"])


def _unrestricted(policy: Inputs) -> set[str]:
    """Actions allowed on all resources that could be limited to one."""
    return {action for action in _on_everything(policy) if action not in NO_NARROWER_RESOURCE}


def _on_everything(policy: Inputs) -> set[str]:
    statements = json.loads(policy["policy"])["Statement"]
    return {action for one in statements if "*" in one["Resource"] for action in one["Action"]}


def _without(pattern: re.Pattern[str]) -> Callable[[Inputs], bool]:
    return lambda policy: not [action for action in _unrestricted(policy) if pattern.fullmatch(action)]


BUCKET = "s3/bucket:Bucket"
ENCRYPTION = "s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration"
LIFECYCLE = "s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration"
PUBLIC_ACCESS = "s3/bucketPublicAccessBlock:BucketPublicAccessBlock"
TEMPLATE = "ec2/launchTemplate:LaunchTemplate"
GROUP = "autoscaling/group:Group"
TASK = "ecs/taskDefinition:TaskDefinition"
JOB = "batch/jobDefinition:JobDefinition"
ALB = "lb/loadBalancer:LoadBalancer"
LISTENER = "lb/listener:Listener"
FUNCTION = "lambda/function:Function"
MACHINE = "sfn/stateMachine:StateMachine"
LOGS = "cloudwatch/logGroup:LogGroup"
REPOSITORY = "ecr/repository:Repository"
SECURITY_GROUP = "ec2/securityGroup:SecurityGroup"
INGRESS = "vpc/securityGroupIngressRule:SecurityGroupIngressRule"
EGRESS = "vpc/securityGroupEgressRule:SecurityGroupEgressRule"
POLICY = "iam/rolePolicy:RolePolicy"

CHECKS = [
    Check("CKV_AWS_79", "IMDSv2 only", TEMPLATE, lambda one: _metadata(one)["httpTokens"] == "required"),
    Check("CKV_AWS_341", "hop limit 1", TEMPLATE, lambda one: _metadata(one)["httpPutResponseHopLimit"] == 1),
    Check(
        "CKV_AWS_8",
        "disks encrypted",
        TEMPLATE,
        lambda one: all(disk["ebs"]["encrypted"] == "true" for disk in one["blockDeviceMappings"]),
    ),
    Check("CKV_AWS_315", "from a launch template", GROUP, lambda one: "launchTemplate" in one["mixedInstancesPolicy"]),
    Check("CKV_AWS_153", "instances tagged", GROUP, lambda one: all(tag["propagateAtLaunch"] for tag in one["tags"])),
    Check(
        "CKV_AWS_65",
        "container insights",
        "ecs/cluster:Cluster",
        lambda one: {"name": "containerInsights", "value": "enabled"} in one["settings"],
    ),
    Check(
        "CKV_AWS_249",
        "task role separate from execution role",
        TASK,
        lambda one: one.get("taskRoleArn") != one["executionRoleArn"],
    ),
    Check("CKV_AWS_335", "own process namespace", TASK, lambda one: one.get("pidMode") != "host"),
    Check(
        "CKV_AWS_336",
        "read-only root",
        TASK,
        lambda one: all(container["readonlyRootFilesystem"] for container in _containers(one)),
    ),
    Check(
        "ecs_task_definitions_no_environment_secrets",
        "no secrets in environment",
        TASK,
        lambda one: all(_secret_free(container) for container in _containers(one)),
    ),
    Check(
        "ecs_task_definitions_logging_enabled",
        "logging",
        TASK,
        lambda one: all("logConfiguration" in container for container in _containers(one)),
    ),
    Check(
        "ecs_task_definitions_host_networking_mode_users",
        "host mode without root",
        TASK,
        lambda one: (
            one["networkMode"] != "host"
            or all(container.get("user", "0").split(":")[0] not in ("0", "root") for container in _containers(one))
        ),
    ),
    Check("CKV_AWS_210", "not privileged", JOB, lambda one: not _job(one)["privileged"]),
    Check("batch: no secrets", "no secrets in environment", JOB, lambda one: _secret_free(_job(one))),
    Check("CKV_AWS_284", "X-Ray", MACHINE, lambda one: one["tracingConfiguration"]["enabled"]),
    Check("CKV_AWS_285", "logging", MACHINE, lambda one: one["loggingConfiguration"]["level"] == "ALL"),
    Check("CKV_AWS_50", "X-Ray", FUNCTION, lambda one: one["tracingConfig"]["mode"] == "Active"),
    Check("CKV_AWS_115", "reserved concurrency", FUNCTION, lambda one: "reservedConcurrentExecutions" in one),
    Check(
        "CKV_AWS_173",
        "environment encrypted by a customer-managed key",
        FUNCTION,
        lambda one: "environment" not in one or bool(one.get("kmsKeyArn")),
    ),
    Check("CKV_AWS_363", "runtime supported", FUNCTION, lambda one: one["runtime"] in LAMBDA_RUNTIMES),
    Check("CKV_AWS_53", "public ACLs blocked", PUBLIC_ACCESS, lambda one: one["blockPublicAcls"], BUCKET),
    Check(
        "CKV2_AWS_6",
        "public access blocked",
        PUBLIC_ACCESS,
        lambda one: all(one[key] for key in ("blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets")),
        BUCKET,
    ),
    Check("CKV2_AWS_61", "lifecycle", LIFECYCLE, lambda one: bool(one["rules"]), BUCKET),
    Check(
        "CKV_AWS_300",
        "incomplete uploads expire",
        LIFECYCLE,
        lambda one: any("abortIncompleteMultipartUpload" in rule for rule in one["rules"]),
        BUCKET,
    ),
    Check("CKV_AWS_18", "access logs", "s3/bucketLogging:BucketLogging", lambda one: bool(one["targetBucket"]), BUCKET),
    Check(
        "CKV_AWS_21",
        "versioning",
        "s3/bucketVersioning:BucketVersioning",
        lambda one: one["versioningConfiguration"]["status"] == "Enabled",
        BUCKET,
    ),
    Check(
        "CKV_AWS_145",
        "encrypted by KMS",
        ENCRYPTION,
        lambda one: one["rules"][0]["applyServerSideEncryptionByDefault"]["sseAlgorithm"] == "aws:kms",
        BUCKET,
    ),
    Check(
        "s3_bucket_secure_transport_policy",
        "TLS only",
        "s3/bucketPolicy:BucketPolicy",
        lambda one: '"aws:SecureTransport": "false"' in one["policy"],
        BUCKET,
    ),
    Check("CKV_AWS_2", "HTTPS", LISTENER, lambda one: one["protocol"] == "HTTPS"),
    Check("CKV_AWS_103", "TLS 1.2 or later", LISTENER, lambda one: "TLS13-1-2" in one.get("sslPolicy", "")),
    Check("CKV_AWS_91", "access logs", ALB, lambda one: "accessLogs" in one),
    Check("CKV_AWS_131", "invalid headers dropped", ALB, lambda one: one["dropInvalidHeaderFields"]),
    Check("CKV_AWS_150", "deletion protection", ALB, lambda one: one["enableDeletionProtection"]),
    Check("CKV_AWS_158", "encrypted by a customer-managed key", LOGS, lambda one: bool(one.get("kmsKeyId"))),
    Check("CKV_AWS_338", "kept for a year", LOGS, lambda one: one["retentionInDays"] >= 365),
    Check("CKV_AWS_7", "rotated", "kms/key:Key", lambda one: one["enableKeyRotation"]),
    Check("CKV_AWS_26", "encrypted", "sns/topic:Topic", lambda one: bool(one.get("kmsMasterKeyId"))),
    Check("CKV_AWS_51", "immutable tags", REPOSITORY, lambda one: one["imageTagMutability"] == "IMMUTABLE"),
    Check(
        "CKV_AWS_136",
        "encrypted by KMS",
        REPOSITORY,
        lambda one: one["encryptionConfigurations"][0]["encryptionType"] == "KMS",
    ),
    Check("CKV_AWS_163", "scan on push", REPOSITORY, lambda one: one["imageScanningConfiguration"]["scanOnPush"]),
    Check("CKV_AWS_23", "described", SECURITY_GROUP, lambda one: bool(one["description"])),
    Check("CKV_AWS_23", "described", INGRESS, lambda one: bool(one["description"])),
    Check("CKV_AWS_23", "described", EGRESS, lambda one: bool(one["description"])),
    Check("CKV_AWS_382", "outbound ports limited", EGRESS, lambda one: one["ipProtocol"] != "-1"),
    Check("CKV_AWS_24/25/260", "closed to the internet", INGRESS, lambda one: "cidrIpv4" not in one),
    Check("CKV_AWS_286", "no privilege escalation", POLICY, _without(ESCALATION)),
    Check("CKV_AWS_287", "no credentials exposure", POLICY, lambda one: not CREDENTIALS & _on_everything(one)),
    Check("CKV_AWS_288", "no data exfiltration", POLICY, _without(DATA)),
    Check("CKV_AWS_289", "no unrestricted permissions management", POLICY, _without(PERMISSIONS)),
    Check("CKV_AWS_290", "no unrestricted writes", POLICY, _without(WRITES)),
    Check("CKV_AWS_355", "no needless wildcard resource", POLICY, lambda one: not _unrestricted(one)),
]


@dataclass
class Outcome:
    check: Check
    passed: list[str] = field(default_factory=list[str])
    failed: list[str] = field(default_factory=list[str])


def walk(deployed: Deployed) -> list[Outcome]:
    """Run every check on every resource of its type."""
    outcomes: list[Outcome] = []
    for check in CHECKS:
        outcome = Outcome(check)
        resources: list[Resource] = deployed.all(check.kind)
        for resource in resources:
            (outcome.passed if check.passes(resource.inputs) else outcome.failed).append(resource.name)
        if check.needed_by and not resources:
            outcome.failed += [resource.name for resource in deployed.all(check.needed_by)]
        outcomes.append(outcome)
    return outcomes


def table(outcomes: list[Outcome]) -> str:
    lines = ["| check | what | of | passed | waived |", "|---|---|---|---|---|"]
    for outcome in outcomes:
        check, waived = outcome.check, len(outcome.failed)
        cited = f"{waived}: {ADR}" if waived else ""
        lines.append(
            f"| {check.id} | {check.what} | {check.kind.split(':')[1]} | {len(outcome.passed) or ''} | {cited} |"
        )
    passed = sum(len(outcome.passed) for outcome in outcomes)
    waived = sum(len(outcome.failed) for outcome in outcomes)
    return "\n".join([*lines, f"| | | | {passed} | {waived} |"])


def failing(outcomes: list[Outcome]) -> dict[str, list[str]]:
    return {outcome.check.id: outcome.failed for outcome in outcomes if outcome.failed}


def test_the_example_stack_passes_what_is_not_waived(example: Deployed) -> None:
    outcomes = walk(example)
    print()
    print(table(outcomes))
    assert failing(outcomes).keys() == WAIVED


def test_with_a_key_a_certificate_and_a_log_bucket_only_three_waivers_are_needed(deploy: Deploy) -> None:
    given = {key: EVERYTHING_GIVEN[key] for key in ("kmsKeyArn", "accessLogsBucket")}
    outcomes = walk(deploy(**given, vllmCertificateArn=CERTIFICATE, vllmHostname="vllm.example.com"))
    assert failing(outcomes).keys() == WAIVED_WITH_EVERYTHING_GIVEN


def test_every_waiver_has_its_reason_in_the_decision_record() -> None:
    headings = re.findall(r"^### (\S+)", (ROOT / ADR).read_text(), re.MULTILINE)
    assert sorted(headings) == sorted(WAIVED)


def test_every_kind_of_resource_is_checked_or_has_nothing_to_check(example: Deployed) -> None:
    kinds = {resource.type.removeprefix("aws:") for resource in example.custom}
    unchecked = {
        "appautoscaling/policy:Policy",
        "appautoscaling/target:Target",
        "autoscaling/policy:Policy",
        "cloudwatch/dashboard:Dashboard",
        "cloudwatch/eventRule:EventRule",
        "cloudwatch/eventTarget:EventTarget",
        "cloudwatch/metricAlarm:MetricAlarm",
        "batch/computeEnvironment:ComputeEnvironment",
        "batch/jobQueue:JobQueue",
        "ecr/lifecyclePolicy:LifecyclePolicy",
        "ecs/capacityProvider:CapacityProvider",
        "ecs/clusterCapacityProviders:ClusterCapacityProviders",
        "ecs/service:Service",
        "iam/instanceProfile:InstanceProfile",
        "iam/role:Role",
        "lb/targetGroup:TargetGroup",
        "s3/bucket:Bucket",
        "ssm/parameter:Parameter",
    }
    assert kinds - {check.kind for check in CHECKS} <= unchecked
