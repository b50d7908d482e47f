"""Requests that AWS rejects are rejected by the embedded AWS too."""

import json
import uuid
from typing import Any

import pytest
from botocore.exceptions import ClientError

DEFINITION = json.dumps({"StartAt": "A", "States": {"A": {"Type": "Succeed"}}})
OTHER_DEFINITION = json.dumps({"StartAt": "B", "States": {"B": {"Type": "Succeed"}}})


class Made:
    """One resource of each type that others depend on, with names unique to this test."""

    def __init__(self, aws: Any) -> None:
        self.client = aws.client
        self.name = f"r-{uuid.uuid4().hex[:8]}"
        ec2, ecs = aws.client("ec2"), aws.client("ecs")
        subnets = ec2.describe_subnets()["Subnets"]
        self.subnet, self.vpc = subnets[0]["SubnetId"], subnets[0]["VpcId"]
        self.subnets = [subnet["SubnetId"] for subnet in subnets[:2]]
        self.referenced, self.group = (self.security_group(f"{self.name}-{number}") for number in range(2))
        ec2.authorize_security_group_ingress(GroupId=self.group, IpPermissions=[self.rule("from the other")])
        ec2.create_launch_template(
            LaunchTemplateName=self.name, LaunchTemplateData={"ImageId": "ami-1", "InstanceType": "m7i.large"}
        )
        self.scaling_group(desired=1)
        self.balancer = self.load_balancer(self.name)
        self.listener()
        groups = aws.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=[self.name])
        self.group_arn = groups["AutoScalingGroups"][0]["AutoScalingGroupARN"]
        ecs.create_cluster(clusterName=self.name)
        self.provider()
        ecs.put_cluster_capacity_providers(
            cluster=self.name, capacityProviders=[self.name], defaultCapacityProviderStrategy=[]
        )
        ecs.register_task_definition(
            family=self.name, containerDefinitions=[{"name": "a", "image": "b", "memory": 128}]
        )
        self.service()
        self.queue = aws.queue()
        self.machine(DEFINITION)

    def security_group(self, name: str, description: str = "d") -> str:
        ec2 = self.client("ec2")
        return ec2.create_security_group(GroupName=name, Description=description, VpcId=self.vpc)["GroupId"]

    def rule(self, description: str) -> dict[str, Any]:
        pair = {"GroupId": self.referenced, "Description": description}
        return {"IpProtocol": "tcp", "FromPort": 8000, "ToPort": 8000, "UserIdGroupPairs": [pair]}

    def scaling_group(self, desired: int = 0) -> None:
        self.client("autoscaling").create_auto_scaling_group(
            AutoScalingGroupName=self.name,
            MinSize=0,
            MaxSize=2,
            DesiredCapacity=desired,
            LaunchTemplate={"LaunchTemplateName": self.name},
            VPCZoneIdentifier=self.subnet,
        )

    def load_balancer(self, name: str) -> str:
        made = self.client("elbv2").create_load_balancer(Name=name, Subnets=self.subnets, SecurityGroups=[self.group])
        return made["LoadBalancers"][0]["LoadBalancerArn"]

    def listener(self) -> None:
        answer = {"Type": "fixed-response", "FixedResponseConfig": {"StatusCode": "404"}}
        self.client("elbv2").create_listener(
            LoadBalancerArn=self.balancer, Port=80, Protocol="HTTP", DefaultActions=[answer]
        )

    def provider(self) -> None:
        group = {"autoScalingGroupArn": self.group_arn}
        self.client("ecs").create_capacity_provider(name=self.name, autoScalingGroupProvider=group)

    def service(self) -> None:
        self.client("ecs").create_service(
            cluster=self.name, serviceName=self.name, taskDefinition=self.name, desiredCount=0
        )

    def machine(self, definition: str) -> None:
        role = "arn:aws:iam::123456789012:role/any"
        self.client("stepfunctions").create_state_machine(name=self.name, definition=definition, roleArn=role)


@pytest.fixture(scope="module")
def made(aws: Any) -> Made:
    return Made(aws)


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda m: m.security_group("one", "vLLM's"), "InvalidParameterValue"),
        (lambda m: m.security_group("one", "d" * 256), "InvalidParameterValue"),
        (
            lambda m: m.client("ec2").authorize_security_group_ingress(
                GroupId=m.group, IpPermissions=[m.rule("the jobs' way in")]
            ),
            "InvalidParameterValue",
        ),
        (
            lambda m: m.client("ec2").authorize_security_group_egress(
                GroupId=m.group, IpPermissions=[m.rule("the jobs' way out")]
            ),
            "InvalidParameterValue",
        ),
        (lambda m: m.client("ec2").delete_security_group(GroupId=m.referenced), "DependencyViolation"),
        (lambda m: m.client("ec2").delete_security_group(GroupId=m.group), "DependencyViolation"),
        (lambda m: m.scaling_group(), "AlreadyExists"),
        (
            lambda m: m.client("autoscaling").delete_auto_scaling_group(AutoScalingGroupName=m.name),
            "ResourceInUse",
        ),
        (lambda m: m.load_balancer(m.name), "DuplicateLoadBalancerName"),
        (lambda m: m.load_balancer("l" * 33), "ValidationError"),
        (lambda m: m.listener(), "DuplicateListener"),
        (lambda m: m.provider(), "ClientException"),
        (
            lambda m: m.client("ecs").delete_capacity_provider(capacityProvider=m.name),
            "ResourceInUseException",
        ),
        (lambda m: m.service(), "InvalidParameterException"),
        (lambda m: m.client("ecs").delete_cluster(cluster=m.name), "ClusterContainsServicesException"),
        (lambda m: m.client("batch").delete_job_queue(jobQueue=m.queue), "ClientException"),
        (
            lambda m: m.client("batch").delete_compute_environment(computeEnvironment=m.queue),
            "ClientException",
        ),
        (lambda m: m.machine(OTHER_DEFINITION), "StateMachineAlreadyExists"),
    ],
)
def test_requests_that_aws_rejects_are_rejected(made: Made, call: Any, code: str):
    with pytest.raises(ClientError, match=rf"\({code}\)"):
        call(made)


def test_creating_the_same_state_machine_twice_is_allowed(made: Made):
    made.machine(DEFINITION)


def test_resources_that_are_no_longer_in_use_can_be_deleted(made: Made, aws: Any):
    batch, queue = aws.client("batch"), aws.queue()
    batch.update_job_queue(jobQueue=queue, state="DISABLED")
    batch.delete_job_queue(jobQueue=queue)
    batch.update_compute_environment(computeEnvironment=queue, state="DISABLED")
    batch.delete_compute_environment(computeEnvironment=queue)
    alone = made.security_group(f"{made.name}-alone", "vLLM load balancer: port 80, from (jobs)")
    aws.client("ec2").delete_security_group(GroupId=alone)
