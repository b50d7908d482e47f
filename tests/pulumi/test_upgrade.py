"""Upgrading a stack from the last release to this version replaces or deletes nothing that has data or a fixed name."""

from pathlib import Path

from testing import release_state
from testing.pulumi_engine import Engine
from testing.pulumi_provider.server import Provider
from tests.pulumi.conftest import Aws

RELEASES = Path(__file__).parent / "releases"

REVISED = "aws:ecs/taskDefinition:TaskDefinition"
"""Every change of a task definition creates a new revision."""


def test_an_upgrade_from_the_last_release_keeps_data_and_fixed_names(
    tmp_path: Path, provider: Provider, aws: Aws
) -> None:
    newest = max(RELEASES.glob("*.json"), key=lambda file: [int(part) for part in file.stem.split(".")])
    stack = Engine(tmp_path, provider.port).stack(release_state.STACK, {})
    stack.load(release_state.read(newest, release_state.network(aws.endpoint)))
    steps = stack.preview()
    print({operation: sorted(resources) for operation, resources in steps.by_operation.items()})
    assert {one for one in steps.of("replace") if REVISED not in one} == set()
    assert {one for one in steps.of("delete") if "aws:iam/" not in one} == set()
