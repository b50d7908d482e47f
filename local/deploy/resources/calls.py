"""Calls the embedded AWS with Pulumi's inputs.

Pulumi's inputs differ from AWS's parameters only in case, plurals and a few shapes: `evaluateOnExits` is
`evaluateOnExit`, `maxVcpus` is `maxvCpus`, and tags are a mapping. botocore's model of each operation has AWS's
spelling, so one rule translates the inputs of every type. An input that the operation does not know is an error, so
that nothing is dropped silently.
"""

import hashlib
import json
import re
import threading
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import boto3
from botocore.config import Config
from botocore.model import ListShape, MapShape, Shape, StructureShape

from local.deploy.program import Resource
from local.state import ACCESS_KEY, ACCOUNT, SECRET_KEY, LocalError


class Aws:
    """boto3 clients of the embedded AWS at one endpoint, created on first use and shared between threads."""

    def __init__(self, endpoint: str, region: str) -> None:
        self.endpoint = endpoint
        self.region = region
        self.account = ACCOUNT
        self._session: Any = boto3.Session(ACCESS_KEY, SECRET_KEY, region_name=region)
        self._clients: dict[str, Any] = {}
        self._lock = threading.Lock()

    def client(self, service: str) -> Any:
        with self._lock:
            if service not in self._clients:
                # Errors of the embedded AWS are deterministic, so a retry would only repeat them.
                config = Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"})
                self._clients[service] = self._session.client(service, endpoint_url=self.endpoint, config=config)
            return self._clients[service]

    def call(
        self, service: str, method: str, inputs: Mapping[str, Any], without: Collection[str] = (), **parameters: Any
    ) -> dict[str, Any]:
        """Call `method` with Pulumi's `inputs`, except those in `without`, and with AWS's own `parameters`.

        Raises:
            LocalError: when the operation does not know an input.
        """
        client = self.client(service)
        operation = client.meta.method_to_api_mapping[method]
        shape = client.meta.service_model.operation_model(operation).input_shape
        kept = {key: value for key, value in inputs.items() if key not in without}
        return getattr(client, method)(**_fit_structure(kept, shape, f"{service}:{operation}", ""), **parameters)


def fit(aws: Aws, service: str, shape: str, inputs: Mapping[str, Any], without: Collection[str] = ()) -> dict[str, Any]:
    """Translate `inputs` to the spelling of the service's `shape`, for a structure nested in a call's parameters."""
    kept = {key: value for key, value in inputs.items() if key not in without}
    return _fit_structure(kept, aws.client(service).meta.service_model.shape_for(shape), f"{service}:{shape}", "")


def physical_name(resource: Resource, key: str = "name", separator: str = "-") -> str:
    """The resource's name in AWS: the given one, or its prefix or logical name followed by seven digits."""
    if given := resource.inputs.get(key):
        return str(given)
    digits = hashlib.sha256(resource.name.encode()).hexdigest()[:7]
    prefix = resource.inputs.get(f"{key}Prefix")
    return f"{prefix}{digits}" if prefix else f"{resource.name}{separator}{digits}"


def tag_list(tags: Mapping[str, str] | None) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in (tags or {}).items()]


def _fit(value: Any, shape: Shape, where: str, path: str) -> Any:
    if shape.type_name in ("structure", "list") and str(value)[:1] in ("{", "[") and isinstance(value, str):
        return _fit(json.loads(value), shape, where, path)  # JSON text, as in containerDefinitions
    match shape:
        case StructureShape():
            return _fit_structure(value[0] if isinstance(value, list) else value, shape, where, path)
        case ListShape():
            return [_fit(item, shape.member, where, path) for item in _items(value, shape)]
        case MapShape():
            return {key: _fit(item, shape.value, where, path) for key, item in value.items()}
        case _:
            return _fit_scalar(value, shape)


def _items(value: Any, shape: ListShape) -> list[Any]:
    """The items of a list: Pulumi has tags as a mapping, and a single item without its list."""
    if not isinstance(value, dict):
        return value
    members = shape.member.members if isinstance(shape.member, StructureShape) else {}
    if {name.lower() for name in members} >= {"key", "value"}:
        return [{"key": key, "value": item} for key, item in value.items()]
    return [value]


def _fit_structure(value: Mapping[str, Any], shape: Any, where: str, path: str) -> dict[str, Any]:
    names = {name.lower(): name for name in shape.members}
    fitted: dict[str, Any] = {}
    for key, item in value.items():
        inner = f"{path}.{key}" if path else key
        name = next((names[spelling] for spelling in _spellings(key) if spelling in names), None)
        if name is None:
            raise LocalError(f"{where} has no parameter for the input {inner!r}")
        if item is not None:
            fitted[name] = _fit(item, shape.members[name], where, inner)
    return fitted


def _spellings(key: str) -> Iterator[str]:
    key = key.lower()
    yield from (key, key + "s", re.sub("s$", "", key), re.sub("ies$", "y", key))


def _fit_scalar(value: Any, shape: Shape) -> Any:
    match shape.type_name:
        case "string" if isinstance(value, dict | list):
            return json.dumps(value)
        case "string":
            return str(value)
        case "boolean" if isinstance(value, str):
            return value == "true"
        case "integer" | "long" if isinstance(value, str):
            return int(value)
        case "float" | "double" if isinstance(value, str):
            return float(value)
        case _:
            return value
