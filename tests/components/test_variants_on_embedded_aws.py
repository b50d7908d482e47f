"""Deploys each variant of a stack to the embedded AWS and checks it through the AWS API."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from local.deploy import program
from local.deploy.program import Run
from local.deploy.resources import EmbeddedCloud
from local.state import REGION
from testing.paper_cloud import EVERYTHING_GIVEN, VARIANTS

ALB = "127.0.0.1:9"

# A process can have only one embedded AWS, and other tests use it: this one runs in its own process.
SERVE = """
import sys
from local.emulator.aws import EmbeddedAws
aws = EmbeddedAws.start()
print(aws.endpoint, flush=True)
sys.stdin.read()
aws.stop()
"""


class Aws:
    """Clients of the embedded AWS."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self._session = boto3.Session("embedded", "embedded", region_name=REGION)

    def client(self, service: str) -> Any:
        return self._session.client(service, endpoint_url=self.endpoint)  # type: ignore[call-overload]


@pytest.fixture(scope="module")
def aws() -> Iterator[Aws]:
    serving = subprocess.Popen([sys.executable, "-c", SERVE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert serving.stdin
    assert serving.stdout
    yield Aws(serving.stdout.readline().strip())
    serving.stdin.close()
    serving.stdout.close()
    assert serving.wait(30) == 0


Up = Callable[..., Run]


@pytest.fixture
def up(aws: Aws, project: Callable[[str, dict[str, Any]], Path]) -> Up:
    def up(stack: str, **settings: Any) -> Run:
        return program.up(stack, EmbeddedCloud(aws.endpoint, REGION, ALB), root=project(stack, settings))

    return up


def make_everything(aws: Aws) -> dict[str, Any]:
    """Create the resources named in EVERYTHING_GIVEN; return the settings with their real ids."""
    for bucket in (EVERYTHING_GIVEN["bucketName"], EVERYTHING_GIVEN["accessLogsBucket"]):
        aws.client("s3").create_bucket(Bucket=bucket)
    ec2 = aws.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    subnets = [
        ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.9.{n}.0/24", AvailabilityZone=f"{REGION}{zone}")["Subnet"][
            "SubnetId"
        ]
        for n, zone in enumerate("ab")
    ]
    for subnet in subnets:
        ec2.modify_subnet_attribute(SubnetId=subnet, MapPublicIpOnLaunch={"Value": True})
    iam = aws.client("iam")
    for key, arn in EVERYTHING_GIVEN.items():
        name = str(arn).rsplit("/", 1)[-1]
        if key.endswith("RoleArn"):
            iam.create_role(RoleName=name, AssumeRolePolicyDocument="{}")
        elif key.endswith("ProfileArn"):
            iam.create_instance_profile(InstanceProfileName=name)
    topic = aws.client("sns").create_topic(Name="runs")["TopicArn"]
    key = aws.client("kms").create_key()["KeyMetadata"]["Arn"]
    return {**EVERYTHING_GIVEN, "vpcId": vpc, "subnetIds": subnets, "snsTopicArn": topic, "kmsKeyArn": key}


def job_definition(aws: Aws, run: Run) -> dict[str, Any]:
    (only,) = aws.client("batch").describe_job_definitions(jobDefinitions=[run.outputs["job_definition_arn"]])[
        "jobDefinitions"
    ]
    return only["containerProperties"]


def environment(aws: Aws, run: Run) -> dict[str, str]:
    return {one["name"]: one["value"] for one in job_definition(aws, run)["environment"]}


def describe_groups(aws: Aws, run: Run) -> list[dict[str, Any]]:
    names = [run.outputs["vllm_asg_name"]]
    return aws.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=names)["AutoScalingGroups"]


def test_every_option(aws: Aws, up: Up) -> None:
    certificate = aws.client("acm").request_certificate(DomainName="vllm.example.com")["CertificateArn"]
    run = up("rich", **{**VARIANTS["every option"], "vllmCertificateArn": certificate})
    assert {"type": "GPU", "value": "1"} in job_definition(aws, run)["resourceRequirements"]
    (alb,) = aws.client("elbv2").describe_load_balancers(Names=["ftm-rich-vllm-alb"])["LoadBalancers"]
    (listener,) = aws.client("elbv2").describe_listeners(LoadBalancerArn=alb["LoadBalancerArn"])["Listeners"]
    assert (listener["Protocol"], listener["Port"]) == ("HTTPS", 443)
    assert environment(aws, run)["LLM_BASE_URL"] == "https://vllm.example.com/v1"
    (group,) = describe_groups(aws, run)
    assert group["MixedInstancesPolicy"]["InstancesDistribution"]["OnDemandBaseCapacity"] == 1
    assert group["DesiredCapacity"] == 1
    (topic,) = [one["TopicArn"] for one in aws.client("sns").list_topics()["Topics"] if "rich" in one["TopicArn"]]
    (subscription,) = aws.client("sns").list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]
    assert subscription["Endpoint"] == "operator@example.com"
    (target,) = aws.client("events").list_targets_by_rule(Rule="ftm-rich-jobs-waiting")["Targets"]
    assert target["Arn"] == topic


def test_everything_given(aws: Aws, up: Up) -> None:
    given = make_everything(aws)
    roles = {role["RoleName"] for role in aws.client("iam").list_roles()["Roles"]}
    run = up("adopted", **given)
    after = {role["RoleName"] for role in aws.client("iam").list_roles()["Roles"]}
    assert not {name for name in after - roles if "adopted" in name}
    assert run.outputs["bucket"] == "calls"
    assert job_definition(aws, run)["jobRoleArn"] == given["batchJobRoleArn"]
    assert job_definition(aws, run)["image"] == given["workerImage"]
    (alb,) = aws.client("elbv2").describe_load_balancers(Names=["ftm-adopted-vllm-alb"])["LoadBalancers"]
    assert alb["Scheme"] == "internal"
    assert alb["VpcId"] == given["vpcId"]
    assert {zone["SubnetId"] for zone in alb["AvailabilityZones"]} == set(given["subnetIds"])
    (service,) = aws.client("ecs").describe_services(
        cluster=run.outputs["vllm_cluster_name"], services=[run.outputs["vllm_service_name"]]
    )["services"]
    assert service["desiredCount"] == 0
    (group,) = describe_groups(aws, run)
    assert (group["MinSize"], group["DesiredCapacity"], group["MaxSize"]) == (0, 0, 2)
    published = aws.client("ssm").get_parameter(Name="/ftm-adopted/vllm/base_url")["Parameter"]["Value"]
    assert published == run.outputs["vllm_base_url"] == environment(aws, run)["LLM_BASE_URL"] == f"http://{ALB}/v1"
    queue = run.outputs["job_queue_arn"]
    assert aws.client("batch").describe_job_queues(jobQueues=[queue])["jobQueues"][0]["state"] == "ENABLED"
    machine = aws.client("stepfunctions").describe_state_machine(stateMachineArn=run.outputs["state_machine_arn"])
    assert machine["name"] == "ftm-adopted-quarter-processor"
    (idle,) = aws.client("cloudwatch").describe_alarms(AlarmNames=["ftm-adopted-vllm-idle"])["MetricAlarms"]
    assert idle["AlarmActions"][0] == given["snsTopicArn"]
    scalable = aws.client("application-autoscaling").describe_scalable_targets(ServiceNamespace="ecs")
    assert "service/ftm-adopted-vllm-cluster/ftm-adopted-vllm-service" in [
        one["ResourceId"] for one in scalable["ScalableTargets"]
    ]


def test_vllm_disabled(aws: Aws, up: Up) -> None:
    run = up("hosted", vllmEnabled=False)
    assert not [name for name in environment(aws, run) if name.startswith("LLM_")]
    names = [cluster.rsplit("/", 1)[-1] for cluster in aws.client("ecs").list_clusters()["clusterArns"]]
    assert "ftm-hosted-vllm-cluster" not in names


def test_a_bucket_owned_by_another_account_stops_the_deployment(aws: Aws, up: Up) -> None:
    before = aws.client("ec2").describe_security_groups()["SecurityGroups"]
    with pytest.raises(Exception, match="ftm:bucketName is not-mine, which is not a bucket of this account"):
        up("refused", bucketName="not-mine")
    assert aws.client("ec2").describe_security_groups()["SecurityGroups"] == before
