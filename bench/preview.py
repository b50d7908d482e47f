"""How long a preview of the program takes on Pulumi's real engine, over one of a bare program with the same resources.

The bare program holds the resources' inputs as plain data: it has no settings, components, policies and lookups. Each
preview runs in a process of its own, `python -m bench.preview FOLDER PORT PROGRAM`, so that imports count.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from contract.project import find_project

AT_MOST = 1.3
"""The ratio that the program keeps."""

_REPETITIONS = 5

_BARE = """
import inspect
import json

import pulumi
import pulumi_aws as aws
from pydantic.alias_generators import to_camel

for token, name, inputs in json.loads({resources!r}):
    module, cls = token.split(":")[1].split("/")[0], token.split(":")[2]
    resource = getattr(getattr(aws, {{"lambda": "lambda_"}}.get(module, module)), cls)
    arguments = {{to_camel(argument): argument for argument in inspect.signature(resource._internal_init).parameters}}
    if files := inputs.get("code"):
        inputs["code"] = pulumi.AssetArchive({{file: pulumi.FileAsset(path) for file, path in files.items()}})
    resource(name, **{{arguments[key]: value for key, value in inputs.items()}})
"""


def available() -> bool:
    """Whether Pulumi's CLI is there."""
    return shutil.which("pulumi") is not None


def measure() -> list[dict[str, Any]]:
    """The shorter of several previews of each program, and their ratio."""
    from local.emulator.aws import EmbeddedAws
    from testing.pulumi_provider.server import Provider

    resources = _list_resources()
    aws = EmbeddedAws.start()
    provider = Provider(aws.endpoint)
    try:
        with tempfile.TemporaryDirectory() as folder:
            bare = Path(folder) / "bare.py"
            bare.write_text(_BARE.format(resources=json.dumps(resources, default=lambda file: file.path)))
            own, other = _preview_both(find_project() / "__main__.py", bare, provider.port)
    finally:
        provider.stop()
        aws.stop()
    return [
        {
            "resources": len(resources),
            "preview, s": f"{own:.2f}",
            "of a bare program, s": f"{other:.2f}",
            "ratio": f"{own / other:.2f}",
            "at most": AT_MOST,
        }
    ]


def _list_resources() -> list[tuple[str, str, dict[str, Any]]]:
    """Type, name and inputs of each resource of the stack prod; of an archive, its files."""
    from local.deploy import program
    from testing.paper_cloud import LifelikeCloud

    return [
        (one.type, one.name, {key: getattr(value, "assets", value) for key, value in one.inputs.items()})
        for one in program.up("prod", LifelikeCloud()).resources
        if one.custom
    ]


def _preview_both(program: Path, bare: Path, port: int) -> tuple[float, float]:
    """Seconds of the shortest preview of each, taken in turns."""
    _preview(program, port)  # the embedded AWS loads its services in it
    seconds: dict[Path, list[float]] = {program: [], bare: []}
    for _ in range(_REPETITIONS):
        for each, taken in seconds.items():
            taken.append(_preview(each, port))
    return min(seconds[program]), min(seconds[bare])


def _preview(program: Path, port: int) -> float:
    with tempfile.TemporaryDirectory() as backend:
        command = [sys.executable, "-m", "bench.preview", backend, str(port), str(program)]
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main(folder: str, port: str, program: str) -> None:
    """Preview `program` once, and print the seconds that it took."""
    from testing.pulumi_engine import Engine

    stack = Engine(Path(folder), int(port)).stack("prod", {}, Path(program))
    began = time.monotonic()
    stack.preview()
    print(time.monotonic() - began)


if __name__ == "__main__":
    main(*sys.argv[1:])
