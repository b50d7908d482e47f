"""Stacks from deployment to destruction: each variant, failed deployments, running GPUs and jobs."""

import json
from typing import Any

import pytest

from local.deploy.program import read_config
from testing.paper_cloud import CERTIFICATE, EVERYTHING_GIVEN, VARIANTS
from testing.pulumi_engine import Engine, EngineError, Stack
from testing.pulumi_provider.server import Provider
from tests.pulumi.conftest import Aws

pytestmark = pytest.mark.filterwarnings(
    # When a deployment fails, coroutines of the program are never awaited.
    "ignore::pytest.PytestUnraisableExceptionWarning",
    "ignore:coroutine:RuntimeWarning",
)

UNPROTECTED = {"deletionProtection": False}

CHANGED: dict[str, Any] = {
    "batchVcpus": 4,
    "logRetentionDays": 90,
    "mapConcurrency": 6,
    "minNamedPercent": 90,
    "vllmImage": "vllm/vllm-openai:v0.33.0",
    "vllmMaxInstances": 3,
    "vllmRootVolumeGib": 150,
}
"""Another value of settings that change resources of different types."""


@pytest.fixture(scope="module")
def given(aws: Aws) -> dict[str, Any]:
    """The existing resources that the variants adopt and the program looks up: buckets and a network."""
    for bucket in (EVERYTHING_GIVEN["bucketName"], EVERYTHING_GIVEN["accessLogsBucket"]):
        aws.client("s3").create_bucket(Bucket=bucket)
    delivery = {
        "Effect": "Allow",
        "Principal": {"Service": "logging.s3.amazonaws.com"},
        "Action": "s3:PutObject",
        "Resource": f"arn:aws:s3:::{EVERYTHING_GIVEN['accessLogsBucket']}/*",
    }
    aws.client("s3").put_bucket_policy(
        Bucket=EVERYTHING_GIVEN["accessLogsBucket"],
        Policy=json.dumps({"Version": "2012-10-17", "Statement": [delivery]}),
    )
    ec2, iam = aws.client("ec2"), aws.client("iam")
    vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    subnets = [
        ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.9.{n}.0/24", AvailabilityZone=zone)["Subnet"]["SubnetId"]
        for n, zone in enumerate(("us-east-1a", "us-east-1b"))
    ]
    for subnet in subnets:
        ec2.modify_subnet_attribute(SubnetId=subnet, MapPublicIpOnLaunch={"Value": True})
    for key, arn in EVERYTHING_GIVEN.items():
        name = str(arn).rsplit("/", 1)[-1]
        if key.endswith("RoleArn"):
            iam.create_role(RoleName=name, AssumeRolePolicyDocument="{}")
        elif key.endswith("ProfileArn"):
            iam.create_instance_profile(InstanceProfileName=name)
    certificate = aws.client("acm").request_certificate(DomainName="vllm.example.com")["CertificateArn"]
    return {**EVERYTHING_GIVEN, "vpcId": vpc, "subnetIds": subnets, "vllmCertificateArn": certificate}


DEPLOYED: dict[str, dict[str, Any]] = {
    "everything-given": VARIANTS["everything given"],
    "kms-and-certificate": {"vllmCertificateArn": CERTIFICATE, "vllmHostname": "vllm.example.com"}
    | {key: EVERYTHING_GIVEN[key] for key in ("kmsKeyArn", "accessLogsBucket", "snsTopicArn")},
    "embeddings-with-gpus": {
        "batchGpus": 1,
        "batchInstanceTypes": ["g4dn", "g5"],
        "topicEmbeddingModel": "all-MiniLM-L6-v2",
    },
    "on-demand-floor": {"vllmOnDemandInstances": 1, "vllmMinInstances": 1},
    "no-vllm": VARIANTS["vLLM disabled"],
    "notifications": {"notificationEmails": ["operator@example.com"], "monthlyBudgetUsd": 50},
    "local": {key.removeprefix("ftm:"): value for key, value in read_config("local").items() if key.startswith("ftm:")},
}
"""Settings of stacks that differ in the resources they create, by the stack's name. `mended` has the default ones."""


@pytest.mark.parametrize("name", DEPLOYED)
def test_each_variant_is_deployed_unchanged_by_a_second_up_and_destroyed(
    engine: Engine, provider: Provider, given: dict[str, Any], name: str
) -> None:
    settings = {key: given.get(key, value) for key, value in DEPLOYED[name].items()}
    stack = engine.stack(name, settings | UNPROTECTED)
    stack.up()
    assert not stack.up().changed
    stack.destroy()
    assert provider.live(stack.name) == []


@pytest.fixture(scope="module")
def mended(engine: Engine, deployed: Stack, provider: Provider) -> tuple[Stack, set[str]]:
    """A stack whose first deployment failed ten times, at ten different resources, and those resources."""
    names = [f"{one['urn'].split('::')[-1]} ({one['type']})" for one in deployed.resources() if one["custom"]]
    created = [name for name in names if "pulumi:providers" not in name]
    ten = {created[n * len(created) // 10] for n in range(10)}
    stack = engine.stack("mended", UNPROTECTED)
    provider.refused_creates |= ten
    failed: set[str] = set()
    while provider.refused_creates:
        with pytest.raises(EngineError):
            stack.up()
        failed.add(provider.refusals[-1])
        provider.refused_creates.discard(provider.refusals[-1])
    assert failed == ten
    return stack, failed


def test_a_deployment_completes_after_ten_failed_creations(mended: tuple[Stack, set[str]]) -> None:
    stack, failed = mended
    created = stack.up()
    assert len(failed) == 10
    assert not created.of("replace", "delete", "update")
    assert not stack.preview().changed


def test_changed_settings_change_what_is_deployed(mended: tuple[Stack, set[str]], aws: Aws) -> None:
    """Each change is applied in place: it is in the embedded AWS, and the resources keep their ids."""
    stack, _ = mended
    before = {one["urn"]: one["id"] for one in stack.resources() if one["custom"]}
    stack.configure(UNPROTECTED | CHANGED)
    steps = stack.up()
    assert steps.of("create", "delete", "replace") <= {"vllm (aws:ecs/taskDefinition:TaskDefinition)"}
    after = {one["urn"]: one["id"] for one in stack.resources() if one["custom"]}
    assert after == before

    name, outputs = f"ftm-{stack.name}", stack.outputs()
    (group,) = aws.client("logs").describe_log_groups(logGroupNamePrefix=f"/aws/batch/{name}")["logGroups"]
    assert group["retentionInDays"] == 90
    (asg,) = aws.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=[f"{name}-vllm-asg"])[
        "AutoScalingGroups"
    ]
    assert asg["MaxSize"] == 3
    function = aws.client("lambda").get_function_configuration(FunctionName=f"{name}-summarize-results")
    assert "0.9" in function["Environment"]["Variables"].values()
    machine = aws.client("stepfunctions").describe_state_machine(stateMachineArn=outputs["state_machine_arn"])
    assert json.loads(machine["definition"])["States"]["ProcessBatches"]["MaxConcurrency"] == 6
    (job,) = aws.client("batch").describe_job_definitions(jobDefinitions=[outputs["job_definition_arn"]])[
        "jobDefinitions"
    ]
    assert {"type": "VCPU", "value": "4"} in job["containerProperties"]["resourceRequirements"]
    (service,) = aws.client("ecs").describe_services(cluster=f"{name}-vllm-cluster", services=[f"{name}-vllm-service"])[
        "services"
    ]
    task = aws.client("ecs").describe_task_definition(taskDefinition=service["taskDefinition"])["taskDefinition"]
    assert task["containerDefinitions"][0]["image"] == CHANGED["vllmImage"]
    version = aws.client("ec2").describe_launch_template_versions(
        LaunchTemplateName=f"{name}-vllm", Versions=["$Latest"]
    )["LaunchTemplateVersions"][0]["LaunchTemplateData"]
    assert version["BlockDeviceMappings"][0]["Ebs"]["VolumeSize"] == 150
    parameter = aws.client("ssm").get_parameter(Name=f"/{name}/outputs")["Parameter"]["Value"]
    assert json.loads(parameter)["map_concurrency"] == 6
    assert not stack.preview().changed


def test_destroy_succeeds_while_gpus_and_jobs_are_running(
    mended: tuple[Stack, set[str]], provider: Provider, aws: Aws
) -> None:
    stack, _ = mended
    outputs = stack.outputs()
    start_gpu(aws, outputs)
    job = start_job(aws, outputs)
    stack.destroy()
    assert provider.live(stack.name) == []
    assert aws.client("batch").describe_jobs(jobs=[job])["jobs"][0]["status"] != "RUNNING"


def test_destroy_retains_a_protected_bucket_and_a_later_up_adopts_it(engine: Engine, aws: Aws) -> None:
    stack, s3 = engine.stack("kept", {}), aws.client("s3")
    stack.up()
    bucket = stack.outputs()["bucket"]
    s3.put_object(Bucket=bucket, Key="prefetch/one", Body=b"data")
    before = describe_protection(s3, bucket)

    stack.destroy()
    assert stack.resources() == []
    assert describe_protection(s3, bucket) == before
    assert s3.get_object(Bucket=bucket, Key="prefetch/one")["Body"].read() == b"data"

    with pytest.raises(EngineError, match=f"pulumi config set ftm:bucketName {bucket}"):
        stack.preview()
    stack.configure({"bucketName": bucket})
    stack.up()
    assert stack.outputs()["bucket"] == bucket
    assert not stack.preview().changed
    stack.destroy()
    assert s3.get_object(Bucket=bucket, Key="prefetch/one")["Body"].read() == b"data"


def describe_protection(s3: Any, bucket: str) -> list[Any]:
    """The configuration that keeps a bucket private, encrypted and recoverable."""
    return [
        s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"],
        s3.get_bucket_policy(Bucket=bucket)["Policy"],
        s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"],
        s3.get_bucket_versioning(Bucket=bucket)["Status"],
        s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"],
    ]


def start_gpu(aws: Aws, outputs: dict[str, Any]) -> None:
    """Scale vLLM to one instance, as `ftm vllm scale 1` does."""
    aws.client("autoscaling").set_desired_capacity(AutoScalingGroupName=outputs["vllm_asg_name"], DesiredCapacity=1)
    cluster, service = outputs["vllm_cluster_name"], outputs["vllm_service_name"]
    ecs = aws.client("ecs")
    ecs.update_service(cluster=cluster, service=service, desiredCount=1)
    assert ecs.describe_services(cluster=cluster, services=[service])["services"][0]["runningCount"] == 1


def start_job(aws: Aws, outputs: dict[str, Any]) -> str:
    """Start a job on the stack's queue that runs until it is terminated."""
    return aws.client("batch").submit_job(
        jobName="busy",
        jobQueue=outputs["job_queue_arn"],
        jobDefinition=outputs["job_definition_arn"],
        containerOverrides={"command": ["python", "-c", "import time; time.sleep(600)"]},
    )["jobId"]
