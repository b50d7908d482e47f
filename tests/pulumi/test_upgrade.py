"""Upgrading a stack from the last release to this version replaces or deletes nothing that has data or a fixed name."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local.emulator.aws import EmbeddedAws
from testing import release_state
from testing.pulumi_engine import Engine, Stack
from testing.pulumi_provider.server import Provider
from tests.pulumi.conftest import Aws

RELEASES = Path(__file__).parent / "releases"

REVISED = "aws:ecs/taskDefinition:TaskDefinition"
"""Every change of a task definition creates a new revision."""


@pytest.fixture
def empty_account() -> Iterator[Aws]:
    """A new account, in which no other test has deployed a stack."""
    embedded = EmbeddedAws.start()
    yield Aws(embedded)
    embedded.stop()


@pytest.fixture
def released(empty_account: Aws, tmp_path: Path) -> Iterator[Stack]:
    """A stack of the last release: its state, and those of its resources that the program looks up in the account."""
    newest = max(RELEASES.glob("*.json"), key=lambda file: [int(part) for part in file.stem.split(".")])
    resources = release_state.read(newest, release_state.network(empty_account.endpoint))
    for resource in resources:
        if create := CREATED.get(resource["type"]):
            create(empty_account, resource["inputs"])
    provider = Provider(empty_account.endpoint)
    stack = Engine(tmp_path, provider.port).stack(release_state.STACK, {})
    stack.load(resources)
    yield stack
    provider.stop()


def test_an_upgrade_from_the_last_release_keeps_data_and_fixed_names(released: Stack) -> None:
    steps = released.preview()
    print({operation: sorted(resources) for operation, resources in steps.by_operation.items()})
    assert {one for one in steps.of("replace") if REVISED not in one} == set()
    assert {one for one in steps.of("delete") if "aws:iam/" not in one} == set()


def create_bucket(aws: Aws, inputs: dict[str, Any]) -> None:
    aws.client("s3").create_bucket(Bucket=inputs["bucket"])
    aws.client("s3").put_object(Bucket=inputs["bucket"], Key="prefetch/one", Body=b"data")


def create_repository(aws: Aws, inputs: dict[str, Any]) -> None:
    tags = [{"Key": key, "Value": value} for key, value in inputs["tags"].items()]
    aws.client("ecr").create_repository(repositoryName=inputs["name"], tags=tags)


def create_security_group(aws: Aws, inputs: dict[str, Any]) -> None:
    tags = [{"Key": key, "Value": value} for key, value in inputs["tags"].items()]
    aws.client("ec2").create_security_group(
        GroupName=inputs["name"],
        Description="of the last release",
        VpcId=inputs["vpcId"],
        TagSpecifications=[{"ResourceType": "security-group", "Tags": tags}],
    )


CREATED = {
    "aws:ec2/securityGroup:SecurityGroup": create_security_group,
    "aws:ecr/repository:Repository": create_repository,
    "aws:s3/bucket:Bucket": create_bucket,
}
"""Types that the program looks up before it registers anything."""
