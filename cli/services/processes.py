"""Runs modules that the CLI must not import, as processes that print one JSON object."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from cli.errors import CliError
from cli.services import executions
from cli.stack import Stack
from contract.exit_codes import ExitCode

_CLEANUP_SECONDS = 30


def ask(
    module: str,
    request: object = None,
    environment: Mapping[str, str] | None = None,
    arguments: Sequence[str] = (),
) -> dict[str, Any]:
    """Run `python -m module` on a request, which it reads from stdin as JSON; its progress goes to stderr.

    Raises:
        CliError: with the process's own error message and exit code, when it fails.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        env={**os.environ, **(environment or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            stdout, _ = process.communicate(json.dumps(request))
        except KeyboardInterrupt:
            process.wait(_CLEANUP_SECONDS)  # the terminal sent it SIGINT too: it ends what it started
            raise
    answer = executions.json_object(stdout)
    if process.returncode == 0:
        return answer
    code = ExitCode(process.returncode) if process.returncode in set(ExitCode) else ExitCode.FAILED
    raise CliError(str(answer.get("error") or f"{module} ended with exit code {process.returncode}"), code)


def aws_environment(stack: Stack) -> dict[str, str]:
    """The environment variables with which an SDK reaches the stack's AWS."""
    if stack.endpoint:
        keys = {name.upper(): value for name, value in stack.credentials.items()}
        return {"AWS_ENDPOINT_URL": stack.endpoint, "AWS_DEFAULT_REGION": stack.region or "", **keys}
    found = {"AWS_PROFILE": stack.profile, "AWS_DEFAULT_REGION": stack.region}
    return {name: value for name, value in found.items() if value}
