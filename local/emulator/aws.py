"""The embedded AWS: moto's server on the loopback, extended where moto only imitates a service.

State machines are executed as deployed, Lambda functions and Batch jobs run as real processes, and ECS services follow
their Auto Scaling group. All state is in memory. The region is us-east-1, the account 123456789012; any credentials are
accepted.
"""

import logging
import os
import socket
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flask import Flask
from moto.core.config import default_user_config
from moto.moto_api._internal.models import moto_api_backend
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import BaseWSGIServer, make_server

from local.emulator.batch_processes import BatchProcesses
from local.emulator.children import Children
from local.emulator.ecs_service import EcsServices
from local.emulator.lambda_processes import LambdaProcesses
from local.emulator.listening import HOST, EmbeddedAwsError, listen
from local.emulator.patches import StepFunctionsPatches, patch_common
from local.emulator.patching import MotoDoesNotFitError
from local.emulator.refusals import refuse_as_aws_does

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

REGION = "us-east-1"
ACCOUNT = "123456789012"

_CALLING_BACK = ("awslambda", "stepfunctions")
"""Services whose requests may wait for a process that sends them another request."""


@dataclass
class EmbeddedAws:
    """A running embedded AWS; at most one in a process."""

    endpoint: str
    _server: BaseWSGIServer
    _children: Children
    _batch: BatchProcesses

    @classmethod
    def start(cls, listener: socket.socket | None = None) -> "EmbeddedAws":
        """Start it, empty, on a socket from `listen`, by default one with a free port.

        Raises:
            EmbeddedAwsError: if the installed moto is another version than the patches need.
        """
        listener = listener or listen()
        port = listener.getsockname()[1]
        _configure_moto(port)
        endpoint = f"http://{HOST}:{port}"
        children = Children()
        try:
            patch_common()
            LambdaProcesses(children, endpoint)
            batch = BatchProcesses(children, endpoint)
            StepFunctionsPatches(endpoint, batch)
            EcsServices()
            refuse_as_aws_does()
        except MotoDoesNotFitError as error:
            children.close()
            listener.close()
            raise EmbeddedAwsError(str(error)) from error

        app = DomainDispatcherApplication(_create_app)
        server = make_server(HOST, port, app, threaded=True, request_handler=MotoRequestHandler, fd=listener.detach())
        threading.Thread(target=server.serve_forever, name="embedded-aws", daemon=True).start()
        return cls(endpoint, server, children, batch)

    def stop(self) -> None:
        """Stop serving and kill every process that it started."""
        self._server.shutdown()
        self._server.server_close()
        self._batch.close()
        self._children.close()


def _create_app(service: Any) -> Flask:
    app = create_backend_app(service)
    app.debug = False  # saves a twelfth of each request's time
    if service not in _CALLING_BACK:
        app.wsgi_app = _one_at_a_time(app.wsgi_app)  # type: ignore[method-assign]
    return app


def _one_at_a_time(serve: "WSGIApplication") -> "WSGIApplication":
    """Serialize requests: moto answers 500 when a request changes a dictionary that another one iterates over."""
    lock = threading.Lock()

    def serve_alone(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        with lock:
            return serve(environ, start_response)

    return serve_alone


def _configure_moto(port: int) -> None:
    os.environ["MOTO_PORT"] = str(port)
    os.environ["MOTO_EC2_LOAD_DEFAULT_AMIS"] = "false"  # over a thousand images, which no program here looks up
    default_user_config["stepfunctions"] = {"execute_state_machine": True}
    moto_api_backend.reset()
    # moto logs whole syntax trees when a state fails, and werkzeug logs every request.
    logging.getLogger("moto").setLevel(logging.CRITICAL)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
