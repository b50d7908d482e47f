"""The registered resources of the batch queue."""

import base64
import json
import re
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from typing import Any, cast

from testing.paper_cloud import ACCOUNT, LLM_API_KEY, REGION, VARIANTS, Deploy, Deployed


def container(deployed: Deployed) -> dict[str, Any]:
    return json.loads(deployed.one("batch/jobDefinition:JobDefinition")["containerProperties"])


def environment(deployed: Deployed) -> dict[str, str]:
    return {one["name"]: one["value"] for one in container(deployed)["environment"]}


def resources(deployed: Deployed) -> dict[str, str]:
    return {one["type"]: one["value"] for one in container(deployed)["resourceRequirements"]}


def test_jobs_run_on_spot_cpus_of_several_families_and_scale_to_zero(deploy: Deploy) -> None:
    deployed = deploy()
    compute = deployed.one("batch/computeEnvironment:ComputeEnvironment")["computeResources"]
    assert (compute["type"], compute["allocationStrategy"]) == ("SPOT", "SPOT_PRICE_CAPACITY_OPTIMIZED")
    assert compute["minVcpus"] == 0
    assert "desiredVcpus" not in compute
    assert len(compute["instanceTypes"]) == 8
    assert compute["ec2Configurations"] == [{"imageType": "ECS_AL2023"}]
    assert resources(deployed) == {"VCPU": "2", "MEMORY": "3500"}


def test_jobs_can_be_configured_to_run_on_gpus(deploy: Deploy) -> None:
    deployed = deploy(**VARIANTS["every option"])
    compute = deployed.one("batch/computeEnvironment:ComputeEnvironment", "batch")["computeResources"]
    assert compute["instanceTypes"] == ["g4dn", "g5"]
    assert compute["ec2Configurations"] == [{"imageType": "ECS_AL2023_NVIDIA"}]
    assert resources(deployed)["GPU"] == "1"


def test_a_running_job_survives_a_deployment(deploy: Deploy) -> None:
    deployed = deploy()
    environment = deployed.one("batch/computeEnvironment:ComputeEnvironment")
    assert environment["updatePolicy"]["terminateJobsOnUpdate"] is False
    assert "name" not in environment  # with a fixed name it could not be replaced while the queue uses it
    assert environment["namePrefix"] == "ftm-batch-"


def test_instances_are_hardened(deploy: Deploy) -> None:
    template = deploy().one("ec2/launchTemplate:LaunchTemplate", "batch")
    assert template["metadataOptions"]["httpTokens"] == "required"
    assert template["metadataOptions"]["httpPutResponseHopLimit"] == 1
    assert template["blockDeviceMappings"][0]["ebs"]["encrypted"] == "true"
    archive = message_from_bytes(base64.b64decode(template["userData"]))
    (script,) = cast(list[Message], archive.get_payload())
    assert "ECS_ENABLE_SPOT_INSTANCE_DRAINING=true" in str(script.get_payload())


def test_only_lost_hosts_failed_pulls_and_temporary_failures_are_retried(deploy: Deploy) -> None:
    strategy = deploy().one("batch/jobDefinition:JobDefinition")["retryStrategy"]
    assert strategy == {
        "attempts": 5,
        "evaluateOnExits": [
            {"action": "RETRY", "onStatusReason": "Host EC2*"},
            {"action": "RETRY", "onReason": "Cannot*"},
            {"action": "RETRY", "onReason": "DockerTimeoutError*"},
            {"action": "RETRY", "onExitCode": "75"},
            {"action": "EXIT", "onReason": "*"},
        ],
    }
    assert len(strategy["evaluateOnExits"]) <= 5  # Batch's limit


def test_an_attempt_has_a_timeout(deploy: Deploy) -> None:
    assert deploy().one("batch/jobDefinition:JobDefinition")["timeout"] == {"attemptDurationSeconds": 12 * 3600}


def test_a_job_that_can_never_run_is_cancelled(deploy: Deploy) -> None:
    actions = deploy().one("batch/jobQueue:JobQueue")["jobStateTimeLimitActions"]
    assert {action["reason"] for action in actions} == {
        "MISCONFIGURATION:COMPUTE_ENVIRONMENT_MAX_RESOURCE",
        "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT",
        "CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY",
    }
    assert all((action["state"], action["action"]) == ("RUNNABLE", "CANCEL") for action in actions)
    assert all(600 <= action["maxTimeSeconds"] <= 86_400 for action in actions)  # the values that Batch allows


def test_the_worker_gets_the_address_of_vllm(deploy: Deploy) -> None:
    deployed = deploy()
    assert environment(deployed) == {
        "AWS_DEFAULT_REGION": REGION,
        "CHECKPOINT_INTERVAL": "25",
        "LLM_BASE_URL": deployed.run.outputs["vllm_base_url"],
        "LLM_MODEL_NAME": "Qwen/Qwen3-8B",
        "LLM_MAX_CONCURRENT": "6",
    }


def test_the_worker_gets_the_embedding_model(deploy: Deploy) -> None:
    assert environment(deploy(**VARIANTS["every option"]))["TOPIC_EMBEDDING_MODEL"] == "all-MiniLM-L6-v2"


def test_without_vllm_the_worker_gets_only_the_key_of_an_llm(deploy: Deploy) -> None:
    deployed = deploy(**VARIANTS["vLLM disabled"])
    assert environment(deployed) == {"AWS_DEFAULT_REGION": REGION, "CHECKPOINT_INTERVAL": "25"}
    assert container(deployed)["secrets"] == [{"name": "LLM_API_KEY", "valueFrom": LLM_API_KEY}]
    assert "LLM_BASE_URL" not in str([resource.inputs for resource in deployed.custom])


def test_the_container_is_hardened(deploy: Deploy) -> None:
    worker = container(deploy())
    assert worker["privileged"] is False
    assert worker["readonlyRootFilesystem"] is True
    assert worker["command"] == ["python", "-m", "worker"]
    assert worker["jobRoleArn"] != worker["executionRoleArn"]


def test_the_repository_is_immutable_scanned_and_expires_old_images(deploy: Deploy) -> None:
    deployed = deploy(**VARIANTS["every option"])
    repository = deployed.one("ecr/repository:Repository")
    assert repository["imageTagMutability"] == "IMMUTABLE"
    assert repository["imageScanningConfiguration"] == {"scanOnPush": True}
    (rule,) = json.loads(deployed.one("ecr/lifecyclePolicy:LifecyclePolicy")["policy"])["rules"]
    assert rule["selection"]["countNumber"] == 10
    image = container(deployed)["image"]
    assert image == deployed.run.outputs["worker_image"] == f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/ftm-worker:v7"
    policy = json.loads(deployed.one("iam/rolePolicy:RolePolicy", "batch-execution")["policy"])
    assert [f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/ftm-worker"] in [one["Resource"] for one in policy["Statement"]]


def test_the_image_contains_the_worker_and_runs_without_root() -> None:
    text = (Path(__file__).parents[2] / "worker/Dockerfile").read_text()
    stages = text.split("FROM ")[1:]
    assert re.search(r"^ARG BASE=\S*-slim", text, re.MULTILINE)
    assert all(stage.startswith("${BASE}") for stage in stages)
    assert "USER 10001:10001" in stages[-1]
    assert "RUN" not in stages[-1]
    assert "pulumi" not in text.lower()


def test_jobs_without_a_spot_instance_may_run_on_demand_if_the_config_says_so(deploy: Deploy) -> None:
    deployed = deploy(**VARIANTS["every option"])
    spot, on_demand = (
        deployed.one("batch/computeEnvironment:ComputeEnvironment", name) for name in ("batch", "batch-on-demand")
    )
    assert (spot["computeResources"]["type"], on_demand["computeResources"]["type"]) == ("SPOT", "EC2")
    assert on_demand["computeResources"]["allocationStrategy"] == "BEST_FIT_PROGRESSIVE"
    orders = deployed.one("batch/jobQueue:JobQueue")["computeEnvironmentOrders"]
    assert [order["order"] for order in orders] == [1, 2]
    assert orders[1]["computeEnvironment"].endswith(":batch-on-demand")
    assert len(deploy().all("batch/computeEnvironment:ComputeEnvironment")) == 1
