"""How long a preview of the program takes on Pulumi's real engine, over one of a bare program with as many resources.

The bare program registers the same names of the same types, without settings, components, policies and lookups. Each
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
import pulumi
import pulumi_aws as aws

for token, name in {resources}:
    module, cls = token.split(":")[1].split("/")[0], token.split(":")[2]
    getattr(getattr(aws, {{"lambda": "lambda_"}}.get(module, module)), cls)  # imports what the class needs
    pulumi.CustomResource(token, name, {{"tags": {{"Stack": "prod"}}}})
"""


def available() -> bool:
    """Whether Pulumi's CLI is there."""
    return shutil.which("pulumi") is not None


def measure() -> list[dict[str, Any]]:
    """The shorter of several previews of each program, and their ratio."""
    from local.emulator.aws import EmbeddedAws
    from testing.pulumi_provider.server import Provider

    aws = EmbeddedAws.start()
    provider = Provider(aws.endpoint)
    try:
        with tempfile.TemporaryDirectory() as folder:
            return _measure(Path(folder), provider.port)
    finally:
        provider.stop()
        aws.stop()


def _measure(folder: Path, port: int) -> list[dict[str, Any]]:
    program = find_project() / "__main__.py"
    resources = _preview(folder, port, program)[1]  # the embedded AWS loads its services in it
    bare = folder / "bare.py"
    bare.write_text(_BARE.format(resources=resources))
    seconds: dict[Path, list[float]] = {program: [], bare: []}
    for _ in range(_REPETITIONS):
        for each, taken in seconds.items():
            taken.append(_preview(folder, port, each)[0])
    own, other = (min(taken) for taken in seconds.values())
    return [
        {
            "resources": len(resources),
            "preview, s": f"{own:.2f}",
            "of a bare program, s": f"{other:.2f}",
            "ratio": f"{own / other:.2f}",
            "at most": AT_MOST,
        }
    ]


def _preview(folder: Path, port: int, program: Path) -> tuple[float, list[tuple[str, str]]]:
    """Seconds, and type and name of each resource that would be created."""
    with tempfile.TemporaryDirectory(dir=folder) as backend:
        command = [sys.executable, "-m", "bench.preview", backend, str(port), str(program)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, created = json.loads(done.stdout)
    return seconds, [
        (type_.rstrip(")"), name) for name, type_ in (one.split(" (") for one in created) if "aws:" in type_
    ]


def main(folder: str, port: str, program: str) -> None:
    """Preview `program` once, and print what `_preview` reads."""
    from testing.pulumi_engine import Engine

    stack = Engine(Path(folder), int(port)).stack("prod", {}, Path(program))
    began = time.monotonic()
    steps = stack.preview()
    print(json.dumps([time.monotonic() - began, sorted(steps.of("create"))]))


if __name__ == "__main__":
    main(*sys.argv[1:])
