"""Calls of the embedded AWS from Pulumi inputs.

Pulumi's inputs are AWS's parameters but for case, plurals and a few shapes: `evaluateOnExits` is `evaluateOnExit`,
`maxVcpus` is `maxvCpus`, tags are a mapping. botocore's model of the operation knows AWS's spelling, so one rule fits
the inputs of every type, and an input that the operation does not know is an error instead of being lost.
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
    """The embedded AWS at one endpoint; clients are made when first needed, and threads may share them."""

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
                # A refusal is an answer here, and would be the same a second time.
                config = Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"})
                self._clients[service] = self._session.client(service, endpoint_url=self.endpoint, config=config)
            return self._clients[service]

    def call(
        self, service: str, method: str, inputs: Mapping[str, Any], without: Collection[str] = (), **parameters: Any
    ) -> dict[str, Any]:
        """Call `method` with Pulumi's `inputs`, but those in `without`, and with AWS's own `parameters`.

        Raises:
            LocalError: when the operation does not know an input.
        """
        client = self.client(service)
        operation = client.meta.method_to_api_mapping[method]
        shape = client.meta.service_model.operation_model(operation).input_shape
        kept = {key: value for key, value in inputs.items() if key not in without}
        return getattr(client, method)(**_fit_structure(kept, shape, f"{service}:{operation}", ""), **parameters)


def fit(aws: Aws, service: str, shape: str, inputs: Mapping[str, Any], without: Collection[str] = ()) -> dict[str, Any]:
    """`inputs` in the spelling of the service's `shape`, for a structure inside of a call's parameters."""
    kept = {key: value for key, value in inputs.items() if key not in without}
    return _fit_structure(kept, aws.client(service).meta.service_model.shape_for(shape), f"{service}:{shape}", "")


def physical_name(resource: Resource, key: str = "name", separator: str = "-") -> str:
    """The name that the resource bears in AWS: as given, by its prefix, or its logical name and seven digits."""
    if given := resource.inputs.get(key):
        return str(given)
    digits = hashlib.sha256(resource.name.encode()).hexdigest()[:7]
    prefix = resource.inputs.get(f"{key}Prefix")
    return f"{prefix}{digits}" if prefix else f"{resource.name}{separator}{digits}"


def tag_list(tags: Mapping[str, str] | None) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in (tags or {}).items()]


def _fit(value: Any, shape: Shape, where: str, path: str) -> Any:
    if shape.type_name in ("structure", "list") and str(value)[:1] in ("{", "[") and isinstance(value, str):
        return _fit(json.loads(value), shape, where, path)  # Pulumi takes some as text, such as containerDefinitions
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
    """What a list holds: tags come as a mapping, and a single item without its list."""
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
        case _:
            return value
