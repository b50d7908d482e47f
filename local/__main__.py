"""The daemon: the embedded AWS with the stack `local` deployed to it, until SIGTERM.

`ftm local up` starts it. It prints one line of JSON on standard output, `{"ready": true}` or `{"error": "..."}`; later
output goes to its log.
"""

import argparse
import gc
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
from local.emulator.listening import EmbeddedAwsError, listen
from local.fake_vllm.alb import LocalAlb, RealServer
from local.fake_vllm.server import FakeVllm
from local.state import REGION, STACK, Llm, LocalError, LocalState


def main() -> None:
    """Run the daemon; the exit code is 1 if it could not become ready."""
    arguments = _arguments()
    logging.basicConfig(format="%(asctime)s %(name)s %(message)s", level=logging.WARNING)
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, _end)
    if not state.hold():
        _answer(error="the embedded AWS is already being started: try again in a few seconds")
        sys.exit(1)
    gc.disable()  # moto loads a million objects that are never freed: collecting garbage takes a quarter of the start
    with ExitStack() as cleanup:
        cleanup.callback(state.remove)
        try:
            _deploy(arguments, cleanup)
        except LocalError as error:
            _answer(error=str(error))
            sys.exit(1)
        gc.freeze()
        gc.enable()
        _answer(ready=True)
        threading.Event().wait()


def _deploy(arguments: argparse.Namespace, cleanup: ExitStack) -> None:
    """Start everything and write the record; `cleanup` receives the functions that stop it.

    Raises:
        LocalError: if something does not start.
    """
    try:
        listener = listen(arguments.port)
    except EmbeddedAwsError as error:
        raise LocalError(str(error)) from error
    llm_url: str = arguments.llm_url or ""
    target = RealServer(llm_url, arguments.llm_model) if llm_url else FakeVllm()
    deployment = Deployment(STACK, {"ftm:vllmServedModelName": target.model})
    cleanup.callback(deployment.stop)

    from local.emulator.aws import EmbeddedAws

    try:
        aws = EmbeddedAws.start(listener)
    except EmbeddedAwsError as error:
        raise LocalError(str(error)) from error
    cleanup.callback(aws.stop)
    balancer = LocalAlb(target, _has_healthy_target, _count_request)
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
            llm=Llm(target.model, fake=not llm_url, url=llm_url),
            started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
    )


def _has_healthy_target() -> bool:
    """Whether the embedded ECS has registered a task. Called on every request, so it reads moto's memory."""
    from moto.elbv2.models import elbv2_backends

    groups = elbv2_backends[state.ACCOUNT][REGION].target_groups.values()
    return any(group.targets for group in list(groups))


def _count_request() -> None:
    from local.emulator.request_counts import RequestCounts

    RequestCounts.count(state.ACCOUNT, REGION)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m local", description="The embedded AWS; `ftm local up` starts it.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--llm-url")
    parser.add_argument("--llm-model")
    return parser.parse_args()


def _end(number: int, _frame: Any) -> None:
    signal.signal(number, signal.SIG_IGN)  # ending takes a moment; a second signal must not interrupt it
    sys.exit(0)


def _answer(**document: Any) -> None:
    """Answer `ftm local up`, which then exits; from here on standard output goes to the log."""
    print(json.dumps(document), flush=True)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())


if __name__ == "__main__":
    main()
