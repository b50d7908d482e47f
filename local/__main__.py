"""The daemon: the embedded AWS with the stack `local` deployed to it, until it is told to end.

`ftm local up` starts it. It answers with one line of JSON on standard output, `{"ready": true}` or `{"error": "..."}`;
what happens later goes to the log.
"""

import argparse
import json
import logging
import os
import signal
import sys
import threading
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

from local import state
from local.deploy.deployment import Deployment
from local.fake_vllm import alb
from local.fake_vllm import server as stand_in
from local.state import REGION, STACK, Llm, LocalError, LocalState


def main() -> None:
    """Run the daemon; the exit code is 1 when it could not become ready."""
    arguments = _arguments()
    logging.basicConfig(format="%(asctime)s %(name)s %(message)s", level=logging.WARNING)
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, _end)
    if not state.hold():
        _say(error="the embedded AWS is being started already: try again in a few seconds")
        sys.exit(1)
    with ExitStack() as cleanup:
        cleanup.callback(state.remove)
        try:
            _deploy(arguments.port, arguments.llm_url, cleanup)
        except LocalError as error:
            _say(error=str(error))
            sys.exit(1)
        _say(ready=True)
        threading.Event().wait()


def _deploy(port: int, llm_url: str | None, cleanup: ExitStack) -> None:
    """Start everything, record it, and leave with `cleanup` how to end it.

    Raises:
        LocalError: when something does not start.
    """
    target = alb.RealServer(llm_url) if llm_url else stand_in.StandIn()
    deployment = Deployment(STACK, {"ftm:vllmServedModelName": target.model})
    cleanup.callback(deployment.stop)

    from local.emulator.aws import EmbeddedAws, EmbeddedAwsError

    try:
        aws = EmbeddedAws.start(port)
    except EmbeddedAwsError as error:
        raise LocalError(str(error)) from error
    cleanup.callback(aws.stop)
    balancer = alb.LocalAlb(target, _has_healthy_target)
    balancer.start()
    cleanup.callback(balancer.stop)
    outputs = deployment.finish(aws.endpoint, balancer.address)
    state.write(
        LocalState(
            pid=os.getpid(),
            stack=STACK,
            endpoint=aws.endpoint,
            region=REGION,
            outputs=outputs,
            llm=Llm(target.model, stand_in=not llm_url, url=llm_url or ""),
            started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
    )


def _has_healthy_target() -> bool:
    """Whether the embedded ECS has registered a task. Asked for every completion, so moto is asked without HTTP."""
    from moto.elbv2.models import elbv2_backends

    groups = elbv2_backends[state.ACCOUNT][REGION].target_groups.values()
    return any(group.targets for group in groups)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m local", description="The embedded AWS; `ftm local up` starts it.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--llm-url")
    return parser.parse_args()


def _end(number: int, _frame: Any) -> None:
    signal.signal(number, signal.SIG_IGN)  # once is enough: ending takes its time
    sys.exit(0)


def _say(**answer: Any) -> None:
    """Tell `ftm local up`, which then goes; from here on standard output is the log."""
    print(json.dumps(answer), flush=True)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())


if __name__ == "__main__":
    main()
