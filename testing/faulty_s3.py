"""A proxy for an S3 server that fails like S3 does, at the HTTP level.

Rules define the fault of matching requests; other requests are forwarded. All requests are recorded.
"""

import re
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

Fault = Literal["answer", "reset", "lost", "cut", "cut and reset", "stall", "hold"]


@dataclass
class Rule:
    """A fault of the requests whose path and query match `pattern`."""

    method: str
    pattern: str
    """A regular expression, searched for in path and query."""
    fault: Fault
    """`answer`: respond with `status` and `code` without forwarding. `reset`: reset the connection without forwarding.
    `lost`: forward the request and reset before the response. `cut`: send half of the response's body and close. `cut
    and reset`: the same with a reset. `stall`: send half of the body and nothing more, until the client disconnects.
    `hold`: wait for `release` before forwarding."""
    times: float = 1
    """How many requests fail."""
    skip: int = 0
    """How many matching requests succeed before that."""
    status: int = 503
    code: str = "SlowDown"
    release: threading.Event = field(default_factory=threading.Event)
    reached: threading.Event = field(default_factory=threading.Event)
    """Set once the rule has been applied."""

    def matches(self, method: str, path: str) -> bool:
        if self.method != method or not re.search(self.pattern, path) or self.times < 1:
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.times -= 1
        return True


@dataclass
class FaultyS3:
    upstream: str
    """The S3 server's URL."""
    url: str = ""
    rules: list[Rule] = field(default_factory=list[Rule])
    requests: list[str] = field(default_factory=list[str])
    """Method and path of each request, in order."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fail(
        self, method: str, pattern: str, fault: Fault, times: float = 1, *, skip: int = 0, status: int = 503,
        code: str = "SlowDown",
    ) -> Rule:  # fmt: skip
        """Add a rule."""
        rule = Rule(method, pattern, fault, times, skip, status, code)
        self.rules.append(rule)
        return rule

    def find_rule(self, method: str, path: str) -> Rule | None:
        with self.lock:
            self.requests.append(f"{method} {path}")
            rule = next((rule for rule in self.rules if rule.matches(method, path)), None)
        if rule:
            rule.reached.set()
        return rule


@contextmanager
def faulty_s3(upstream: str) -> Iterator[FaultyS3]:
    """Run a proxy for the server at `upstream`."""
    proxy = FaultyS3(upstream)
    handler = type("Handler", (_Handler,), {"proxy": proxy})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    proxy.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield proxy
    finally:
        for rule in proxy.rules:
            rule.release.set()
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    proxy: FaultyS3

    def do_request(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        rule = self.proxy.find_rule(self.command, self.path)
        if rule is None:
            self.answer(*self.ask(body))
        else:
            self.fail(rule, body)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = do_request  # noqa: N815 - the names that http.server calls

    def fail(self, rule: Rule, body: bytes) -> None:
        match rule.fault:
            case "answer":
                error = f"<Error><Code>{rule.code}</Code><Message>Please wait.</Message></Error>".encode()
                headers = {"Content-Type": "application/xml"}
                self.answer(rule.status, headers, b"" if self.command == "HEAD" else error)
            case "reset":
                self.reset()
            case "lost":
                self.ask(body)
                self.reset()
            case "hold":
                rule.release.wait(60)
                self.answer(*self.ask(body))
            case "cut" | "cut and reset" | "stall":
                status, headers, answer = self.ask(body)
                self.answer(status, headers, answer[: len(answer) // 2], length=len(answer))
                self.close_connection = True
                if rule.fault == "cut and reset":
                    self.reset()
                if rule.fault == "stall":
                    self.connection.settimeout(60)
                    self.rfile.read(1)  # until the client closes

    def ask(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """Forward a request; return status, headers and body of the response."""
        connection = HTTPConnection(urlsplit(self.proxy.upstream).netloc, timeout=60)
        hop_by_hop = ("connection", "expect", "content-length", "transfer-encoding")
        headers = {name: value for name, value in self.headers.items() if name.lower() not in hop_by_hop}
        connection.request(self.command, self.path, body if self.command in ("PUT", "POST") else None, headers)
        answer: HTTPResponse = connection.getresponse()
        content = answer.read()
        kept = {name: value for name, value in answer.getheaders() if name.lower() not in hop_by_hop}
        if self.command == "HEAD":
            kept["Content-Length"] = answer.getheader("Content-Length", "0")
        connection.close()
        return answer.status, kept, content

    def answer(self, status: int, headers: dict[str, str], body: bytes, length: int | None = None) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def reset(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def handle_expect_100(self) -> bool:
        self.send_response_only(100)
        self.end_headers()
        return True

    def handle(self) -> None:
        with suppress(OSError, ValueError):  # the client has disconnected, or was reset
            super().handle()

    def finish(self) -> None:
        with suppress(OSError, ValueError):
            super().finish()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass
