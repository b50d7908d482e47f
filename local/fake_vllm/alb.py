"""The local Application Load Balancer: one HTTP server on the loopback, in front of the fake vLLM or a real LLM server.

The Pulumi program sees its host and port as the load balancer's DNS name. Like the real one it answers 503 while it has
no healthy target, that is while the GPU group or the service is scaled to zero. If a client abandons a request, the
request to the target is cancelled too.
"""

import asyncio
import json
import os
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from http import HTTPStatus
from threading import Thread
from typing import Any, Protocol

import aiohttp
from aiohttp import web

from contract import ContractError, env
from contract.served_models import choose_model
from local.state import LocalError

IDLE_TIMEOUT = 300
"""Seconds that a request may take, including its time in the LLM server's queue; the program's load balancer has the
same limit."""

_CONNECT_SECONDS = 10
_CLIENTS_HEADERS = re.compile(r"(llm_provider-)?(retry-after|(x-)?rate-?limit-)|location$", re.IGNORECASE)
_MAX_QUOTED = 200
"""Characters of a server's error that a message quotes."""
_MAX_BODY_BYTES = 16 * 1024**2


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    """Names in lower case."""


@dataclass(frozen=True)
class Response:
    status: int
    body: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    """The server's headers that a client acts on."""


class Target(Protocol):
    """The server behind the load balancer."""

    model: str
    """The id of the model that it serves."""

    async def answer(self, request: Request) -> Response: ...

    async def close(self) -> None: ...


def json_response(status: int, document: dict[str, Any]) -> Response:
    return Response(status, json.dumps(document, ensure_ascii=False).encode())


class LocalAlb:
    """The load balancer: `start` runs it in a thread of its own, and `stop` ends it."""

    def __init__(
        self, target: Target, has_healthy_target: Callable[[], bool], count_request: Callable[[], None] = lambda: None
    ) -> None:
        """`has_healthy_target` is called on each request, `count_request` on each request that the target receives."""
        self._target = target
        self._has_healthy_target = has_healthy_target
        self._count_request = count_request
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=512)  # every worker connects at once
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._thread = Thread(target=self._loop.run_until_complete, args=(self._serve(),), daemon=True, name="alb")
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        """Host and port: the load balancer's DNS name."""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()
        self._loop.close()

    async def _serve(self) -> None:
        app = web.Application(client_max_size=_MAX_BODY_BYTES)
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0)
        await runner.setup()
        await web.SockSite(runner, self._socket).start()
        await self._stopping.wait()
        await runner.cleanup()
        await self._target.close()

    async def _handle(self, request: web.Request) -> web.Response:
        if not self._has_healthy_target():
            answer = _html(HTTPStatus.SERVICE_UNAVAILABLE)
        else:
            self._count_request()
            headers = {name.lower(): value for name, value in request.headers.items()}
            forwarded = Request(request.method, request.path_qs, await request.read(), headers)
            answer = await self._target.answer(forwarded)
        headers = {**answer.headers, "content-type": answer.content_type}
        return web.Response(status=answer.status, body=answer.body, headers=headers)


class RealServer:
    """An OpenAI-compatible server that requests are forwarded to.

    LLM_API_KEY of the daemon's environment is sent as its key; without one, the client's own key is passed through.
    """

    def __init__(self, url: str, model: str | None = None) -> None:
        """Ask the server at `url`, with or without `/v1`, for its models, and choose `model` or its only chat model.

        Raises:
            LocalError: if the key cannot be sent, the server does not answer as an OpenAI-compatible server does, or
                it does not say which model to use.
        """
        if not url.startswith(("http://", "https://")):
            raise LocalError(f"{url!r} is not the base URL of an LLM server: write http://host:port/v1, or https")
        self._base = url.rstrip("/").removesuffix("/v1")
        try:
            self._key = env.llm_api_key(os.environ)
            self.model = choose_model(self._list_models(url), model, "--llm-model")
        except ContractError as error:
            raise LocalError(f"the LLM server at {url}: {error}") from error

    async def answer(self, request: Request) -> Response:
        """Forward the request; if the server fails, answer as a load balancer does."""
        # vLLM has /health, other servers may not: one that lists its models is healthy.
        health = request.path == "/health"
        try:
            answer = await self._send(self._session, "/v1/models" if health else request.path, request)
        except TimeoutError:
            return _html(HTTPStatus.GATEWAY_TIMEOUT)
        except aiohttp.ClientError:
            return _html(HTTPStatus.BAD_GATEWAY)
        return Response(answer.status, b"", "text/plain") if health else answer

    async def close(self) -> None:
        await self._session.close()

    @cached_property
    def _session(self) -> aiohttp.ClientSession:
        """Created on first use, since it belongs to the running event loop."""
        timeout = aiohttp.ClientTimeout(total=IDLE_TIMEOUT, sock_connect=_CONNECT_SECONDS)
        return aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=256))

    def _list_models(self, url: str) -> list[str]:
        try:
            answer = asyncio.run(self._fetch_models())
        except TimeoutError as error:
            raise LocalError(f"the LLM server at {url} does not answer within {_CONNECT_SECONDS} s") from error
        except (aiohttp.ClientError, ValueError) as error:
            raise LocalError(f"the LLM server at {url} does not answer: {error}") from error
        if answer.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            key = f"the key in {env.LLM_API_KEY}" if self._key else f"a request without a key: set {env.LLM_API_KEY}"
            raise LocalError(f"the LLM server at {url} refuses {key} ({self._quote(answer)})")
        try:
            return [str(model["id"]) for model in json.loads(answer.body)["data"]]
        except (ValueError, LookupError, TypeError) as error:
            raise LocalError(
                f"the LLM server at {url} answered GET /v1/models without a list of models ({self._quote(answer)}): "
                f"give the base URL of an OpenAI-compatible server, and its key, if it needs one, in {env.LLM_API_KEY}"
            ) from error

    def _quote(self, answer: Response) -> str:
        """The status and the server's error, on one line and without the key."""
        body = answer.body.decode(errors="replace")
        body = body.replace(self._key, "***") if self._key else body
        try:
            error = json.loads(body)["error"]
            body = str(error["message"] if isinstance(error, dict) else error)
        except (ValueError, LookupError, TypeError):
            body = re.sub(r"<[^>]*>", " ", body)
        return f"HTTP {answer.status}: {' '.join(body.split())[:_MAX_QUOTED]}".removesuffix(": ")

    async def _fetch_models(self) -> Response:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_CONNECT_SECONDS)) as session:
            return await self._send(session, "/v1/models", Request("GET", "/v1/models", b""))

    async def _send(self, session: aiohttp.ClientSession, path: str, request: Request) -> Response:
        headers = {name: request.headers[name] for name in ("content-type", "authorization") if name in request.headers}
        if self._key:
            headers["authorization"] = f"Bearer {self._key}"
        url, body = self._base + path, request.body or None
        async with session.request(request.method, url, data=body, headers=headers, allow_redirects=False) as answer:
            content_type = answer.headers.get("content-type", "application/json")
            forwarded = {name: value for name, value in answer.headers.items() if _CLIENTS_HEADERS.match(name)}
            return Response(answer.status, await answer.read(), content_type, forwarded)


def _html(status: HTTPStatus) -> Response:
    """An answer of the load balancer itself."""
    page = f"<html><head><title>{status} {status.phrase}</title></head><body><h1>{status} {status.phrase}</h1></body>"
    return Response(status, f"{page}</html>".encode(), "text/html")
