"""Deploys the stack in a process of its own.

So what Pulumi and the AWS clients need, about 250 MB, is free again when the stack stands, and the process can load
them while the embedded AWS starts. It reads one line of JSON, what to deploy and where, and says one line: the
stack's outputs, or the error.
"""

import json
import os
import subprocess
import sys
from contextlib import suppress
from typing import Any

from local.state import REGION, ROOT, LocalError


class Deployment:
    """One deployment: constructed it loads, `run` deploys, and `stop` ends it at any time."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "local.deployment"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, stack: str, endpoint: str, alb_address: str, overrides: dict[str, Any]) -> dict[str, Any]:
        """Deploy `stack` to the embedded AWS at `endpoint`; return its outputs.

        Raises:
            LocalError: when the program fails or a resource cannot be made.
        """
        order = {"stack": stack, "endpoint": endpoint, "alb_address": alb_address, "overrides": overrides}
        with suppress(BrokenPipeError):  # then it has no answer either
            said, _ = self._process.communicate(json.dumps(order))
            if said:
                answer = json.loads(said)
                if "error" in answer:
                    raise LocalError(answer["error"])
                return answer["outputs"]
        raise LocalError(f"the deployment ended with exit code {self._process.wait()} and said nothing")

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


def main() -> None:
    """Load, wait for the order, deploy, answer."""
    # Standard output is for the answer; whatever the program prints goes to the log.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    import pulumi_aws  # noqa: F401 - loaded while the embedded AWS starts

    from local import program, resources

    line = sys.stdin.readline()
    if not line:
        return  # the daemon failed meanwhile
    order = json.loads(line)
    cloud = resources.EmbeddedCloud(order["endpoint"], REGION, order["alb_address"])
    try:
        run = program.up(order["stack"], cloud, order["overrides"])
    except LocalError as error:
        answer = {"error": str(error)}
    else:
        for warning in run.warnings:
            print(warning, file=sys.stderr)
        answer = {"outputs": run.outputs}
    with answers:
        json.dump(answer, answers)


if __name__ == "__main__":
    main()
