"""The whole program: properties of every variant of the stack."""

import re
from collections import Counter
from typing import Any

import pytest

from local.state import LocalError
from testing.paper_cloud import (
    ACCOUNT,
    EVERYTHING_GIVEN,
    LONGEST_NAME,
    REGION,
    VARIANTS,
    Deploy,
    Deployed,
    PaperCloud,
)

NAME_LIMITS = {
    "aws:lb/loadBalancer:LoadBalancer": 32,
    "aws:lb/targetGroup:TargetGroup": 32,
    "aws:iam/role:Role": 64,
    "aws:lambda/function:Function": 64,
    "aws:s3/bucket:Bucket": 63,
    "aws:sfn/stateMachine:StateMachine": 80,
    "aws:batch/jobQueue:JobQueue": 128,
    "aws:batch/jobDefinition:JobDefinition": 128,
    "aws:ec2/launchTemplate:LaunchTemplate": 128,
    "aws:iam/instanceProfile:InstanceProfile": 128,
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_preview_registers_and_exports_the_same_as_up(deploy: Deploy, variant: str) -> None:
    before, after = (deploy(preview=preview, **VARIANTS[variant]).run for preview in (True, False))

    def kinds(resources: Any) -> Counter[tuple[str, str]]:
        return Counter((resource.type, resource.name) for resource in resources)

    assert kinds(before.resources) == kinds(after.resources)
    assert before.outputs.keys() == after.outputs.keys()
    assert "Output[T]" not in str(after.outputs)


def test_the_exports_are_those_of_the_design(deploy: Deploy) -> None:
    outputs = deploy().run.outputs
    assert outputs.keys() >= {"job_definition_arn", "job_queue_arn", "state_machine_arn", "vllm_target_group_arn"}
    assert {key: value for key, value in outputs.items() if "arn" not in key} == {
        "region": REGION,
        "bucket": f"ftm-{ACCOUNT}-{REGION}",
        "map_concurrency": 5,
        "worker_image": f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/ftm-worker:v1",
        "llm_model": "Qwen/Qwen3-8B",
        "batch_log_group": "/aws/batch/ftm",
        "vllm_cluster_name": "ftm-vllm-cluster",
        "vllm_service_name": "ftm-vllm-service",
        "vllm_asg_name": "ftm-vllm-asg",
        "vllm_base_url": "http://internal-ftm-vllm-alb.elb.amazonaws.com/v1",
        "vllm_log_group": "/ecs/ftm-vllm",
        "vllm_requests_per_gpu": 31,
        "vllm_tokens_per_request": 640,
    }
    changed = deploy(**VARIANTS["every option"]).run.outputs
    # A number in the config counts for every batch, whatever the number of GPUs.
    assert "vllm_requests_per_gpu" not in changed
    assert changed["vllm_on_demand_fallback_minutes"] == 20


def test_every_taggable_resource_has_the_three_tags(deploy: Deploy) -> None:
    wanted = {"Project": "ftm", "Stack": "eu-west", "ManagedBy": "pulumi"}
    without = {
        "BucketPublicAccessBlock",
        "BucketPolicy",
        "BucketServerSideEncryptionConfiguration",
        "BucketVersioning",
        "BucketLifecycleConfiguration",
        "RolePolicy",
        "ClusterCapacityProviders",
        "LifecyclePolicy",
        "Policy",
        "Dashboard",
        "EventTarget",
    }
    for resource in deploy("eu-west").custom:
        tags = resource.inputs.get("tags")
        if resource.type.split(":")[-1] in without:
            assert tags is None, resource
        elif isinstance(tags, list):  # the format of Auto Scaling groups
            assert {tag["key"]: tag["value"] for tag in tags}.items() >= wanted.items(), resource
            assert all(tag["propagateAtLaunch"] for tag in tags)
        else:
            assert tags == wanted, resource


def test_no_arn_is_of_another_partition(deploy: Deploy, cloud: PaperCloud) -> None:
    cloud.partition = "aws-cn"
    for resource in deploy(
        notificationEmails=["a@example.com"], monthlyBudgetUsd=50, vllmOnDemandFallbackMinutes=20
    ).custom:
        assert "arn:aws:" not in str(resource.inputs), resource


def test_two_stacks_share_no_name(deploy: Deploy) -> None:
    def named(stack: str) -> set[tuple[str, str]]:
        return {
            (resource.type, str(resource.inputs[key]))
            for resource in deploy(stack).custom
            for key in ("name", "bucket", "family", "namePrefix")
            if key in resource.inputs
        }

    one, two, three = named("prod"), named("eu-west"), named(LONGEST_NAME)
    assert one
    assert not one & two
    assert not (one | two) & three


def test_a_long_stack_name_stays_within_awss_limits(deploy: Deploy) -> None:
    resources = deploy(LONGEST_NAME).custom
    checked = Counter[str]()
    for resource in resources:
        name = resource.inputs.get("name") or resource.inputs.get("bucket")
        if resource.type in NAME_LIMITS:
            assert len(str(name)) <= NAME_LIMITS[resource.type], resource
            checked[resource.type] += 1
    assert checked.keys() == NAME_LIMITS.keys()


def test_descriptions_of_security_groups_have_only_characters_that_ec2_accepts(deploy: Deploy) -> None:
    described = [resource for resource in deploy().custom if "ecurityGroup" in resource.type]
    assert described
    for resource in described:
        assert re.fullmatch(r"[a-zA-Z0-9. _\-:/()#,@\[\]+=&;{}!$*]{1,255}", resource.inputs["description"]), resource


def test_the_name_of_the_repository_is_valid_for_ecr(deploy: Deploy) -> None:
    for stack in ("prod", "eu-west", LONGEST_NAME):
        name = deploy(stack).one("ecr/repository:Repository")["name"]
        assert re.fullmatch(r"(?:[a-z0-9]+(?:[._-][a-z0-9]+)*/)*[a-z0-9]+(?:[._-][a-z0-9]+)*", name)
        assert len(name) <= 256


def test_quoted_numbers_and_booleans_are_read_like_plain_ones(deploy: Deploy) -> None:
    """`pulumi config set` writes every value as a quoted string."""
    settings = VARIANTS["vLLM disabled"]
    plain, quoted = deploy(**settings), deploy(**settings | {"mapConcurrency": "7", "vllmEnabled": "false"})
    assert quoted.run.outputs == plain.run.outputs | {"map_concurrency": 7}


def test_with_configured_roles_no_iam_call_is_made(deploy: Deploy) -> None:
    deployed = deploy(**VARIANTS["everything given"])
    assert not [resource for resource in deployed.custom if ":iam/" in resource.type]
    assert not [token for token in deployed.asked if ":iam/" in token]
    assert deployed.one("ecs/taskDefinition:TaskDefinition")["executionRoleArn"].endswith("role/vllm-execution")
    assert {function.inputs["role"] for function in deployed.all("lambda/function:Function")} == {
        EVERYTHING_GIVEN["functionsRoleArn"]
    }


def test_adopted_resources_are_not_created(deploy: Deploy) -> None:
    deployed = deploy(**VARIANTS["everything given"])
    assert not [resource for resource in deployed.custom if resource.type.startswith(("aws:s3/", "aws:ecr/"))]
    assert deployed.run.outputs["bucket"] == "calls"
    assert deployed.run.outputs["worker_image"] == EVERYTHING_GIVEN["workerImage"]
    assert deployed.one("lb/loadBalancer:LoadBalancer")["subnets"] == ["subnet-a1", "subnet-b1"]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"bucketName": "somebody-elses"},
            "ftm:bucketName is somebody-elses, which is not a bucket of this account: create it, or name another",
        ),
        (
            {"bucketName": "far-away"},
            "ftm:bucketName is far-away, of region eu-west-1: it should be of us-east-1, as the stack is",
        ),
        (
            {
                "vllmCertificateArn": f"arn:aws:acm:eu-west-1:{ACCOUNT}:certificate/1",
                "vllmHostname": "vllm.example.com",
            },
            f"ftm:vllmCertificateArn is arn:aws:acm:eu-west-1:{ACCOUNT}:certificate/1, of region eu-west-1: "
            "it should be of us-east-1, as the stack is",
        ),
        (
            {"batchJobRoleArn": "arn:aws:iam::999999999999:role/job"},
            "ftm:batchJobRoleArn is arn:aws:iam::999999999999:role/job, of account 999999999999: "
            f"it should be of {ACCOUNT}, as the stack is",
        ),
        (
            {"vpcId": "vpc-1", "subnetIds": ["subnet-a1", "subnet-a2"]},
            "ftm:subnetIds holds subnet-a2: it should hold subnets of ftm:vpcId, vpc-1, which are subnet-a1, subnet-b1",
        ),
        (
            {"vpcId": "vpc-1", "subnetIds": ["subnet-a1"]},
            "ftm:subnetIds are all in us-east-1a: a load balancer needs at least two availability zones",
        ),
        (
            {"vpcId": "vpc-9", "subnetIds": ["subnet-a1"]},
            "ftm:subnetIds holds subnet-a1: it should hold subnets of ftm:vpcId, vpc-9, which are none",
        ),
        ({"vllmMaxModelLen": 40960}, "ftm:vllmModel Qwen/Qwen3-8B does not fit"),
    ],
)
def test_impossible_settings_stop_the_preview_with_a_sentence(
    deploy: Deploy, cloud: PaperCloud, settings: dict[str, Any], sentence: str
) -> None:
    cloud.buckets["far-away"] = "eu-west-1"
    with pytest.raises(LocalError, match=r"^[^\n]*$") as caught:
        deploy(preview=True, **settings)
    assert sentence in str(caught.value)


def test_without_a_default_vpc_the_preview_asks_for_one(deploy: Deploy, cloud: PaperCloud) -> None:
    cloud.default_vpc = None
    with pytest.raises(LocalError, match="no default VPC in us-east-1: give ftm:vpcId and ftm:subnetIds"):
        deploy(preview=True)


def test_nothing_is_created_before_a_rejection(deploy: Deploy, monkeypatch: pytest.MonkeyPatch) -> None:
    created: list[str] = []
    monkeypatch.setattr(PaperCloud, "create", lambda _cloud, resource: created.append(resource.name))
    with pytest.raises(LocalError):
        deploy(bucketName="somebody-elses")
    assert created == []


def test_a_mistyped_key_stops_the_preview(deploy: Deploy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "PULUMI_CONFIG", '{"ftm:vllmModle": "Qwen/Qwen3-4B"}'
    )  # the way Pulumi's launcher passes settings
    with pytest.raises(LocalError, match="ftm:vllmModle is not a setting: did you mean ftm:vllmModel"):
        deploy(preview=True, mapConcurrency=6)


def test_the_example_stack_is_deployed_without_a_warning(example: Deployed) -> None:
    assert example.run.warnings == []
