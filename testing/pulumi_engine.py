"""A stack of the program on Pulumi's real engine, with the provider of `testing.pulumi_provider`.

The engine is Pulumi's CLI, driven by its Automation API with the program inline, so that neither the language host nor
the provider for AWS is needed.
"""

import gc
import runpy
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pulumi.automation as auto
import yaml

from contract.project import find_project

ROOT = find_project()
_PROJECT = "ftm"
_SILENT: dict[str, Any] = {"on_output": lambda _line: None, "on_error": lambda _line: None}


@dataclass
class Steps:
    """The steps of an operation or preview."""

    by_operation: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    """The resources, as `name (type)`, of each operation, such as `update` or `delete-replaced`."""
    details: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    """The inputs that change, by `name (type)`."""
    messages: list[str] = field(default_factory=list[str])
    """Warnings and errors, one sentence each."""

    def of(self, *operations: str) -> set[str]:
        return {resource for operation in operations for resource in self.by_operation.get(operation, [])}

    @property
    def changed(self) -> bool:
        return bool(self.by_operation)


class EngineError(Exception):
    """A failed operation of the engine; the message is the engine's error."""

    def __init__(self, steps: Steps) -> None:
        super().__init__("\n".join(steps.messages))
        self.steps = steps


class Engine:
    """A backend in a folder, and the provider that its stacks use.

    Args:
        folder: An empty folder for the backend and the stacks' settings.
        provider_port: The port of `testing.pulumi_provider`.
    """

    def __init__(self, folder: Path, provider_port: int) -> None:
        self.folder = folder
        self.environment = {
            "PULUMI_BACKEND_URL": f"file://{folder}",
            "PULUMI_CONFIG_PASSPHRASE": "test",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
            "PULUMI_DEBUG_PROVIDERS": f"aws:{provider_port}",
        }

    def stack(self, name: str, settings: Mapping[str, Any], program: Path = ROOT / "__main__.py") -> "Stack":
        """The stack `name` with exactly these settings, such as `{"vllmMaxInstances": 3}`."""
        return Stack(self, name, settings, program)


class Stack:
    """One stack; its operations raise EngineError."""

    def __init__(self, engine: Engine, name: str, settings: Mapping[str, Any], program: Path) -> None:
        self.name = name
        self.folder = engine.folder / f"work-{name}"
        """The folder with the project's file and the stack's settings."""
        self.folder.mkdir(exist_ok=True)
        for file in ("Pulumi.yaml", "__main__.py"):
            shutil.copy(ROOT / file, self.folder)
        self._program = program
        self.configure(settings)
        options = auto.LocalWorkspaceOptions(
            work_dir=str(self.folder), pulumi_home=str(engine.folder / "home"), env_vars=engine.environment
        )
        self._stack = auto.create_or_select_stack(
            stack_name=name, project_name=_PROJECT, program=self._run_program, opts=options
        )

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Replace the stack's settings; the next operation reads them."""
        config = {"aws:region": "us-east-1"} | {f"{_PROJECT}:{key}": value for key, value in settings.items()}
        path = self.folder / f"Pulumi.{self.name}.yaml"
        kept = yaml.safe_load(path.read_text()) if path.exists() else {}
        path.write_text(yaml.safe_dump({**kept, "config": config}))

    def up(self) -> Steps:
        return self._watch(self._stack.up)

    def preview(self) -> Steps:
        return self._watch(self._stack.preview)

    def destroy(self) -> Steps:
        return self._watch(self._stack.destroy)

    def resources(self) -> list[dict[str, Any]]:
        """The resources in the stack's state, as the engine stores them."""
        deployment = self._stack.export_stack().deployment or {}
        return list(deployment.get("resources", []))

    def load(self, resources: list[dict[str, Any]]) -> None:
        """Import a state that `resources` returned."""
        deployment = self._stack.export_stack()
        deployment.deployment = {**(deployment.deployment or {}), "resources": resources}
        self._stack.import_stack(deployment)

    def outputs(self) -> dict[str, Any]:
        """The stack's outputs."""
        return {key: output.value for key, output in self._stack.outputs().items()}

    def _run_program(self) -> None:
        runpy.run_path(str(self._program), run_name="__main__")

    def _watch(self, operation: Any) -> Steps:
        # Coroutines of a failed deployment would shut down the servers of the operation in which they are collected.
        gc.collect()
        steps = Steps()
        try:
            operation(on_event=lambda event: _record(steps, event), **_SILENT)
        except auto.errors.CommandError as error:
            if not steps.messages:
                steps.messages.append(str(error))
            raise EngineError(steps) from error
        return steps


def _record(steps: Steps, event: Any) -> None:
    if event.resource_pre_event:
        metadata = event.resource_pre_event.metadata
        operation = str(getattr(metadata.op, "value", metadata.op))
        if operation == "same":
            return
        type_, name = metadata.urn.split("::")[2].split("$")[-1], metadata.urn.split("::")[3]
        steps.by_operation.setdefault(operation, []).append(f"{name} ({type_})")
        steps.details[f"{name} ({type_})"] = list(metadata.diffs or [])
    if event.diagnostic_event and event.diagnostic_event.severity in ("warning", "error"):
        steps.messages.append(" ".join(event.diagnostic_event.message.split()))
