"""Changes to a deployed stack: which ones the preview rejects, what the stack retains, and the order of destruction."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from moto import mock_aws

from local.deploy.program import Resource, Run
from local.state import LocalError
from testing.paper_cloud import ACCOUNT, EVERYTHING_GIVEN, REGION, VARIANTS, Deploy, PaperCloud

OWN_BUCKET = f"ftm-{ACCOUNT}-{REGION}"
TAGS = {"Project": "ftm", "Stack": "prod", "ManagedBy": "pulumi"}
AWS_KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/99999999-1234-1234-1234-123456789012"


@pytest.fixture
def deployed_cloud(deploy: Deploy, cloud: PaperCloud) -> PaperCloud:
    """An account in which the stack prod is deployed with the default settings."""
    recorded = deploy().one("ssm/parameter:Parameter", "settings")["value"]
    cloud.security_groups["ftm-batch"] = "vpc-1"
    cloud.parameters = {"/ftm/bucket/created": OWN_BUCKET, "/ftm/settings": recorded}
    cloud.buckets[OWN_BUCKET] = REGION
    cloud.repositories["ftm-worker"] = {"tags": TAGS, "kmsKey": AWS_KEY}
    cloud.desired_capacity = 0
    return cloud


def refusal(deploy: Deploy, **settings: Any) -> str:
    with pytest.raises(LocalError) as caught:
        deploy(preview=True, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_same_settings_again_pass_without_a_warning(deploy: Deploy, deployed_cloud: PaperCloud) -> None:
    deployed_cloud.desired_capacity = 1
    assert deploy(preview=True, vllmMinInstances=1).run.warnings == []


def test_another_vpc_is_rejected(deploy: Deploy, deployed_cloud: PaperCloud) -> None:
    deployed_cloud.subnets |= {"subnet-a3": ("vpc-3", "us-east-1a"), "subnet-b3": ("vpc-3", "us-east-1b")}
    sentence = refusal(deploy, vpcId="vpc-3", subnetIds=["subnet-a3", "subnet-b3"])
    assert sentence.startswith("ftm:vpcId is vpc-3, but the stack is deployed in vpc-1")
    assert "`pulumi destroy`, then `pulumi up`" in sentence


def test_replacing_the_vpc_by_the_default_one_is_rejected(deploy: Deploy, deployed_cloud: PaperCloud) -> None:
    deployed_cloud.security_groups["ftm-batch"] = "vpc-2"
    assert refusal(deploy).startswith("ftm:vpcId is not given, which means vpc-1, but the stack is deployed in vpc-2")


def test_other_subnets_of_the_same_vpc_and_subnets_behind_a_nat_gateway_are_accepted(
    deploy: Deploy, deployed_cloud: PaperCloud
) -> None:
    deployed_cloud.subnets["subnet-c1"] = ("vpc-1", "us-east-1c")
    deployed_cloud.private_subnets = ("subnet-c1",)
    deployed_cloud.default_routes = {"subnet-c1": "nat-1"}
    del deployed_cloud.parameters["/ftm/bucket/created"]  # the first release did not create it
    assert deploy(preview=True, vpcId="vpc-1", subnetIds=["subnet-a1", "subnet-c1"]).run.warnings == []


@pytest.mark.parametrize("bucket", ["calls", OWN_BUCKET])
def test_removing_the_stacks_own_bucket_is_rejected(deploy: Deploy, deployed_cloud: PaperCloud, bucket: str) -> None:
    sentence = refusal(deploy, bucketName=bucket)
    assert sentence.startswith(f"ftm:bucketName is {bucket}, but the stack created its own bucket, {OWN_BUCKET}")
    assert "pulumi config rm ftm:bucketName" in sentence


def test_a_bucket_left_by_a_destroyed_stack_and_an_operators_repository_are_adopted(
    deploy: Deploy, cloud: PaperCloud
) -> None:
    cloud.buckets[OWN_BUCKET] = REGION
    assert f"`pulumi config set ftm:bucketName {OWN_BUCKET}`" in refusal(deploy)
    cloud.repositories["ftm-worker"] = {"tags": {}, "kmsKey": AWS_KEY}
    image = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/ftm-worker:v3"
    deployed = deploy(bucketName=OWN_BUCKET, workerImage=image)
    assert deployed.run.outputs["bucket"] == OWN_BUCKET
    assert deployed.run.outputs["worker_image"] == image
    assert not [resource for resource in deployed.custom if resource.type.startswith(("aws:s3/", "aws:ecr/"))]


def test_removing_the_stacks_own_images_is_rejected(deploy: Deploy, deployed_cloud: PaperCloud) -> None:
    sentence = refusal(deploy, workerImage="registry.example.com/worker:v3")
    assert "its own image repository, ftm-worker, which would be deleted with its images" in sentence
    assert "aws ecr delete-repository --region us-east-1 --repository-name ftm-worker --force" in sentence


def test_warnings_about_the_key_of_the_repository_and_about_instances_without_vllm(
    deploy: Deploy, deployed_cloud: PaperCloud
) -> None:
    deployed = deploy(preview=True, kmsKeyArn=EVERYTHING_GIVEN["kmsKeyArn"], vllmMinInstances=1)
    key, minimum = sorted(deployed.run.warnings)
    assert key.startswith(f"ftm:kmsKeyArn is {EVERYTHING_GIVEN['kmsKeyArn']}, but the image repository ftm-worker")
    assert "starts the others, without vLLM on them; run `ftm vllm scale 1` after it" in minimum
    (repository,) = deployed.all("ecr/repository:Repository")
    assert repository.ignore_changes == ["encryptionConfigurations"]
    assert repository.inputs["forceDelete"] is True  # `pulumi destroy` would fail at a repository that holds images


@pytest.fixture
def quarter_machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], object]]:
    """Starts an execution of the deployed state machine for a quarter, by its name."""
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(key, "x")
    with mock_aws():
        states = boto3.client("stepfunctions", region_name=REGION)
        wait = {"StartAt": "Wait", "States": {"Wait": {"Type": "Wait", "Seconds": 600, "End": True}}}
        arn = states.create_state_machine(
            name="ftm-quarter-processor", definition=json.dumps(wait), roleArn=EVERYTHING_GIVEN["stateMachineRoleArn"]
        )["stateMachineArn"]
        yield lambda name: states.start_execution(stateMachineArn=arn, name=name)


def test_a_change_that_disturbs_a_running_quarter_gives_a_warning(
    deploy: Deploy, deployed_cloud: PaperCloud, quarter_machine: Callable[[str], object]
) -> None:
    changed: dict[str, Any] = {
        "vllmModel": "Qwen/Qwen3-4B",
        "workerImageTag": "v2",
        "batchInstanceTypes": ["c7i", "m7i"],
        "alarmsEnabled": False,
        "mapConcurrency": 4,
    }
    assert deploy(preview=True, **changed).run.warnings == []
    quarter_machine("20230405_101500-2023Q1-alice-3f9a")
    # Another setting, since `deploy` does not repeat a preview of the same settings.
    (warning,) = deploy(preview=True, **changed, dashboardEnabled=False).run.warnings
    assert warning == (
        "the run 20230405_101500-2023Q1-alice-3f9a is in progress, and this deployment changes "
        "ftm:vllmModel from Qwen/Qwen3-8B to Qwen/Qwen3-4B (vLLM restarts, and the jobs wait for it) and "
        "ftm:batchInstanceTypes from c7i, c7a, c6i, c6a, m7i, m7a, m6i, m6a to c7i, m7i (running jobs have an hour to "
        "finish, and are then tried again) and ftm:workerImageTag from v1 to v2 (batches that start afterwards use the "
        "new one, which `make push` must have uploaded): wait until it has ended (`ftm watch` shows it), or stop it "
        "with `ftm stop` and continue it afterwards with `ftm resume`"
    )


def test_the_preview_continues_when_step_functions_cannot_be_called(
    deploy: Deploy, deployed_cloud: PaperCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(key, "x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert deploy(preview=True, vllmImage="vllm/vllm-openai:v0.33.0").run.warnings == []
    monkeypatch.setenv("AWS_PROFILE", "unknown")
    assert deploy(preview=True, vllmImage="vllm/vllm-openai:v0.33.1").run.warnings == []


def test_the_stack_local_is_rejected_in_a_real_account(deploy: Deploy, cloud: PaperCloud) -> None:
    cloud.account = "999999999999"
    with pytest.raises(LocalError, match=r"account 999999999999: run `ftm local up`"):
        deploy("local", preview=True)


@pytest.mark.parametrize(
    "routes",
    [
        {},  # the main route table of the VPC has an internet gateway
        {"subnet-b1": "igw-1"},
    ],
)
def test_subnets_without_internet_access_are_rejected(
    deploy: Deploy, cloud: PaperCloud, routes: dict[str, str]
) -> None:
    cloud.private_subnets = ("subnet-b1",)
    cloud.default_routes = routes
    assert "instances in subnet-b1 would get no public address" in refusal(deploy)


# `pulumi destroy` deletes a resource only after everything that depends on it.
NEEDED = {
    "aws:ecs/service:Service vllm-service": [
        "aws:ecs/clusterCapacityProviders:ClusterCapacityProviders vllm",
        "aws:lb/listener:Listener vllm",
        "aws:lb/loadBalancer:LoadBalancer vllm-alb",
        "aws:lb/targetGroup:TargetGroup vllm",
        "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule vllm-alb-to-instance",
        "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule vllm-alb-to-instance",
        "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule vllm-instance-out",
        "aws:iam/rolePolicy:RolePolicy vllm-instance",
        "aws:iam/rolePolicy:RolePolicy vllm-execution",
        "aws:autoscaling/group:Group vllm-asg",
        "aws:ecs/cluster:Cluster vllm-cluster",
        "aws:cloudwatch/logGroup:LogGroup vllm",
    ],
    "aws:autoscaling/group:Group vllm-asg": [
        "aws:ecs/cluster:Cluster vllm-cluster",
        "aws:iam/instanceProfile:InstanceProfile vllm-instance",
        "aws:iam/rolePolicy:RolePolicy vllm-instance",
        "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule vllm-instance-out",
        "aws:ec2/launchTemplate:LaunchTemplate vllm",
    ],
    "aws:batch/computeEnvironment:ComputeEnvironment batch": [
        "aws:iam/instanceProfile:InstanceProfile batch-instance",
        "aws:iam/rolePolicy:RolePolicy batch-instance",
        "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule batch-out",
        "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule batch-to-vllm",
        "aws:ec2/securityGroup:SecurityGroup batch",
    ],
    "aws:batch/jobQueue:JobQueue batch": ["aws:batch/computeEnvironment:ComputeEnvironment batch"],
    "aws:sfn/stateMachine:StateMachine quarter-processor": [
        "aws:iam/rolePolicy:RolePolicy quarter-processor",
        "aws:batch/jobQueue:JobQueue batch",
        "aws:lambda/function:Function summarize-results",
    ],
    "aws:lambda/function:Function summarize-results": [
        "aws:iam/rolePolicy:RolePolicy summarize-results",
        "aws:cloudwatch/logGroup:LogGroup summarize-results",
    ],
    "aws:s3/bucket:Bucket bucket": ["aws:ssm/parameter:Parameter bucket-created"],
}


def key(resource: Resource) -> str:
    return f"{resource.type} {resource.name}"


def destroyed_before(run: Run) -> dict[str, set[str]]:
    """For each resource, those that `pulumi destroy` deletes before it: everything that depends on it, directly or not.

    Pulumi deletes independent resources at the same time, so that only dependencies give an order.
    """
    custom = [resource for resource in run.resources if resource.custom]
    names = {f"{resource.type}::{resource.name}": key(resource) for resource in custom}
    needs = {
        key(resource): {
            names[needed]
            for urn in resource.depends_on
            if (needed := "::".join(urn.split("$")[-1].split("::")[-2:])) in names
        }
        for resource in custom
    }
    before: dict[str, set[str]] = {name: set() for name in needs}

    def visit(user: str, name: str) -> None:
        for needed in needs[name]:
            if user not in before[needed]:
                before[needed].add(user)
                visit(user, needed)

    for user in needs:
        visit(user, user)
    return before


@pytest.mark.parametrize("variant", ["default", "every option"])
def test_destroy_deletes_every_resource_after_those_that_need_it(deploy: Deploy, variant: str) -> None:
    before = destroyed_before(deploy(**VARIANTS[variant]).run)
    for user, needed in NEEDED.items():
        for one in needed:
            assert user in before[one], f"{one} would be deleted before {user}"


def test_a_rollback_finds_the_previous_task_definition(deploy: Deploy) -> None:
    assert deploy().one("ecs/taskDefinition:TaskDefinition")["skipDestroy"] is True
