"""The local Application Load Balancer: one HTTP server on the loopback, in front of the vLLM stand-in or a real server.

Its host and port are what the program sees as the load balancer's DNS name. Like the real one it answers 503 while it
has no healthy target, which is while the GPU group or the service is scaled to zero.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Protocol, cast

import urllib3

from contract import ContractError, env
from local.state import LocalError

IDLE_TIMEOUT = 300
"""Seconds that a completion may take, queue included; the program sets the real load balancer's to the same."""


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    body: bytes
    headers: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class Response:
    status: int
    body: bytes
    content_type: str = "application/json"


class Target(Protocol):
    """What stands behind the load balancer."""

    model: str
    """The id of the model that it serves."""

    def answer(self, request: Request) -> Response: ...


def json_response(status: int, document: dict[str, Any]) -> Response:
    return Response(status, json.dumps(document, ensure_ascii=False).encode())


class LocalAlb:
    """The load balancer; `start` it, and `stop` it in the end."""

    def __init__(self, target: Target, has_healthy_target: Callable[[], bool]) -> None:
        self._server = _Server(target, has_healthy_target)
        self.address = f"127.0.0.1:{self._server.server_port}"
        """Host and port: the DNS name."""

    def start(self) -> None:
        Thread(target=self._server.serve_forever, args=(0.05,), daemon=True, name="alb").start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class RealServer:
    """An OpenAI-compatible server that requests are forwarded to.

    Its key, if it wants one, is `LLM_API_KEY` of the daemon's environment; the worker's own goes through otherwise.
    """

    def __init__(self, url: str) -> None:
        """Ask the server at `url`, with or without its `/v1`, which model it serves.

        Raises:
            LocalError: when the key cannot be sent, or it does not answer as an OpenAI-compatible server does.
        """
        if not url.startswith(("http://", "https://")):
            raise LocalError(f"{url!r} is not the base URL of an LLM server: write http://host:port/v1, or https")
        self._base = url.rstrip("/").removesuffix("/v1")
        try:
            self._key = env.llm_api_key(os.environ)
        except ContractError as error:
            raise LocalError(str(error)) from error
        self._pool = urllib3.PoolManager(maxsize=256, retries=False)
        self.model = self._first_model(url)

    def answer(self, request: Request) -> Response:
        """Forward the request; failures are answered as a load balancer does."""
        # vLLM has /health, other servers may not: whoever lists its models is healthy.
        health = request.path == "/health"
        try:
            answer = self._ask(request.method, "/v1/models" if health else request.path, request)
        except urllib3.exceptions.NewConnectionError:  # a kind of TimeoutError to urllib3
            return _html(HTTPStatus.BAD_GATEWAY)
        except urllib3.exceptions.TimeoutError:
            return _html(HTTPStatus.GATEWAY_TIMEOUT)
        except urllib3.exceptions.HTTPError:
            return _html(HTTPStatus.BAD_GATEWAY)
        return Response(answer.status, b"", "text/plain") if health else answer

    def _first_model(self, url: str) -> str:
        try:
            answer = self._ask("GET", "/v1/models", Request("GET", "/v1/models", b""), timeout=10)
        except urllib3.exceptions.HTTPError as error:
            # urllib3 starts with its own object: "HTTPConnection(host=..., port=...): Failed to ..."
            reason = str(error).partition("): ")[2] or str(error)
            raise LocalError(f"the LLM server at {url} does not answer: {reason}") from error
        try:
            return str(json.loads(answer.body)["data"][0]["id"])
        except (ValueError, LookupError, TypeError) as error:
            said = f"answered GET /v1/models with HTTP {answer.status} and no model"
            raise LocalError(f"the LLM server at {url} {said}: give the base URL of one that serves a model") from error

    def _ask(self, method: str, path: str, request: Request, timeout: float = IDLE_TIMEOUT) -> Response:
        headers = {name: request.headers[name] for name in ("content-type", "authorization") if name in request.headers}
        if self._key:
            headers["authorization"] = f"Bearer {self._key}"
        answer = self._pool.request(
            method, self._base + path, body=request.body or None, headers=headers, timeout=timeout, redirect=False
        )
        return Response(answer.status, answer.data, answer.headers.get("content-type", "application/json"))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512  # every worker opens its connections at once

    def __init__(self, target: Target, has_healthy_target: Callable[[], bool]) -> None:
        self.target = target
        self.has_healthy_target = has_healthy_target
        super().__init__(("127.0.0.1", 0), _Handler)

    def answer(self, request: Request) -> Response:
        if not self.has_healthy_target():
            return _html(HTTPStatus.SERVICE_UNAVAILABLE)
        return self.target.answer(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "ftm-alb", ""
    timeout = IDLE_TIMEOUT
    wbufsize = -1  # head and body leave in one packet; else each answer waits for a delayed acknowledgement

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = cast(_Server, self.server).answer(Request(self.command, self.path, self.rfile.read(length), headers))
        self.send_response(answer.status)
        self.send_header("content-type", answer.content_type)
        self.send_header("content-length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
        """Nobody reads it."""


def _html(status: HTTPStatus) -> Response:
    """The load balancer's own answer."""
    page = f"<html><head><title>{status} {status.phrase}</title></head><body><h1>{status} {status.phrase}</h1></body>"
    return Response(status, f"{page}</html>".encode(), "text/html")
