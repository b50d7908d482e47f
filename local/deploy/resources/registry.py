"""The registry of functions that create a type of resource or answer a data source."""

from collections.abc import Callable
from typing import Any

from local.deploy.program import Resource
from local.deploy.resources.calls import Aws

Created = tuple[str, dict[str, Any]]
"""A resource's id, and its outputs beyond its inputs."""

Creator = Callable[[Aws, Resource], Created]
Answerer = Callable[[Aws, dict[str, Any]], dict[str, Any]]

CREATORS: dict[str, Creator] = {}
ANSWERERS: dict[str, Answerer] = {}


def creates(type_: str) -> Callable[[Creator], Creator]:
    """Register the function that creates resources of a Pulumi type, such as `aws:s3/bucket:Bucket`."""

    def register(creator: Creator) -> Creator:
        CREATORS[type_] = creator
        return creator

    return register


def answers(token: str) -> Callable[[Answerer], Answerer]:
    """Register the function that answers a Pulumi data source, such as `aws:ec2/getSubnet:getSubnet`."""

    def register(answerer: Answerer) -> Answerer:
        ANSWERERS[token] = answerer
        return answerer

    return register
