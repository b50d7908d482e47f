"""`python -m testing.release_state FILE` writes the state of a stack that this version of the program deploys.

The files of releases are in tests/pulumi/releases: tests preview the current program from the newest one. They contain
nothing specific to the machine that wrote them: no paths, no times, and placeholders for the ids of the network.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import boto3

from local.emulator.aws import EmbeddedAws
from local.state import ACCESS_KEY, REGION, SECRET_KEY
from testing.pulumi_engine import Engine
from testing.pulumi_provider.server import Provider

STACK = "prod"

_OF_THE_MACHINE = ("sourcePosition", "stackTrace", "created", "modified")
_SIGNATURE = "4dabf18193072939515e22adb298388d"
"""The key that marks assets and archives in Pulumi."""


def main(file: Path) -> None:
    aws = EmbeddedAws.start()
    provider = Provider(aws.endpoint)
    with tempfile.TemporaryDirectory() as folder:
        stack = Engine(Path(folder), provider.port).stack(STACK, {})
        stack.up()
        file.write_text(write(stack.resources(), network(aws.endpoint)))
    provider.stop()
    aws.stop()


def network(endpoint: str) -> dict[str, str]:
    """The ids of the account's default VPC and its subnets, by placeholder."""
    session: Any = boto3.Session(ACCESS_KEY, SECRET_KEY, region_name=REGION)
    subnets = session.client("ec2", endpoint_url=endpoint).describe_subnets()["Subnets"]
    default = sorted(subnet["SubnetId"] for subnet in subnets if subnet["DefaultForAz"])
    vpc = next(subnet["VpcId"] for subnet in subnets if subnet["DefaultForAz"])
    return {"vpc-default": vpc} | {f"subnet-default-{n}": subnet for n, subnet in enumerate(default)}


def write(resources: list[dict[str, Any]], ids: dict[str, str]) -> str:
    """The content of a release's file."""
    text = json.dumps(_portable(resources), indent=1, sort_keys=True) + "\n"
    for placeholder, id_ in ids.items():
        text = text.replace(id_, placeholder)
    return text


def read(file: Path, ids: dict[str, str]) -> list[dict[str, Any]]:
    """The resources of a release, with the ids of this account's network."""
    text = file.read_text()
    for placeholder, id_ in ids.items():
        text = text.replace(placeholder, id_)
    return json.loads(text)


def _portable(value: Any) -> Any:
    match value:
        case {"assets": _} if (
            _SIGNATURE in value
        ):  # an archive: only its hash is compared, and it differs in every release
            return {_SIGNATURE: value[_SIGNATURE], "assets": {}, "hash": value["hash"]}
        case dict():
            return {key: _portable(item) for key, item in value.items() if key not in _OF_THE_MACHINE}
        case list():
            return [_portable(item) for item in value]
        case _:
            return value


if __name__ == "__main__":
    main(Path(sys.argv[1]))
