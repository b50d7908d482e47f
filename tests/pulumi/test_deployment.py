"""A stack on the real engine from its first deployment to its destruction."""

from testing.pulumi_engine import Engine
from testing.pulumi_provider.server import Provider


def test_a_second_up_changes_nothing_and_destroy_leaves_nothing(engine: Engine, provider: Provider) -> None:
    stack = engine.stack("prod", {})
    assert not stack.up().of("update", "replace", "delete")
    assert not stack.up().changed
    assert not stack.preview().changed
    stack.destroy()
    assert provider.live == []
