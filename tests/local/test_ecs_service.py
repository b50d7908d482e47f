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


def test_container_instances_follow_the_group_and_show_which_runs_a_task(service):
    def tasks():
        arns = service.ecs.list_container_instances(cluster=service.name)["containerInstanceArns"]
        found = service.ecs.describe_container_instances(cluster=service.name, containerInstances=arns)
        return {one["ec2InstanceId"]: one["runningTasksCount"] for one in found["containerInstances"]}

    service.scale(instances=2, tasks=1)
    held = tasks()
    assert sorted(held.values()) == [0, 1]
    (idle,) = [instance for instance, count in held.items() if not count]
    service.scaling.terminate_instance_in_auto_scaling_group(InstanceId=idle, ShouldDecrementDesiredCapacity=True)
    assert tasks() == {instance: count for instance, count in held.items() if count}
    assert service.counts() == (1, 0, 1)


def test_a_group_keeps_what_an_update_of_its_policy_does_not_mention(stack_of_mixed_instances):
    scaling, name = stack_of_mixed_instances
    update = {"InstancesDistribution": {"OnDemandBaseCapacity": 1}}
    scaling.update_auto_scaling_group(AutoScalingGroupName=name, MixedInstancesPolicy=update)
    (group,) = scaling.describe_auto_scaling_groups(AutoScalingGroupNames=[name])["AutoScalingGroups"]
    policy = group["MixedInstancesPolicy"]
    assert policy["InstancesDistribution"]["OnDemandBaseCapacity"] == 1
    assert policy["InstancesDistribution"]["OnDemandPercentageAboveBaseCapacity"] == 0
    assert policy["LaunchTemplate"]["Overrides"] == [{"InstanceType": "g6.xlarge"}]


def test_instances_above_the_on_demand_base_are_spot_instances_of_the_policys_type(aws, stack_of_mixed_instances):
    scaling, name = stack_of_mixed_instances

    def scale(size, base):
        policy = {"InstancesDistribution": {"OnDemandBaseCapacity": base}}
        scaling.update_auto_scaling_group(AutoScalingGroupName=name, MixedInstancesPolicy=policy)
        scaling.set_desired_capacity(AutoScalingGroupName=name, DesiredCapacity=size)
        (group,) = scaling.describe_auto_scaling_groups(AutoScalingGroupNames=[name])["AutoScalingGroups"]
        assert all(member["InstanceType"] == "g6.xlarge" for member in group["Instances"])
        ids = [member["InstanceId"] for member in group["Instances"]]
        found = [
            one
            for each in aws.client("ec2").describe_instances(InstanceIds=ids)["Reservations"]
            for one in each["Instances"]
        ]
        assert all(one["InstanceType"] == "g6.xlarge" for one in found)
        return sorted(one.get("InstanceLifecycle", "on-demand") for one in found)

    assert scale(1, base=0) == ["spot"]
    assert scale(2, base=1) == ["on-demand", "spot"]


@pytest.fixture
def stack_of_mixed_instances(aws):
    name = f"mixed-{uuid.uuid4().hex[:8]}"
    data = {"ImageId": "ami-12c6146b", "InstanceType": "g6.xlarge"}
    aws.client("ec2").create_launch_template(LaunchTemplateName=name, LaunchTemplateData=data)
    scaling = aws.client("autoscaling")
    scaling.create_auto_scaling_group(
        AutoScalingGroupName=name,
        MinSize=0,
        MaxSize=2,
        AvailabilityZones=["us-east-1a"],
        MixedInstancesPolicy={
            "LaunchTemplate": {
                "LaunchTemplateSpecification": {"LaunchTemplateName": name, "Version": "1"},
                "Overrides": [{"InstanceType": "g6.xlarge"}],
            },
            "InstancesDistribution": {"OnDemandBaseCapacity": 0, "OnDemandPercentageAboveBaseCapacity": 0},
        },
    )
    return scaling, name
