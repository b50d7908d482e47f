"""Runs the Pulumi program in this process, without Pulumi's engine.

Pulumi's language host makes three SDK calls around `__main__.py` and talks to the engine through two objects. Here
`_Monitor` replaces the engine: it passes every registered resource to a `Cloud` and records the program's exports. The
program itself runs unchanged. It differs from `pulumi up` in one way: there is no stored state, so every resource is
always new.
"""

import asyncio
import contextvars
import json
import logging
import runpy
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pulumi
import yaml
from pulumi.runtime import rpc
from pulumi.runtime.mocks import MockCallArgs, MockEngine, MockMonitor, MockResourceArgs, Mocks
from pulumi.runtime.stack import run_in_stack

from contract.project import find_project
from local.state import LocalError

_SECRET = "4dabf18193072939515e22adb298388d"  # noqa: S105 - the key that marks a secret in Pulumi's protocol


@dataclass(frozen=True)
class Resource:
    """A resource as the program registered it."""

    type: str
    """Such as `aws:ecs/cluster:Cluster`, or a component's own type if `custom` is false."""
    name: str
    inputs: dict[str, Any]
    """Keys in camelCase, whole numbers as int, secrets unwrapped, assets as Pulumi's objects."""
    custom: bool
    parent: str
    """The parent's URN."""
    depends_on: list[str]
    protect: bool
    retain_on_delete: bool
    ignore_changes: list[str]
    read_id: str = ""
    """The id of a resource that the program only reads, with `X.get`; empty otherwise."""

    def __str__(self) -> str:
        return f"{self.name} ({self.type})"


class Cloud(Protocol):
    """Creates resources and answers data sources. It is called from several threads."""

    def create(self, resource: Resource) -> tuple[str, dict[str, Any]]:
        """Create the resource (or look it up by its `read_id`); return its id and its outputs beyond its inputs."""
        ...

    def invoke(self, token: str, args: dict[str, Any]) -> dict[str, Any]:
        """Answer a data source such as `aws:ec2/getVpc:getVpc`."""
        ...


@dataclass
class Run:
    """What a run of the program registered, in that order, and exported."""

    resources: list[Resource] = field(default_factory=list[Resource])
    outputs: dict[str, Any] = field(default_factory=dict[str, Any])
    warnings: list[str] = field(default_factory=list[str])


def preview(stack: str, cloud: Cloud, overrides: Mapping[str, Any] | None = None, root: Path | None = None) -> Run:
    """Run the program as `pulumi preview` does: nothing is created, and outputs of resources are unknown.

    `cloud` answers the data sources. Arguments and errors are those of `up`.
    """
    return _run(stack, cloud, overrides or {}, root, dry_run=True)


def up(stack: str, cloud: Cloud, overrides: Mapping[str, Any] | None = None, root: Path | None = None) -> Run:
    """Run the program as the first `pulumi up` of a stack does, creating every resource in `cloud`.

    Args:
        stack: Name of the stack; its settings are read from `Pulumi.<stack>.yaml`.
        overrides: Settings that take precedence over the stack's, such as `{"ftm:bucketName": "calls"}`.
        root: The folder with `Pulumi.yaml` and `__main__.py`; the project's by default.

    Raises:
        LocalError: if the settings cannot be read, the program fails or a resource cannot be created; the message names
            the resource.
    """
    return _run(stack, cloud, overrides or {}, root, dry_run=False)


def read_config(stack: str, root: Path | None = None) -> dict[str, Any]:
    """The stack's settings merged over the project's defaults, by full key, such as `ftm:bucketName`.

    Raises:
        LocalError: if a file is missing or invalid, or a value is encrypted.
    """
    root = root or find_project()
    project = _read_yaml(root / "Pulumi.yaml")
    config: dict[str, Any] = {}
    for key, entry in (project.get("config") or {}).items():
        default = entry.get("default", entry.get("value")) if isinstance(entry, dict) else entry
        if default is not None:
            config[_full_key(project["name"], key)] = default
    for key, value in (_read_yaml(root / f"Pulumi.{stack}.yaml").get("config") or {}).items():
        if isinstance(value, dict) and "secure" in value:
            raise LocalError(
                f"Pulumi.{stack}.yaml encrypts {key}, which only Pulumi's engine can decrypt: set it as plain text"
            )
        config[_full_key(project["name"], key)] = value
    return config


def plain(value: Any) -> Any:
    """Undo the encoding of the protocol: whole numbers arrive as floats, secrets wrapped in a mapping."""
    match value:
        case float() if value.is_integer():
            return int(value)
        case {"value": inner, **rest} if _SECRET in rest:
            return plain(inner)
        case dict():
            return {key: plain(item) for key, item in value.items()}
        case list():
            return [plain(item) for item in value]
        case _:
            return value


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise LocalError(f"{path.name} is missing in {path.parent}") from None
    except yaml.YAMLError as error:
        raise LocalError(f"{path.name} is not valid YAML: {' '.join(str(error).split())}") from error
    return document if isinstance(document, dict) else {}


def _full_key(project: str, key: str) -> str:
    return key if ":" in key else f"{project}:{key}"


def _as_text(value: Any) -> str:
    """A setting as the engine passes it to the program: text unchanged, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _run(stack: str, cloud: Cloud, overrides: Mapping[str, Any], root: Path | None, dry_run: bool) -> Run:
    root = root or find_project()
    config = {**read_config(stack, root), **overrides}
    program = _Program(stack, cloud, root, {key: _as_text(value) for key, value in config.items()}, dry_run)
    # The SDK needs its own event loop and its own context, so the program gets its own thread.
    thread = threading.Thread(target=contextvars.Context().run, args=(program.run,), daemon=True, name="pulumi")
    thread.start()
    thread.join()
    if program.error:
        raise LocalError(program.explain()) from program.error
    return program.result


class _Program:
    """One run of `__main__.py`."""

    def __init__(self, stack: str, cloud: Cloud, root: Path, config: dict[str, str], dry_run: bool) -> None:
        self.result = Run()
        self.error: BaseException | None = None
        self._stack = stack
        self._root = root
        self._config = config
        self._dry_run = dry_run
        self._monitor = _Monitor(cloud, self.result, dry_run)

    def run(self) -> None:
        loop = asyncio.new_event_loop()
        # `explain` reports the failure; the SDK would also log every other task of a failed run.
        loop.set_exception_handler(lambda _loop, _context: None)
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(self._run())
        except BaseException as error:
            self.error = error
        finally:
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()

    def explain(self) -> str:
        """Why the run failed, in one sentence."""
        if isinstance(self.error, pulumi.RunError):
            return str(self.error)  # already a message of the program's own
        if self._monitor.failed:
            return f"the program could not create {self._monitor.failed[0]}"
        return f"the program __main__.py failed: {_describe(self.error)}"

    async def _run(self) -> None:
        pulumi.runtime.set_all_config(self._config, [])
        pulumi.runtime.configure(
            pulumi.runtime.Settings(
                project=_read_yaml(self._root / "Pulumi.yaml")["name"],
                stack=self._stack,
                organization="organization",
                monitor=self._monitor,
                engine=MockEngine(_warnings_into(self.result.warnings)),
                dry_run=self._dry_run,
                root_directory=str(self._root),
            )
        )
        await run_in_stack(self._run_main)

    def _run_main(self) -> None:
        runpy.run_path(str(self._root / "__main__.py"), run_name="__main__")


class _Monitor(MockMonitor):
    """The engine's side of the SDK's protocol."""

    def __init__(self, cloud: Cloud, result: Run, dry_run: bool) -> None:
        super().__init__(_Provider(cloud, result, self, dry_run))
        self.requests: dict[tuple[str, str], Any] = {}
        self.failed: list[str] = []
        self._result = result

    def RegisterResource(self, request: Any) -> Any:  # noqa: N802 - gRPC's name
        # Mocks do not receive parents, dependencies and options, so `_Provider` looks them up here.
        self.requests[request.type, request.name] = request
        return super().RegisterResource(request)

    def RegisterResourceOutputs(self, request: Any) -> Any:  # noqa: N802 - gRPC's name
        if request.urn.split("::")[2] == "pulumi:pulumi:Stack":
            self._result.outputs.update(plain(rpc.deserialize_properties(request.outputs)))
        return super().RegisterResourceOutputs(request)


class _Provider(Mocks):
    """The resource provider's side: turns each registration into a `Resource` and passes it to the cloud."""

    def __init__(self, cloud: Cloud, result: Run, monitor: _Monitor, dry_run: bool) -> None:
        self._cloud = cloud
        self._result = result
        self._monitor = monitor
        self._dry_run = dry_run

    def new_resource(self, args: MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        resource = self._resource(args)
        self._result.resources.append(resource)
        if resource.type.startswith("pulumi:providers:"):
            return resource.name, resource.inputs
        if self._dry_run or not resource.custom:
            return "", resource.inputs
        try:
            resource_id, outputs = self._cloud.create(resource)
        except Exception as error:
            self._monitor.failed.append(f"{resource}: {_describe(error)}")
            raise
        return resource_id, {**resource.inputs, **outputs}

    def call(self, args: MockCallArgs) -> tuple[dict[str, Any], list[tuple[str, str]] | None]:
        try:
            return self._cloud.invoke(args.token, plain(args.args)), []
        except Exception as error:
            self._monitor.failed.append(f"{args.token}: {_describe(error)}")
            raise

    def _resource(self, args: MockResourceArgs) -> Resource:
        request = self._monitor.requests.get((args.typ, args.name))
        read = request is None
        return Resource(
            type=args.typ,
            name=args.name,
            inputs=plain(args.inputs),
            custom=bool(args.custom) or read,
            parent="" if read else request.parent,
            depends_on=[] if read else list(request.dependencies),
            protect=not read and request.protect,
            retain_on_delete=not read and request.retainOnDelete,
            ignore_changes=[] if read else list(request.ignoreChanges),
            read_id=args.resource_id or "" if read else "",
        )


def _describe(error: BaseException | None) -> str:
    """An exception as one line. ftm's own and botocore's messages are clear without the class name."""
    text = " ".join(str(error).split())
    module = type(error).__module__.split(".")[0]
    return text if text and module in ("botocore", "local") else f"{type(error).__name__}: {text}".rstrip(": ")


def _warnings_into(warnings: list[str]) -> logging.Logger:
    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno == logging.WARNING:
                warnings.append(record.getMessage())

    logger = logging.Logger("pulumi", logging.WARNING)
    logger.addHandler(Collector())
    return logger
