"""Checks every registered resource of several stacks against AWS's resource schemas, which are part of cfn-lint, and
against limits that those schemas do not have.

`pytest -n0 -s tests/components/test_aws_schemas.py` prints the number of resources checked in each stack.
"""

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest

from local.deploy.program import Resource
from testing.paper_cloud import EVERYTHING_GIVEN, LONGEST_NAME, REGION, VARIANTS, Deploy, LifelikeCloud

GIVEN = EVERYTHING_GIVEN | {"vpcId": LifelikeCloud().default_vpc, "subnetIds": list(LifelikeCloud().subnets)}

DESCRIPTION = r"[a-zA-Z0-9. _\-:/()#,@\[\]+=&;{}!$*]{0,255}"
BALANCER_NAME = r"(?!internal-)[A-Za-z0-9]([A-Za-z0-9-]{0,30}[A-Za-z0-9])?"
WORDS = r"[a-z0-9]+([._-][a-z0-9]+)*"
LIMITS = {
    ("aws:ec2/securityGroup:SecurityGroup", "description"): DESCRIPTION,
    ("aws:ec2/securityGroup:SecurityGroup", "name"): rf"(?!sg-){DESCRIPTION}",
    ("aws:ecr/repository:Repository", "name"): rf"{WORDS}(/{WORDS})*",
    ("aws:lb/loadBalancer:LoadBalancer", "name"): BALANCER_NAME,
    ("aws:lb/targetGroup:TargetGroup", "name"): BALANCER_NAME,
    ("aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule", "description"): DESCRIPTION,
    ("aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule", "description"): DESCRIPTION,
}
"""Values that AWS accepts but the schemas do not know, by type and input."""

NOT_NEEDED = (
    "batch:SubmitJob job/*",
    "states:DescribeExecution express:*:*:*",
    "states:ListExecutions mapRun:*/*:*",
)
"""Resources that parliament requires and AWS does not: before a job exists, only its queue and definition identify it,
only express workflows have executions of the second form, and only distributed Maps have runs."""


STACKS: dict[str, tuple[str, dict[str, Any]]] = {
    "prod": ("prod", {}),
    "everything given": ("prod", GIVEN),
    "every option, the longest name": (LONGEST_NAME, VARIANTS["every option"]),
    "vLLM disabled": ("prod", VARIANTS["vLLM disabled"]),
}


@pytest.fixture
def cloud() -> LifelikeCloud:
    return LifelikeCloud()


@pytest.fixture
def resources(deploy: Deploy) -> Callable[[str], list[Resource]]:
    """The created resources of one of STACKS."""
    return lambda name: deploy(STACKS[name][0], **STACKS[name][1]).custom


def judge(resources: Iterable[Resource]) -> list[str]:
    """Violations of AWS's schemas and of the additional limits, one sentence each."""
    # Imported here, since every process of pytest collects this module and only one runs it.
    from cfnlint import api
    from cfnlint.config import ManualArgs

    from testing.cloudformation import write_template

    resources = list(resources)
    findings = [
        f"{resource}: {key} is {value!r}"
        for resource in resources
        for (type_, key), allowed in LIMITS.items()
        if resource.type == type_ and not re.fullmatch(allowed, value := str(resource.inputs.get(key, "")))
    ]
    config = ManualArgs(regions=[REGION], include_experimental=True)
    matches = api.lint(json.dumps(write_template(resources, REGION)), config=config)
    return findings + [
        f"{match.rule.id} {'/'.join(map(str, getattr(match, 'path', [])))}: {match.message}"
        for match in matches
        if match.rule.id[0] in "EW"
    ]


def test_every_resource_of_every_stack_is_valid_for_aws(resources: Callable[[str], list[Resource]]) -> None:
    judged: dict[str, str] = {}
    for stack in STACKS:
        registered = {repr((one.type, one.name, without_archive(one))): one for one in resources(stack)}
        # By name: separate resources in Pulumi, such as versioning, are part of their parent in the template.
        new = {one.name for key, one in registered.items() if key not in judged}
        print(f"{stack}: {len(registered)} resources, {len(new)} names with changes since the stacks before")
        assert judge(one for one in registered.values() if one.name in new) == []
        judged |= dict.fromkeys(registered, stack)
    print(f"{len(judged)} distinct resources of {len({key.split(chr(39))[1] for key in judged})} types")


def test_the_check_finds_what_aws_rejects(resources: Callable[[str], list[Resource]]) -> None:
    """The schemas alone do not find the last three."""
    spoilt = {
        ("aws:ec2/securityGroup:SecurityGroup", "description"): "vLLM's load balancer",
        ("aws:ecs/service:Service", "propagateTags"): "CLUSTER",
        ("aws:lb/loadBalancer:LoadBalancer", "name"): "a" * 33,
        ("aws:lb/targetGroup:TargetGroup", "name"): "ftm-",
        ("aws:ecr/repository:Repository", "name"): "ftm-prod--worker",
    }
    found = judge([spoil(resources("prod"), type_, key, value) for (type_, key), value in spoilt.items()])
    assert [one for one in found if "GroupDescription" in one and "E3031" in one]
    assert [one for one in found if "PropagateTags" in one and "E3030" in one]
    for (_, key), value in list(spoilt.items())[2:]:
        assert [one for one in found if one.endswith(f": {key} is {value!r}")]


def test_parliament_finds_no_problem_in_any_policy(resources: Callable[[str], list[Resource]]) -> None:
    policies = {
        one.inputs["policy"]
        for stack in STACKS
        for one in resources(stack)
        if one.type in ("aws:iam/rolePolicy:RolePolicy", "aws:s3/bucketPolicy:BucketPolicy")
    }
    print(f"{len(policies)} distinct policies")
    found = {finding for policy in policies for finding in lint_policy(policy)}
    assert {one for one in found if not one.endswith(NOT_NEEDED)} == set()


def test_parliament_finds_an_action_that_does_not_exist() -> None:
    statement = {"Effect": "Allow", "Action": ["s3:GetObjects"], "Resource": ["*"]}
    assert lint_policy(json.dumps({"Version": "2012-10-17", "Statement": [statement]})) == ["UNKNOWN_ACTION"]


def test_a_type_or_an_input_without_a_mapping_fails(resources: Callable[[str], list[Resource]]) -> None:
    from testing.cloudformation import MappingError, write_template

    one = resources("prod")[0]
    with pytest.raises(MappingError, match="no mapping for aws:sqs/queue:Queue"):
        write_template([replace(one, type="aws:sqs/queue:Queue")], REGION)
    with pytest.raises(MappingError, match="has no property for the input colour"):
        write_template([replace(one, inputs=one.inputs | {"colour": "red"})], REGION)


def spoil(resources: Iterable[Resource], type_: str, key: str, value: str) -> Resource:
    """The first resource of a type, with one input changed."""
    one = next(one for one in resources if one.type == type_)
    return replace(one, inputs=one.inputs | {key: value})


def lint_policy(policy: str) -> list[str]:
    """Findings of parliament, such as `RESOURCE_MISMATCH batch:SubmitJob job/*`."""
    import parliament

    return [
        " ".join([one.issue, *(f"{each['action']} {each['required_format'].split(':', 5)[-1]}" for each in one.detail)])
        if one.issue == "RESOURCE_MISMATCH"
        else one.issue
        for one in parliament.analyze_policy_string(policy).findings
    ]


def without_archive(resource: Resource) -> str:
    return json.dumps({key: value for key, value in resource.inputs.items() if key != "code"}, sort_keys=True)
