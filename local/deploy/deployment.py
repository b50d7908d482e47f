"""Deploys the stack in a separate process.

The memory of Pulumi and the AWS clients, about 200 MB, is freed when the deployment is done, and the program can load
while the embedded AWS starts. The process reads one line of JSON with the address of the embedded AWS, and writes one
line with the stack's outputs or the error. Its standard input stays open until then: if it closes, the daemon has died,
and the process ends too.
"""

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from contract.project import find_project
from local.state import REGION, LocalError

if TYPE_CHECKING:
    from local.deploy.program import Resource
    from local.deploy.resources import EmbeddedCloud


class Deployment:
    """One deployment: it begins at once, `finish` waits for it, and `stop` ends it at any time.

    Args:
        stack: Name of the stack; its settings are read from `Pulumi.<stack>.yaml`.
        overrides: Settings that take precedence over those.
    """

    def __init__(self, stack: str, overrides: dict[str, Any]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "local.deploy.deployment", stack, json.dumps(overrides)],
            cwd=find_project(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def finish(self, endpoint: str, alb_address: str) -> dict[str, Any]:
        """Deploy to the embedded AWS at `endpoint` and return the stack's outputs.

        Raises:
            LocalError: if the program fails or a resource cannot be created.
        """
        assert self._process.stdin and self._process.stdout  # noqa: S101, PT018 - opened as pipes
        with suppress(BrokenPipeError):  # it failed before it needed the address
            self._process.stdin.write(json.dumps({"endpoint": endpoint, "alb_address": alb_address}) + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.read()
        exit_code = self._process.wait()
        if not line:
            raise LocalError(f"the deployment ended with exit code {exit_code} and no output: see the daemon's log")
        answer = json.loads(line)
        if "error" in answer:
            raise LocalError(answer["error"])
        return answer["outputs"]

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


class _PendingCloud:
    """The embedded AWS, which may still be starting: calls wait until its address is known."""

    def __init__(self) -> None:
        self._cloud: Future[EmbeddedCloud] = Future()
        threading.Thread(target=self._listen, daemon=True).start()

    def create(self, resource: "Resource") -> tuple[str, dict[str, Any]]:
        return self._cloud.result().create(resource)

    def invoke(self, token: str, args: dict[str, Any]) -> dict[str, Any]:
        return self._cloud.result().invoke(token, args)

    def _listen(self) -> None:
        """Read the address; end this process when the pipe closes, since the daemon has died then."""
        from local.deploy.resources import EmbeddedCloud

        line = b""
        while chunk := os.read(sys.stdin.fileno(), 4096):
            line += chunk
            if line.endswith(b"\n"):
                addresses = json.loads(line)
                self._cloud.set_result(EmbeddedCloud(addresses["endpoint"], REGION, addresses["alb_address"]))
        os._exit(1)


def main() -> None:
    """Deploy the stack named by the first argument, with the overrides in the second, and print the result."""
    # Standard output is for the result; anything the program prints goes to the log.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    from local.deploy import program

    try:
        run = program.up(sys.argv[1], _PendingCloud(), json.loads(sys.argv[2]))
    except LocalError as error:
        answer = {"error": str(error)}
    else:
        for warning in run.warnings:
            print(warning, file=sys.stderr)
        answer = {"outputs": run.outputs}
    with answers:
        json.dump(answer, answers)
    sys.stderr.flush()
    os._exit(0)  # a regular exit would spend a second on cleaning up the loaded modules


if __name__ == "__main__":
    main()
