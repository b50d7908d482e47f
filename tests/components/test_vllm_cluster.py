"""The registered resources of the vLLM cluster."""

import base64
import json
from typing import Any

import pytest

from components import vllm_cluster
from testing.paper_cloud import (
    CERTIFICATE,
    HUGGING_FACE_TOKEN,
    LLM_API_KEY,
    VARIANTS,
    Deploy,
    Deployed,
)

SPOT_NOTICE_SECONDS = 120


def container(deployed: Deployed) -> dict[str, Any]:
    (only,) = json.loads(deployed.one("ecs/taskDefinition:TaskDefinition")["containerDefinitions"])
    return only


def options(deployed: Deployed) -> dict[str, str]:
    """The command-line options of vLLM and their values."""
    command = container(deployed)["command"]
    return {
        word: following for word, following in zip(command, [*command[1:], ""], strict=True) if word.startswith("--")
    }


def test_vllm_has_the_options_that_naming_needs(deploy: Deploy) -> None:
    deployed = deploy()
    given = options(deployed)
    assert container(deployed)["command"][0] == "Qwen/Qwen3-8B"
    assert json.loads(given["--default-chat-template-kwargs"]) == {"enable_thinking": False}
    assert given["--max-model-len"] == "4096"
    assert given["--max-num-seqs"] == "256"
    assert given["--max-num-queued-reqs"] == "1024"
    assert given["--gpu-memory-utilization"] == "0.90"
    assert given["--dtype"] == "auto"
    assert given.keys() >= {"--disable-uvicorn-access-log", "--enable-prompt-tokens-details"}
    assert container(deployed)["image"] == "vllm/vllm-openai:v0.32.0"


@pytest.mark.parametrize(
    "gone", ["--disable-log-requests", "--enable-reasoning", "--guided-decoding-backend", "--swap-space"]
)
def test_no_option_was_removed_from_this_version_of_vllm(deploy: Deploy, gone: str) -> None:
    assert gone not in container(deploy())["command"]


def test_the_worker_requests_the_model_that_vllm_serves(deploy: Deploy) -> None:
    deployed = deploy(**VARIANTS["every option"])
    worker = json.loads(deployed.one("batch/jobDefinition:JobDefinition")["containerProperties"])
    environment = {one["name"]: one["value"] for one in worker["environment"]}
    assert options(deployed)["--served-model-name"] == environment["LLM_MODEL_NAME"] == "namer"


def test_a_gpu_without_bf16_uses_half_precision(deploy: Deploy) -> None:
    deployed = deploy(**VARIANTS["every option"])
    assert options(deployed)["--dtype"] == "half"


def test_shutdown_takes_less_than_the_spot_notice(deploy: Deploy) -> None:
    deployed = deploy()
    draining = deployed.one("lb/targetGroup:TargetGroup")["deregistrationDelay"]
    stopping = container(deployed)["stopTimeout"]
    assert int(options(deployed)["--shutdown-timeout"]) < stopping
    assert draining + stopping < SPOT_NOTICE_SECONDS


def test_the_container_is_hardened_and_its_caches_are_on_the_hosts_disk(deploy: Deploy) -> None:
    deployed = deploy()
    vllm = container(deployed)
    environment = {one["name"]: one["value"] for one in vllm["environment"]}
    assert vllm["user"] == "2000:0"
    assert vllm["readonlyRootFilesystem"] is True
    assert vllm["resourceRequirements"] == [{"type": "GPU", "value": "1"}]
    assert vllm["memory"] == 14 * 1024
    assert "privileged" not in vllm
    caches = [value for key, value in environment.items() if key.endswith(("_HOME", "_DIR", "_ROOT"))]
    assert len(caches) == 4
    (mount,) = vllm["mountPoints"]
    assert all(cache.startswith(mount["containerPath"]) for cache in caches)
    assert deployed.one("ecs/taskDefinition:TaskDefinition")["volumes"] == [
        {"name": mount["sourceVolume"], "hostPath": "/var/lib/vllm"}
    ]


def test_no_container_health_check_kills_a_loading_task(deploy: Deploy) -> None:
    deployed = deploy()
    assert "healthCheck" not in container(deployed)
    check = deployed.one("lb/targetGroup:TargetGroup")["healthCheck"]
    assert (check["path"], check["matcher"]) == ("/health", "200")
    assert deployed.one("ecs/service:Service")["healthCheckGracePeriodSeconds"] == 1800


def test_logs_go_to_cloudwatch_and_are_kept(deploy: Deploy) -> None:
    deployed = deploy()
    assert container(deployed)["logConfiguration"]["options"]["awslogs-group"] == "/ecs/ftm-vllm"
    assert deployed.one("cloudwatch/logGroup:LogGroup", "vllm")["retentionInDays"] == 365


def test_secrets_come_from_secrets_manager_and_never_from_the_environment(deploy: Deploy) -> None:
    deployed = deploy(**VARIANTS["every option"])
    secrets = {one["name"]: one["valueFrom"] for one in container(deployed)["secrets"]}
    assert secrets == {"HF_TOKEN": HUGGING_FACE_TOKEN, "VLLM_API_KEY": LLM_API_KEY}
    assert not {"HF_TOKEN", "VLLM_API_KEY"} & {one["name"] for one in container(deployed)["environment"]}
    policy = json.loads(deployed.one("iam/rolePolicy:RolePolicy", "vllm-execution")["policy"])
    assert {
        "Effect": "Allow",
        "Action": ["secretsmanager:GetSecretValue"],
        "Resource": [HUGGING_FACE_TOKEN, LLM_API_KEY],
    } in policy["Statement"]
    assert container(deploy())["secrets"] == []


def test_instances_are_spot_of_several_types_with_an_on_demand_floor_by_choice(deploy: Deploy) -> None:
    for variant, floor in (("default", 0), ("every option", 1)):
        policy = deploy(**VARIANTS[variant]).one("autoscaling/group:Group")["mixedInstancesPolicy"]
        assert policy["instancesDistribution"] == {
            "onDemandBaseCapacity": floor,
            "onDemandPercentageAboveBaseCapacity": 0,
            "onDemandAllocationStrategy": "prioritized",
            "spotAllocationStrategy": "price-capacity-optimized",
        }
        types = [one["instanceType"] for one in policy["launchTemplate"]["overrides"]]
        assert types == VARIANTS[variant].get(
            "vllmInstanceTypes", ["g6.xlarge", "g5.xlarge", "g6.2xlarge", "g5.2xlarge"]
        )


def test_a_deployment_never_changes_what_an_operator_scaled(deploy: Deploy) -> None:
    deployed = deploy()
    (group,) = deployed.all("autoscaling/group:Group")
    (service,) = deployed.all("ecs/service:Service")
    assert group.ignore_changes == ["desiredCapacity"]
    assert service.ignore_changes == ["desiredCount"]
    assert (group.inputs["minSize"], group.inputs["desiredCapacity"], service.inputs["desiredCount"]) == (0, 0, 0)
    provider = deployed.one("ecs/capacityProvider:CapacityProvider")["autoScalingGroupProvider"]
    assert provider["managedScaling"] == {"status": "DISABLED"}
    assert provider["managedTerminationProtection"] == "DISABLED"
    assert provider["managedDraining"] == "ENABLED"
    assert group.inputs["protectFromScaleIn"] is False
    assert group.inputs["capacityRebalance"] is False


def test_a_host_mode_task_stops_before_its_replacement_starts(deploy: Deploy) -> None:
    deployed = deploy()
    assert deployed.one("ecs/taskDefinition:TaskDefinition")["networkMode"] == "host"
    service = deployed.one("ecs/service:Service")
    assert (service["deploymentMinimumHealthyPercent"], service["deploymentMaximumPercent"]) == (0, 100)
    assert service["availabilityZoneRebalancing"] == "DISABLED"
    assert deployed.one("lb/targetGroup:TargetGroup")["targetType"] == "instance"


def test_an_instance_joins_drains_and_starts_warm(deploy: Deploy) -> None:
    template = deploy().one("ec2/launchTemplate:LaunchTemplate", "vllm")
    user_data = base64.b64decode(template["userData"]).decode()
    assert user_data.startswith("#!/bin/bash\n")
    for line in (
        "ECS_CLUSTER=ftm-vllm-cluster",
        "ECS_ENABLE_SPOT_INSTANCE_DRAINING=true",
        "ECS_IMAGE_PULL_BEHAVIOR=prefer-cached",
        "install -d -o 2000 -g 0 -m 0770 /var/lib/vllm",
    ):
        assert f"\n{line}\n" in user_data
    assert template["imageId"] == "ami-0123456789abcdef0"
    assert template["metadataOptions"] == {
        "httpEndpoint": "enabled",
        "httpTokens": "required",
        "httpPutResponseHopLimit": 1,
    }
    (disk,) = template["blockDeviceMappings"]
    assert disk["ebs"] == {
        "volumeType": "gp3",
        "volumeSize": 120,
        "throughput": 500,
        "iops": 4000,
        "encrypted": "true",
        "deleteOnTermination": "true",
    }


def test_the_load_balancer_is_internal_and_has_a_long_timeout(deploy: Deploy) -> None:
    deployed = deploy(**VARIANTS["everything given"])
    alb = deployed.one("lb/loadBalancer:LoadBalancer")
    assert alb["internal"] is True
    assert alb["idleTimeout"] == 300
    environment = {one["name"]: one["value"] for one in container(deployed)["environment"]}
    # The load balancer must be the one that closes an idle connection.
    assert int(environment["VLLM_HTTP_TIMEOUT_KEEP_ALIVE"]) > alb["idleTimeout"]
    assert alb["enableDeletionProtection"] is False  # `pulumi destroy` would fail halfway
    assert alb["accessLogs"] == {"bucket": "access-logs", "prefix": "ftm-vllm-alb", "enabled": True}
    target_group = deployed.one("lb/targetGroup:TargetGroup")
    assert target_group["loadBalancingAlgorithmType"] == "least_outstanding_requests"


def test_a_certificate_enables_https(deploy: Deploy) -> None:
    deployed = deploy(**VARIANTS["every option"])
    listener = deployed.one("lb/listener:Listener")
    assert (listener["protocol"], listener["port"]) == ("HTTPS", 443)
    assert listener["certificateArn"] == CERTIFICATE
    assert listener["sslPolicy"].startswith("ELBSecurityPolicy-TLS13")
    assert deployed.run.outputs["vllm_base_url"] == "https://vllm.example.com/v1"
    assert deployed.one("vpc/securityGroupIngressRule:SecurityGroupIngressRule", "batch-to-vllm")["toPort"] == 443


def test_the_base_url_is_published(deploy: Deploy) -> None:
    deployed = deploy("eu-west")
    parameter = deployed.one("ssm/parameter:Parameter", "vllm-base-url")
    assert parameter["name"] == "/ftm-eu-west/vllm/base_url"
    assert parameter["value"] == deployed.run.outputs["vllm_base_url"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_security_groups_allow_only_the_chain_from_jobs_to_vllm(deploy: Deploy, variant: str) -> None:
    deployed = deploy(**VARIANTS[variant])
    ingress = deployed.all("vpc/securityGroupIngressRule:SecurityGroupIngressRule")
    assert all("referencedSecurityGroupId" in rule.inputs for rule in ingress)
    assert not [
        group
        for group in deployed.all("ec2/securityGroup:SecurityGroup")
        if {"ingress", "egress"} & group.inputs.keys()
    ]
    if variant == "vLLM disabled":
        assert ingress == []
        return
    port = 443 if variant == "every option" else 80
    chain = {
        (rule.inputs["referencedSecurityGroupId"], rule.inputs["securityGroupId"], rule.inputs["toPort"])
        for rule in ingress
    }
    assert chain == {("batch-id", "vllm-alb-id", port), ("vllm-alb-id", "vllm-instance-id", vllm_cluster.PORT)}
    egress = deployed.all("vpc/securityGroupEgressRule:SecurityGroupEgressRule")
    beyond = [rule.inputs for rule in egress if "cidrIpv4" in rule.inputs]
    assert all((rule["ipProtocol"], rule["fromPort"], rule["toPort"]) == ("tcp", 443, 443) for rule in beyond)
    assert {(rule.inputs["securityGroupId"], rule.inputs.get("referencedSecurityGroupId")) for rule in egress} >= {
        ("batch-id", "vllm-alb-id"),
        ("vllm-alb-id", "vllm-instance-id"),
    }


def test_without_vllm_no_resource_of_it_exists(deploy: Deploy) -> None:
    deployed = deploy(**VARIANTS["vLLM disabled"])
    assert not [
        resource
        for resource in deployed.custom
        if resource.type.startswith(("aws:ecs/", "aws:lb/", "aws:autoscaling/"))
    ]
    assert not [key for key in deployed.run.outputs if key.startswith("vllm")]
