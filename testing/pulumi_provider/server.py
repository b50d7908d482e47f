"""Serves the provider's side of the engine's protocol from this process: the engine attaches to it.

The existing resources are kept here, so one `Provider` serves every operation on a stack. Tests can make the creation
of a resource fail.
"""

import json
import threading
import time
from concurrent import futures
from importlib import resources as package_files
from typing import Any, NoReturn

import grpc
from google.protobuf import empty_pb2, json_format, struct_pb2
from pulumi.runtime import rpc
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc

from local.deploy.program import Resource, plain
from local.deploy.resources import EmbeddedCloud
from local.deploy.resources.calls import Aws
from local.state import REGION
from testing.pulumi_provider import deletes, rules, updates
from testing.pulumi_provider.rules import Live

ALB_ADDRESS = "127.0.0.1:9"

_SIGNATURE = "4dabf18193072939515e22adb298388d"
"""The key that marks assets in the protocol."""

_MESSAGE_BYTES = 64 * 1024 * 1024
"""Messages contain the archives of the functions."""

_SLOW = {
    "aws:autoscaling/group:Group",
    "aws:batch/computeEnvironment:ComputeEnvironment",
    "aws:batch/jobQueue:JobQueue",
    "aws:ecs/service:Service",
    "aws:lb/loadBalancer:LoadBalancer",
}
"""Types whose deletion takes AWS minutes."""


class Provider(provider_pb2_grpc.ResourceProviderServicer):
    """The provider, which serves on `port` of the loopback until `stop`.

    Args:
        endpoint: The URL of the embedded AWS.
        slow_delete: Seconds that the deletion of types takes that AWS deletes slowly.
    """

    def __init__(self, endpoint: str, slow_delete: float = 0.3) -> None:
        self.refused_creates: set[str] = set()
        """Resources, as `name (type)`, whose creation fails as if a quota were exceeded."""
        self.refusals: list[str] = []
        """The resources whose creation has failed for that reason."""
        self._aws = Aws(endpoint, REGION)
        self.cloud = EmbeddedCloud(endpoint, REGION, ALB_ADDRESS)
        self._slow_delete = slow_delete
        self._live: dict[tuple[str, str], Live] = {}
        self._lock = threading.Lock()
        self._made = 0
        limits = [("grpc.max_receive_message_length", _MESSAGE_BYTES), ("grpc.max_send_message_length", _MESSAGE_BYTES)]
        self._server = grpc.server(futures.ThreadPoolExecutor(32), options=limits)
        provider_pb2_grpc.add_ResourceProviderServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def stop(self) -> None:
        self._server.stop(None).wait()

    def live(self, stack: str) -> list[Live]:
        """The existing resources of a stack."""
        with self._lock:
            return [one for one in self._live.values() if one.stack == stack]

    def Handshake(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002 - gRPC's names, here and below
        return provider_pb2.ProviderHandshakeResponse()

    def Attach(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002
        return empty_pb2.Empty()

    def GetPluginInfo(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002
        plugin = json.loads((package_files.files("pulumi_aws") / "pulumi-plugin.json").read_text())
        return plugin_pb2.PluginInfo(version=plugin["version"])

    def CheckConfig(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002
        return provider_pb2.CheckResponse(inputs=request.news)

    def DiffConfig(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002
        return provider_pb2.DiffResponse(changes=provider_pb2.DiffResponse.DIFF_NONE)

    def Configure(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002
        return provider_pb2.ConfigureResponse(supportsPreview=True)

    def Check(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002
        return provider_pb2.CheckResponse(inputs=request.news)

    def Invoke(self, request: Any, context: Any) -> Any:  # noqa: N802
        try:
            answer = self.cloud.invoke(request.tok, plain(rpc.deserialize_properties(request.args)))
        except Exception as error:
            _fail(context, f"{request.tok}: {error}")
        return provider_pb2.InvokeResponse(**{"return": _struct(answer)})

    def Diff(self, request: Any, context: Any) -> Any:  # noqa: N802
        type_ = rules.type_of(request.urn)
        changed = list(rules.changes(_comparable(request.old_inputs), _comparable(request.news)))
        try:
            replaces = rules.replacing(type_, changed)
        except LookupError as error:
            _fail(context, str(error))
        some = provider_pb2.DiffResponse.DIFF_SOME if changed else provider_pb2.DiffResponse.DIFF_NONE
        return provider_pb2.DiffResponse(
            changes=some,
            diffs=changed,
            replaces=replaces,
            deleteBeforeReplace=rules.named_by_program(_comparable(request.news)),
        )

    def Create(self, request: Any, context: Any) -> Any:  # noqa: N802
        if request.preview:
            return provider_pb2.CreateResponse(properties=request.properties)
        asked = rules.describe(request.urn)
        if asked in self.refused_creates:
            self.refusals.append(asked)
            _fail(context, f"LimitExceeded: {asked} was refused")
        try:
            return self._create(request.urn, request.properties)
        except Exception as error:
            _fail(context, f"{asked}: {error}")

    def Update(self, request: Any, context: Any) -> Any:  # noqa: N802
        outputs = json_format.MessageToDict(request.olds) | json_format.MessageToDict(request.news)
        type_ = rules.type_of(request.urn)
        if request.preview:
            return provider_pb2.UpdateResponse(
                properties=_struct(outputs | dict.fromkeys(rules.revised(type_), rpc.UNKNOWN))
            )
        inputs = plain(rpc.deserialize_properties(request.news))
        try:
            changed = updates.update(self._aws, self.cloud, Live(request.urn, request.id, inputs, outputs))
        except Exception as error:
            _fail(context, f"{rules.describe(request.urn)}: {error}")
        outputs |= changed
        with self._lock:
            self._live[type_, request.id] = Live(request.urn, request.id, inputs, outputs)
        return provider_pb2.UpdateResponse(properties=_struct(outputs))

    def Read(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002
        deployed = (rules.type_of(request.urn), request.id) in self._live
        return provider_pb2.ReadResponse(
            id=request.id if deployed else "", properties=request.properties, inputs=request.inputs
        )

    def Delete(self, request: Any, context: Any) -> Any:  # noqa: N802
        key = rules.type_of(request.urn), request.id
        resource = self._live[key]
        try:
            rules.refuse_if_used(resource, self.live(resource.stack))
            if resource.type in _SLOW:
                time.sleep(self._slow_delete)
            deletes.delete(self._aws, resource, self.live(resource.stack))
        except Exception as error:
            _fail(context, f"{resource}: {error}")
        with self._lock:
            del self._live[key]
        return empty_pb2.Empty()

    def Cancel(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002
        return empty_pb2.Empty()

    def _create(self, urn: str, properties: Any) -> Any:
        type_ = rules.type_of(urn)
        inputs = plain(rpc.deserialize_properties(properties))
        if prefix := inputs.pop("namePrefix", None):
            with self._lock:
                self._made += 1
            inputs["name"] = f"{prefix}{self._made:026d}"
        made = Resource(type_, urn.split("::")[3], inputs, True, "", [], False, False, [])
        resource_id, outputs = self.cloud.create(made)
        with self._lock:
            self._live[type_, resource_id] = Live(urn, resource_id, inputs, outputs)
        state = json_format.MessageToDict(properties) | outputs
        return provider_pb2.CreateResponse(id=resource_id, properties=_struct(state))


def _fail(context: Any, message: str) -> NoReturn:
    context.abort(grpc.StatusCode.UNKNOWN, message)
    raise AssertionError("abort raises")


def _struct(values: dict[str, Any]) -> Any:
    return json_format.ParseDict(values, struct_pb2.Struct())


def _comparable(properties: Any) -> Any:
    """Inputs as plain values. Only the hash of an asset counts, not the folder of its file."""
    return _without_paths(json_format.MessageToDict(properties))


def _without_paths(value: Any) -> Any:
    match value:
        case {"hash": hash_, **rest} if _SIGNATURE in rest:
            return hash_
        case dict():
            return {key: _without_paths(item) for key, item in value.items() if key != "__defaults"}
        case list():
            return [_without_paths(item) for item in value]
        case _:
            return value
