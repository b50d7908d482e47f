"""ECS services follow the instances of their Auto Scaling group, and load balancer targets follow the services."""

import uuid

import pytest


class Service:
    """A service behind a target group, with one task per instance and at most two instances."""

    def __init__(self, aws):
        self.ecs, self.elb, self.scaling = (aws.client(name) for name in ("ecs", "elbv2", "autoscaling"))
        self.name = f"s-{uuid.uuid4().hex[:8]}"
        subnet = aws.client("ec2").describe_subnets()["Subnets"][0]
        self.scaling.create_launch_configuration(
            LaunchConfigurationName=self.name, ImageId="ami-12c6146b", InstanceType="g5.xlarge"
        )
        self.scaling.create_auto_scaling_group(
            AutoScalingGroupName=self.name,
            LaunchConfigurationName=self.name,
            MinSize=0,
            MaxSize=2,
            VPCZoneIdentifier=subnet["SubnetId"],
        )
        group = self.scaling.describe_auto_scaling_groups(AutoScalingGroupNames=[self.name])["AutoScalingGroups"][0]
        provider = {"autoScalingGroupArn": group["AutoScalingGroupARN"]}
        self.ecs.create_capacity_provider(name=self.name, autoScalingGroupProvider=provider)
        self.ecs.create_cluster(clusterName=self.name, capacityProviders=[self.name])
        self.target_group = self.elb.create_target_group(
            Name=self.name, Protocol="HTTP", Port=8000, VpcId=subnet["VpcId"], TargetType="instance"
        )["TargetGroups"][0]["TargetGroupArn"]
        container = {"name": "vllm", "image": "vllm", "memory": 128}
        self.ecs.register_task_definition(family=self.name, containerDefinitions=[container])
        self.ecs.create_service(
            cluster=self.name,
            serviceName=self.name,
            taskDefinition=self.name,
            desiredCount=0,
            loadBalancers=[{"targetGroupArn": self.target_group, "containerName": "vllm", "containerPort": 8000}],
        )

    def scale(self, instances, tasks):
        self.scaling.set_desired_capacity(AutoScalingGroupName=self.name, DesiredCapacity=instances)
        self.ecs.update_service(cluster=self.name, service=self.name, desiredCount=tasks)

    def counts(self):
        """The numbers of running tasks, pending tasks and healthy targets."""
        service = self.ecs.describe_services(cluster=self.name, services=[self.name])["services"][0]
        health = self.elb.describe_target_health(TargetGroupArn=self.target_group)["TargetHealthDescriptions"]
        healthy = [target for target in health if target["TargetHealth"]["State"] == "healthy"]
        assert all(target["Target"]["Port"] == 8000 for target in healthy)
        return service["runningCount"], service["pendingCount"], len(healthy)


@pytest.fixture
def service(aws):
    return Service(aws)


def test_tasks_start_only_when_both_instances_and_tasks_are_scaled_up(service):
    assert service.counts() == (0, 0, 0)
    service.scale(instances=0, tasks=1)
    assert service.counts() == (0, 1, 0)
    service.scale(instances=2, tasks=1)
    assert service.counts() == (1, 0, 1)
    service.scale(instances=2, tasks=2)
    assert service.counts() == (2, 0, 2)
    service.scale(instances=1, tasks=2)
    assert service.counts() == (1, 1, 1)
    service.scale(instances=0, tasks=0)
    assert service.counts() == (0, 0, 0)


def test_a_capacity_above_the_maximum_is_rejected(service):
    with pytest.raises(service.scaling.exceptions.ClientError, match="above max value 2"):
        service.scale(instances=3, tasks=1)
    assert service.counts() == (0, 0, 0)
