"""Which function makes which type of resource, and answers which data source."""

from collections.abc import Callable
from typing import Any

from local.deploy.program import Resource
from local.deploy.resources.calls import Aws

Created = tuple[str, dict[str, Any]]
"""The id, and the outputs beyond the inputs."""

Creator = Callable[[Aws, Resource], Created]
Answerer = Callable[[Aws, dict[str, Any]], dict[str, Any]]

CREATORS: dict[str, Creator] = {}
ANSWERERS: dict[str, Answerer] = {}


def creates(type_: str) -> Callable[[Creator], Creator]:
    """Mark the function that makes resources of a Pulumi type, such as `aws:s3/bucket:Bucket`."""

    def register(creator: Creator) -> Creator:
        CREATORS[type_] = creator
        return creator

    return register


def answers(token: str) -> Callable[[Answerer], Answerer]:
    """Mark the function that answers a Pulumi data source, such as `aws:ec2/getVpc:getVpc`."""

    def register(answerer: Answerer) -> Answerer:
        ANSWERERS[token] = answerer
        return answerer

    return register
