"""Deploys the stack in a process of its own.

So what Pulumi and the AWS clients take, about 200 MB, is free again when the stack stands; and the program can load and
begin while the embedded AWS starts. The process is told where that answers by one line of JSON, and says one line: the
stack's outputs, or the error. Its standard input stays open until then: when it closes, the daemon is gone, and the
process goes too.
"""

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from local.state import REGION, ROOT, LocalError

if TYPE_CHECKING:
    from local.deploy.program import Resource
    from local.deploy.resources import EmbeddedCloud


class Deployment:
    """One deployment: it begins at once, `finish` waits for it, and `stop` ends it at any time.

    Args:
        stack: Its settings are in `Pulumi.<stack>.yaml`.
        overrides: Settings that win over those.
    """

    def __init__(self, stack: str, overrides: dict[str, Any]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "local.deploy.deployment", stack, json.dumps(overrides)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def finish(self, endpoint: str, alb_address: str) -> dict[str, Any]:
        """Deploy to the embedded AWS at `endpoint`; return the stack's outputs.

        Raises:
            LocalError: when the program fails or a resource cannot be made.
        """
        assert self._process.stdin and self._process.stdout  # noqa: S101, PT018 - pipes were asked for
        with suppress(BrokenPipeError):  # it ended before it needed to know
            self._process.stdin.write(json.dumps({"endpoint": endpoint, "alb_address": alb_address}) + "\n")
            self._process.stdin.flush()
        said = self._process.stdout.read()
        exit_code = self._process.wait()
        if not said:
            raise LocalError(f"the deployment ended with exit code {exit_code} and said nothing")
        answer = json.loads(said)
        if "error" in answer:
            raise LocalError(answer["error"])
        return answer["outputs"]

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


class _CloudToCome:
    """The embedded AWS, which may still be starting: who needs it waits until its address is there."""

    def __init__(self) -> None:
        self._cloud: Future[EmbeddedCloud] = Future()
        threading.Thread(target=self._listen, daemon=True).start()

    def create(self, resource: "Resource") -> tuple[str, dict[str, Any]]:
        return self._cloud.result().create(resource)

    def invoke(self, token: str, args: dict[str, Any]) -> dict[str, Any]:
        return self._cloud.result().invoke(token, args)

    def _listen(self) -> None:
        """Read the address, and end this process when the daemon, at the other end, is gone."""
        from local.deploy.resources import EmbeddedCloud

        heard = b""
        while said := os.read(sys.stdin.fileno(), 4096):
            heard += said
            if heard.endswith(b"\n"):
                where = json.loads(heard)
                self._cloud.set_result(EmbeddedCloud(where["endpoint"], REGION, where["alb_address"]))
        os._exit(1)


def main() -> None:
    """Deploy the stack of the first argument, with the overrides of the second, and answer."""
    # Standard output is for the answer; whatever the program prints goes to the log.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    from local.deploy import program

    try:
        run = program.up(sys.argv[1], _CloudToCome(), json.loads(sys.argv[2]))
    except LocalError as error:
        answer = {"error": str(error)}
    else:
        for warning in run.warnings:
            print(warning, file=sys.stderr)
        answer = {"outputs": run.outputs}
    with answers:
        json.dump(answer, answers)
    sys.stderr.flush()
    os._exit(0)  # Python would take a second to tidy up all that is loaded


if __name__ == "__main__":
    main()
