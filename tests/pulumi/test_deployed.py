"""A deployed stack: a second deployment, the state in the engine, and the outputs that `ftm` reads."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pulumi
import pytest

from local.deploy import program
from local.deploy.program import Resource
from testing.pulumi_engine import ROOT, Engine, Stack
from testing.pulumi_provider.rules import describe
from testing.pulumi_provider.server import Provider
from tests.pulumi.conftest import Aws


def test_a_second_up_changes_nothing(deployed: Stack) -> None:
    assert not deployed.up().changed


def test_the_in_process_engine_registers_the_same_as_the_real_one(deployed: Stack, provider: Provider) -> None:
    registered = program.up("prod", Known(provider), root=deployed.folder).resources
    stored = [one for one in deployed.resources() if not one["type"].startswith("pulumi:")]
    quick, real = set(map(_describe_registered, registered)), set(map(_describe_stored, stored))
    assert quick - real == real - quick == set()
    assert len(registered) == len(stored)


@pytest.mark.parametrize(
    "stopped", ["vllm-service (aws:ecs/service:Service)", "vllm-asg (aws:autoscaling/group:Group)"]
)
def test_resources_that_gpu_instances_need_to_stop_are_deleted_after_them(deployed: Stack, stopped: str) -> None:
    """This must hold for any order that the engine chooses among independent resources."""
    needed = {
        "vllm-instance (aws:iam/rolePolicy:RolePolicy)",
        "vllm-instance (aws:iam/instanceProfile:InstanceProfile)",
        "vllm-instance-out (aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule)",
        "vllm-cluster (aws:ecs/cluster:Cluster)",
    }
    assert needed <= _dependencies(deployed.resources(), stopped)


def test_ftm_reads_the_outputs_with_the_pulumi_cli(deployed: Stack, engine: Engine, aws: Aws) -> None:
    keys = {"AWS_ENDPOINT_URL": aws.endpoint, "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
    environment = os.environ | engine.environment | keys
    command = [Path(sys.executable).with_name("ftm"), "--stack", "prod", "vllm", "status", "--json"]
    ended = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    status = json.loads(ended.stdout)
    assert (status["desired"], status["running"]) == (0, 0)


def _dependencies(resources: list[dict[str, Any]], name: str) -> set[str]:
    """The direct and indirect dependencies of a resource; the engine deletes all of them later."""
    direct = {one["urn"]: set(one.get("dependencies", [])) for one in resources}
    found: set[str] = set()
    left = {urn for urn in direct if describe(urn) == name}
    assert left
    while left:
        found |= left
        left = {urn for each in left for urn in direct[each]} - found
    return set(map(describe, found)) - {name}


class Known:
    """A cloud that returns the resources that the provider of the real engine created."""

    def __init__(self, provider: Provider) -> None:
        self._live = {(one.type, one.name): one for one in provider.live("prod")}
        self.invoke = provider.cloud.invoke

    def create(self, resource: Resource) -> tuple[str, dict[str, Any]]:
        made = self._live[resource.type, resource.name]
        return made.id, dict(made.outputs)


def _describe_registered(resource: Resource) -> str:
    return json.dumps(
        {
            "type": resource.type,
            "name": resource.name,
            "parent": resource.parent.split("::")[-1],
            "inputs": _plain_inputs(resource.inputs),
            "dependencies": sorted(urn.split("::")[-1] for urn in resource.depends_on),
            "protect": resource.protect,
            "retain": resource.retain_on_delete,
            "ignored": resource.ignore_changes,
        },
        sort_keys=True,
    )


def _describe_stored(resource: dict[str, Any]) -> str:
    return json.dumps(
        {
            "type": resource["type"],
            "name": resource["urn"].split("::")[-1],
            "parent": resource["parent"].split("::")[-1],
            "inputs": _plain_inputs(resource.get("inputs", {})),
            "dependencies": sorted(urn.split("::")[-1] for urn in resource.get("dependencies", [])),
            "protect": resource.get("protect", False),
            "retain": resource.get("retainOnDelete", False),
            "ignored": resource.get("ignoreChanges", []),
        },
        sort_keys=True,
    )


def _plain_inputs(value: Any) -> Any:
    """Inputs with secrets in plain text and archives replaced by the names of their files."""
    match value:
        case {"plaintext": secret}:
            return json.loads(secret)
        case pulumi.AssetArchive(assets=files) | {"assets": files}:
            return sorted(files)
        case dict():
            return {key: _plain_inputs(item) for key, item in value.items()}
        case list():
            return [_plain_inputs(item) for item in value]
        case _:
            return value
