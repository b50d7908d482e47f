"""Every resource type that the embedded AWS supports, created by a program and read through the AWS API."""

import base64
import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pulumi
import pytest

from local.deploy import program
from local.deploy.resources import EmbeddedCloud
from local.deploy.resources.stepfunctions import zip_archive
from local.state import REGION, LocalError

CATALOGUE = """
import json
import pulumi, pulumi_aws as aws

role_document = json.dumps({"Version": "2012-10-17", "Statement": [
    {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}]})
policy = json.dumps({"Version": "2012-10-17", "Statement": [
    {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::calls/*"}]})
tags = {"Project": "ftm"}

me = aws.get_caller_identity()
subnets = aws.ec2.get_subnets(filters=[aws.ec2.GetSubnetsFilterArgs(name="default-for-az", values=["true"])])
vpc = aws.ec2.get_subnet(id=subnets.ids[0]).vpc_id
ami = aws.ssm.get_parameter(name="/aws/service/ecs/optimized-ami/amazon-linux-2023/gpu/recommended/image_id")

bucket = aws.s3.Bucket("calls", bucket="calls", force_destroy=True, tags=tags)
aws.s3.BucketVersioning("calls", bucket=bucket.bucket, versioning_configuration={"status": "Enabled"})
aws.s3.BucketServerSideEncryptionConfiguration("calls", bucket=bucket.bucket, rules=[
    {"apply_server_side_encryption_by_default": {"sse_algorithm": "aws:kms"}, "bucket_key_enabled": True}])
aws.s3.BucketPublicAccessBlock("calls", bucket=bucket.bucket, block_public_acls=True, block_public_policy=True,
    ignore_public_acls=True, restrict_public_buckets=True)
aws.s3.BucketLifecycleConfiguration("calls", bucket=bucket.bucket, rules=[
    {"id": "forget", "status": "Enabled", "filter": {"prefix": ""},
     "noncurrent_version_expiration": {"noncurrent_days": 30}}])
tls_only = {"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": ["arn:aws:s3:::calls/*"],
    "Condition": {"Bool": {"aws:SecureTransport": "false"}}}
aws.s3.BucketPolicy("calls", bucket=bucket.bucket,
    policy=json.dumps({"Version": "2012-10-17", "Statement": [tls_only]}))

role = aws.iam.Role("role", name="role", assume_role_policy=role_document, tags=tags)
aws.iam.RolePolicy("role", role=role.name, name="read", policy=policy)
profile = aws.iam.InstanceProfile("profile", name="profile", role=role.name)

alb_group = aws.ec2.SecurityGroup("alb", name="alb", vpc_id=vpc, tags=tags)
gpu_group = aws.ec2.SecurityGroup("gpu", vpc_id=vpc)
aws.vpc.SecurityGroupIngressRule("gpu", security_group_id=gpu_group.id, ip_protocol="tcp", from_port=8000,
    to_port=8000, referenced_security_group_id=alb_group.id, tags=tags)
aws.vpc.SecurityGroupEgressRule("gpu", security_group_id=gpu_group.id, ip_protocol="tcp", from_port=443, to_port=443,
    cidr_ipv4="0.0.0.0/0", description="out")
template = aws.ec2.LaunchTemplate("gpu", name="gpu", image_id=ami.value, user_data="IyEvYmluL3No",
    iam_instance_profile={"arn": profile.arn}, vpc_security_group_ids=[gpu_group.id],
    metadata_options={"http_tokens": "required", "http_put_response_hop_limit": 1},
    block_device_mappings=[{"device_name": "/dev/xvda",
        "ebs": {"encrypted": "true", "volume_size": 100, "volume_type": "gp3", "throughput": 500}}],
    tag_specifications=[{"resource_type": "instance", "tags": tags}], update_default_version=True, tags=tags)
group = aws.autoscaling.Group("gpu", name="gpu", min_size=0, max_size=2, desired_capacity=0,
    vpc_zone_identifiers=subnets.ids, capacity_rebalance=True, protect_from_scale_in=False,
    wait_for_capacity_timeout="0", health_check_grace_period=600,
    mixed_instances_policy={
        "launch_template": {
            "launch_template_specification": {"launch_template_id": template.id, "version": "$Latest"},
            "overrides": [{"instance_type": "g6.xlarge"}, {"instance_type": "g5.xlarge"}]},
        "instances_distribution": {"on_demand_base_capacity": 1, "on_demand_percentage_above_base_capacity": 0,
            "spot_allocation_strategy": "price-capacity-optimized"}},
    tags=[{"key": "Name", "value": "gpu", "propagate_at_launch": True}])
off = aws.autoscaling.Policy("off", autoscaling_group_name=group.name, adjustment_type="ExactCapacity",
    scaling_adjustment=0)

cluster = aws.ecs.Cluster("vllm", name="vllm", settings=[{"name": "containerInsights", "value": "enabled"}], tags=tags)
provider = aws.ecs.CapacityProvider("vllm", name="vllm", auto_scaling_group_provider={
    "auto_scaling_group_arn": group.arn, "managed_scaling": {"status": "DISABLED"},
    "managed_termination_protection": "DISABLED", "managed_draining": "ENABLED"})
aws.ecs.ClusterCapacityProviders("vllm", cluster_name=cluster.name, capacity_providers=[provider.name],
    default_capacity_provider_strategies=[{"capacity_provider": provider.name, "weight": 1}])
task = aws.ecs.TaskDefinition("vllm", family="vllm", network_mode="host", requires_compatibilities=["EC2"],
    task_role_arn=role.arn, execution_role_arn=role.arn, volumes=[{"name": "cache", "host_path": "/var/cache"}],
    container_definitions=json.dumps([{"name": "vllm", "image": "vllm/vllm-openai:v1", "memory": 1024,
        "command": ["Qwen/Qwen3-8B", "--max-model-len", "4096"]}]), tags=tags)
alb = aws.lb.LoadBalancer("alb", name="alb", internal=True, load_balancer_type="application", subnets=subnets.ids,
    security_groups=[alb_group.id], idle_timeout=300, drop_invalid_header_fields=True,
    enable_deletion_protection=False, tags=tags)
targets = aws.lb.TargetGroup("vllm", name="vllm", port=8000, protocol="HTTP", target_type="instance", vpc_id=vpc,
    deregistration_delay=45, load_balancing_algorithm_type="least_outstanding_requests",
    health_check={"path": "/health", "matcher": "200", "interval": 15, "timeout": 5, "healthy_threshold": 2})
listener = aws.lb.Listener("http", load_balancer_arn=alb.arn, port=80, protocol="HTTP",
    default_actions=[{"type": "forward", "target_group_arn": targets.arn}])
service = aws.ecs.Service("vllm", name="vllm", cluster=cluster.arn, task_definition=task.arn, desired_count=0,
    capacity_provider_strategies=[{"capacity_provider": provider.name, "weight": 1}],
    deployment_minimum_healthy_percent=0, deployment_maximum_percent=100, health_check_grace_period_seconds=1800,
    load_balancers=[{"target_group_arn": targets.arn, "container_name": "vllm", "container_port": 8000}],
    wait_for_steady_state=False, enable_ecs_managed_tags=True, propagate_tags="SERVICE",
    opts=pulumi.ResourceOptions(depends_on=[listener]))

logs = aws.cloudwatch.LogGroup("batch", name="/aws/batch/ftm", retention_in_days=30, tags=tags)
environment = aws.batch.ComputeEnvironment("cpu", name_prefix="cpu-", type="MANAGED", compute_resources={
    "type": "SPOT", "allocation_strategy": "SPOT_PRICE_CAPACITY_OPTIMIZED", "min_vcpus": 0, "max_vcpus": 4,
    "instance_types": ["c7i", "m7i"], "subnets": subnets.ids, "security_group_ids": [gpu_group.id],
    "instance_role": profile.arn, "tags": tags})
queue = aws.batch.JobQueue("jobs", name="jobs", priority=1, state="ENABLED",
    compute_environment_orders=[{"order": 1, "compute_environment": environment.arn}],
    job_state_time_limit_actions=[{"action": "CANCEL", "max_time_seconds": 3600, "state": "RUNNABLE",
        "reason": "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT"}])
definition = aws.batch.JobDefinition("worker", name="worker", type="container", platform_capabilities=["EC2"],
    container_properties=json.dumps({"image": "worker:1", "command": ["python", "-m", "worker"],
        "resourceRequirements": [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "512"}]}),
    retry_strategy={"attempts": 3, "evaluate_on_exits": [{"action": "RETRY", "on_status_reason": "Host EC2*"},
        {"action": "EXIT", "on_reason": "*"}]},
    timeout={"attempt_duration_seconds": 600}, propagate_tags=True, tags=tags)

topic = aws.sns.Topic("done", name="done", tags=tags)
aws.sns.TopicPolicy("done", arn=topic.arn, policy=policy)
aws.sns.TopicSubscription("done", topic=topic.arn, protocol="email", endpoint="someone@example.com")
function = aws.lambda_.Function("check", name="check", role=role.arn, runtime="python3.13", handler="check.handler",
    architectures=["arm64"], timeout=30, memory_size=256, tracing_config={"mode": "Active"},
    environment={"variables": {"LEVEL": "info"}}, logging_config={"log_format": "JSON", "log_group": logs.name},
    code=pulumi.AssetArchive({"check.py": pulumi.StringAsset("def handler(event, context): return event")}), tags=tags)
machine = aws.sfn.StateMachine("quarter", name="quarter", role_arn=role.arn, type="STANDARD",
    definition=json.dumps({"StartAt": "Done", "States": {"Done": {"Type": "Succeed"}}}),
    logging_configuration={"level": "ALL", "include_execution_data": False,
        "log_destination": pulumi.Output.concat(logs.arn, ":*")},
    tracing_configuration={"enabled": True}, tags=tags)
parameter = aws.ssm.Parameter("url", name="/ftm/vllm/base_url", type="String",
    value=pulumi.Output.concat("http://", alb.dns_name, "/v1"))
repository = aws.ecr.Repository("worker", name="worker", image_tag_mutability="IMMUTABLE",
    image_scanning_configuration={"scan_on_push": True}, encryption_configurations=[{"encryption_type": "KMS"}])
aws.ecr.LifecyclePolicy("worker", repository=repository.name, policy=json.dumps({"rules": [{"rulePriority": 1,
    "selection": {"tagStatus": "untagged", "countType": "imageCountMoreThan", "countNumber": 5},
    "action": {"type": "expire"}}]}))

aws.cloudwatch.MetricAlarm("failed", name="failed", namespace="AWS/States", metric_name="ExecutionsFailed",
    statistic="Sum", period=300, evaluation_periods=1, threshold=1,
    comparison_operator="GreaterThanOrEqualToThreshold", dimensions={"StateMachineArn": machine.arn},
    alarm_actions=[topic.arn, off.arn], treat_missing_data="notBreaching", tags=tags)
aws.cloudwatch.MetricAlarm("idle", name="idle", evaluation_periods=1, threshold=0,
    comparison_operator="LessThanOrEqualToThreshold", metric_queries=[
        {"id": "n", "expression": "FILL(m, 0)", "return_data": True},
        {"id": "m", "metric": {"namespace": "AWS/ApplicationELB", "metric_name": "RequestCount", "period": 60,
            "stat": "Sum", "dimensions": {"LoadBalancer": alb.arn_suffix}}}])
aws.cloudwatch.Dashboard("ftm", dashboard_name="ftm", dashboard_body=json.dumps({"widgets": []}))
aws.budgets.Budget("month", name="month", budget_type="COST", time_unit="MONTHLY", limit_amount="50",
    limit_unit="USD", notifications=[{"comparison_operator": "GREATER_THAN", "threshold": 80,
        "threshold_type": "PERCENTAGE", "notification_type": "ACTUAL",
        "subscriber_email_addresses": ["someone@example.com"]}])

for name, value in {
    "account": me.account_id, "vpc": vpc, "ami": ami.value, "bucket": bucket.arn, "dns": alb.dns_name,
    "template": template.latest_version, "prefix": definition.arn_prefix, "revision": definition.revision,
    "environment": environment.name, "queue": queue.arn, "group": group.arn, "cluster": cluster.arn,
    "service": service.id, "task": task.arn, "targets": targets.arn, "suffix": targets.arn_suffix,
    "function": function.arn, "machine": machine.arn, "topic": topic.arn, "parameter": parameter.arn,
    "repository": repository.repository_url, "logs": logs.arn, "profile": profile.arn, "role": role.arn,
    "off": off.arn,
}.items():
    pulumi.export(name, value)
"""


@pytest.fixture(scope="module")
def cloud(aws: Any) -> EmbeddedCloud:
    return EmbeddedCloud(aws.embedded.endpoint, REGION, "127.0.0.1:4000")


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory, cloud: EmbeddedCloud) -> program.Run:
    return program.up("local", cloud, root=write_program(tmp_path_factory.mktemp("catalogue"), CATALOGUE))


def write_program(root: Path, source: str) -> Path:
    (root / "Pulumi.yaml").write_text("name: ftm\nruntime: python\n")
    (root / "Pulumi.local.yaml").write_text("config: {}\n")
    (root / "__main__.py").write_text(source)
    return root


def test_every_output_that_the_program_reads_is_known(deployed: program.Run):
    assert len(deployed.outputs) == 25
    assert all(deployed.outputs.values()), deployed.outputs
    assert deployed.outputs["account"] == "123456789012"
    assert deployed.outputs["ami"].startswith("ami-")
    assert deployed.outputs["prefix"].endswith(":job-definition/worker")


def test_every_load_balancer_has_the_address_of_the_local_server(deployed: program.Run, aws: Any):
    assert deployed.outputs["dns"] == "127.0.0.1:4000"
    found = aws.client("ssm").get_parameter(Name="/ftm/vllm/base_url")
    assert found["Parameter"]["Value"] == "http://127.0.0.1:4000/v1"


def test_the_bucket_is_as_configured_and_usable_over_the_loopback(deployed: program.Run, aws: Any):
    s3 = aws.client("s3")
    assert s3.get_bucket_versioning(Bucket="calls")["Status"] == "Enabled"
    rule = s3.get_bucket_encryption(Bucket="calls")["ServerSideEncryptionConfiguration"]["Rules"][0]
    assert rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "aws:kms"
    blocked = s3.get_public_access_block(Bucket="calls")["PublicAccessBlockConfiguration"]
    assert list(blocked.values()) == [True] * 4
    rules = s3.get_bucket_lifecycle_configuration(Bucket="calls")["Rules"]
    assert rules[0]["NoncurrentVersionExpiration"] == {"NoncurrentDays": 30}
    assert s3.get_bucket_tagging(Bucket="calls")["TagSet"] == [{"Key": "Project", "Value": "ftm"}]
    statements = json.loads(s3.get_bucket_policy(Bucket="calls")["Policy"])["Statement"]
    assert [statement["Condition"] for statement in statements] == [{"Bool": {"aws:SecureTransport": "false"}}]
    s3.put_object(Bucket="calls", Key="a", Body=b"1")
    assert s3.get_object(Bucket="calls", Key="a")["Body"].read() == b"1"


def test_security_groups_have_only_the_rules_of_the_program(deployed: program.Run, aws: Any):
    groups = aws.client("ec2").describe_security_groups()["SecurityGroups"]
    alb = next(group for group in groups if group["GroupName"] == "alb")
    gpu = next(group for group in groups if group["GroupName"].startswith("gpu-"))
    assert (alb["IpPermissions"], alb["IpPermissionsEgress"]) == ([], [])
    rule = gpu["IpPermissions"][0]
    assert (rule["FromPort"], rule["UserIdGroupPairs"][0]["GroupId"]) == (8000, alb["GroupId"])
    assert [rule["IpRanges"] for rule in gpu["IpPermissionsEgress"]] == [
        [{"CidrIp": "0.0.0.0/0", "Description": "out"}]
    ]


def test_the_launch_template_is_as_in_the_program(deployed: program.Run, aws: Any):
    versions = aws.client("ec2").describe_launch_template_versions(LaunchTemplateName="gpu", Versions=["$Latest"])
    data = versions["LaunchTemplateVersions"][0]["LaunchTemplateData"]
    assert data["ImageId"] == deployed.outputs["ami"]
    assert data["UserData"] == "IyEvYmluL3No"
    assert data["MetadataOptions"] == {"HttpTokens": "required", "HttpPutResponseHopLimit": 1}
    disk = {"Encrypted": True, "VolumeSize": 100, "VolumeType": "gp3", "Throughput": 500}
    assert data["BlockDeviceMappings"][0]["Ebs"] == disk
    assert len(data["SecurityGroupIds"]) == 1


def test_the_group_mixes_instance_types_and_starts_at_zero(deployed: program.Run, aws: Any):
    found = aws.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=["gpu"])
    group = found["AutoScalingGroups"][0]
    assert (group["MinSize"], group["DesiredCapacity"], group["MaxSize"]) == (0, 0, 2)
    policy = group["MixedInstancesPolicy"]
    assert policy["InstancesDistribution"]["OnDemandBaseCapacity"] == 1
    types = [override["InstanceType"] for override in policy["LaunchTemplate"]["Overrides"]]
    assert types == ["g6.xlarge", "g5.xlarge"]


def test_the_service_runs_on_the_group_behind_the_target_group(deployed: program.Run, aws: Any):
    ecs = aws.client("ecs")
    service = ecs.describe_services(cluster="vllm", services=["vllm"])["services"][0]
    assert service["loadBalancers"][0]["targetGroupArn"] == deployed.outputs["targets"]
    assert service["desiredCount"] == 0
    task = ecs.describe_task_definition(taskDefinition="vllm")["taskDefinition"]
    assert task["networkMode"] == "host"
    assert task["volumes"] == [{"name": "cache", "host": {"sourcePath": "/var/cache"}}]
    assert task["containerDefinitions"][0]["command"] == ["Qwen/Qwen3-8B", "--max-model-len", "4096"]
    elb = aws.client("elbv2")
    group = elb.describe_target_groups(TargetGroupArns=[deployed.outputs["targets"]])["TargetGroups"][0]
    assert (group["HealthCheckPath"], group["Matcher"]) == ("/health", {"HttpCode": "200"})
    attributes = elb.describe_target_group_attributes(TargetGroupArn=group["TargetGroupArn"])["Attributes"]
    assert {"Key": "load_balancing.algorithm.type", "Value": "least_outstanding_requests"} in attributes


def test_batch_resources_keep_retries_timeout_and_command(deployed: program.Run, aws: Any):
    found = aws.client("batch").describe_job_definitions(jobDefinitionName="worker")["jobDefinitions"][0]
    assert found["retryStrategy"]["attempts"] == 3
    assert found["retryStrategy"]["evaluateOnExit"][0]["onStatusReason"] == "Host EC2*"
    assert found["timeout"] == {"attemptDurationSeconds": 600}
    assert found["containerProperties"]["command"] == ["python", "-m", "worker"]
    queue = aws.client("batch").describe_job_queues(jobQueues=["jobs"])["jobQueues"][0]
    assert queue["computeEnvironmentOrder"][0]["computeEnvironment"].endswith(deployed.outputs["environment"])


def test_the_function_has_its_code_and_environment(deployed: program.Run, aws: Any):
    found = aws.client("lambda").get_function(FunctionName="check")["Configuration"]
    assert (found["MemorySize"], found["Timeout"], found["Runtime"]) == (256, 30, "python3.13")
    assert found["Environment"]["Variables"] == {"LEVEL": "info"}
    source = pulumi.StringAsset("def handler(event, context): return event")
    code = zip_archive(pulumi.AssetArchive({"check.py": source}))
    assert found["CodeSha256"] == base64.b64encode(hashlib.sha256(code).digest()).decode()


def test_alarms_and_budget_are_stored(deployed: program.Run, aws: Any):
    alarms = {alarm["AlarmName"]: alarm for alarm in aws.client("cloudwatch").describe_alarms()["MetricAlarms"]}
    assert alarms["failed"]["AlarmActions"] == [deployed.outputs["topic"], deployed.outputs["off"]]
    assert alarms["failed"]["Dimensions"] == [{"Name": "StateMachineArn", "Value": deployed.outputs["machine"]}]
    assert [query["Id"] for query in alarms["idle"]["Metrics"]] == ["n", "m"]
    budget = aws.client("budgets").describe_budget(AccountId="123456789012", BudgetName="month")["Budget"]
    assert float(budget["BudgetLimit"]["Amount"]) == 50


def test_an_archive_is_deterministic_and_sorted(tmp_path: Path):
    for name in ("b.py", "a.py"):
        (tmp_path / name).write_text(f"# {name}")
    assets: dict[str, Any] = {
        "pkg/b.py": pulumi.FileAsset(str(tmp_path / "b.py")),
        "pkg/a.py": pulumi.FileAsset(str(tmp_path / "a.py")),
        "dir": pulumi.FileArchive(str(tmp_path)),
    }
    packed = zip_archive(pulumi.AssetArchive(assets))
    (tmp_path / "a.py").touch()
    assert packed == zip_archive(pulumi.AssetArchive(dict(reversed(assets.items()))))
    with zipfile.ZipFile(io.BytesIO(packed)) as bundle:
        assert bundle.namelist() == ["dir/a.py", "dir/b.py", "pkg/a.py", "pkg/b.py"]


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (
            "aws.sqs.Queue('letters')",
            r"could not create letters \(aws:sqs/queue:Queue\): the embedded AWS does not support aws:sqs/queue:Queue",
        ),
        (
            "aws.ecs.Cluster('c', region='mars')",
            r"create c \(aws:ecs/cluster:Cluster\): ecs:CreateCluster has no parameter for the input 'region'",
        ),
        (
            "aws.iam.RolePolicy('p', role='nobody', policy='{}')",
            r"could not create p \(aws:iam/rolePolicy:RolePolicy\): .*\(NoSuchEntity\)",
        ),
        (
            "aws.s3.Bucket.get('old', 'old-bucket')",
            r"old \(aws:s3/bucket:Bucket\): .* does not read existing resources",
        ),
        ("aws.ec2.get_subnet(id='subnet-1')", r"aws:ec2/getSubnet:getSubnet: .*subnet-1"),
        ("aws.kms.get_key(key_id='k')", r"aws:kms/getKey:getKey: the embedded AWS does not support this data source"),
    ],
)
def test_unsupported_or_rejected_resources_are_reported_in_one_sentence(
    tmp_path: Path, cloud: EmbeddedCloud, source: str, sentence: str
):
    root = write_program(tmp_path, f"import pulumi_aws as aws\n{source}\n")
    with pytest.raises(LocalError, match=sentence) as error:
        program.up("local", cloud, root=root)
    assert "\n" not in str(error.value)
