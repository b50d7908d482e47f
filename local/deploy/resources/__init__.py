"""Creates the resources that the Pulumi program registers, in the embedded AWS.

There is one small function per Pulumi type, in a module per AWS service. Each returns the resource's id and the outputs
that a program can read. An unsupported type is an error that names it.
"""

from typing import Any

from local.deploy.program import Resource
from local.deploy.resources import batch, data, ecs, elb, iam, network, observability, stepfunctions
from local.deploy.resources.calls import Aws
from local.deploy.resources.registry import ANSWERERS, CREATORS
from local.state import LocalError

__all__ = ["EmbeddedCloud"]

_MODULES = (batch, data, ecs, elb, iam, network, observability, stepfunctions)
"""Importing them fills the registry."""


class EmbeddedCloud:
    """Creates a program's resources in the embedded AWS; see the protocol `Cloud`.

    Args:
        endpoint: URL of the embedded AWS.
        region: Its region.
        alb_address: Host and port of the one local load balancer. Every load balancer gets it as its DNS name.
    """

    def __init__(self, endpoint: str, region: str, alb_address: str) -> None:
        self._aws = Aws(endpoint, region)
        self._alb_address = alb_address

    def create(self, resource: Resource) -> tuple[str, dict[str, Any]]:
        creator = CREATORS.get(resource.type)
        if creator is None:
            raise LocalError(f"the embedded AWS does not support {resource.type}: add it to local/deploy/resources")
        if resource.read_id:
            raise LocalError("the embedded AWS does not read existing resources: look them up with a data source")
        resource_id, outputs = creator(self._aws, resource)
        if "dnsName" in outputs:
            outputs["dnsName"] = self._alb_address
        return resource_id, outputs

    def invoke(self, token: str, args: dict[str, Any]) -> dict[str, Any]:
        answerer = ANSWERERS.get(token)
        if answerer is None:
            raise LocalError("the embedded AWS does not support this data source: add it to local/deploy/resources")
        return answerer(self._aws, args)
