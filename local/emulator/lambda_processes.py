"""Runs Lambda functions as real processes, from the zip that was deployed.

An execution environment is a process: as in AWS, it loads the handler once, serves one invocation at a time and is kept
for the next one. The handler's output goes to CloudWatch Logs between START, END and REPORT lines. Exceeding the
timeout or the function's memory ends the environment and fails the invocation.
"""

import base64
import contextlib
import io
import json
import secrets
import selectors
import signal
import subprocess
import sys
import threading
import time
import uuid
import zipfile
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
from moto.awslambda.models import LambdaFunction
from moto.core.utils import unix_time_millis

from local.emulator.children import Children, kill_group
from local.emulator.patching import replace

_BOOTSTRAP = Path(__file__).with_name("lambda_bootstrap.py")
_SITE_PACKAGES = Path(boto3.__file__).parent.parent

INIT_SECONDS = 60.0
"""Limit for loading a handler. AWS allows 10 s, but here many processes share a few cores."""

IDLE_KEPT = 4
"""Number of idle environments that are kept per function."""

_LOG_TAIL_BYTES = 4096


@dataclass
class _Answer:
    payload: str
    failed: bool
    logs: str


@dataclass
class _Environment:
    """One process and its log stream."""

    process: subprocess.Popen[bytes]
    token: bytes
    stream: str
    rest: bytes = b""
    """Bytes that were read after the last complete line."""
    lines: list[str] = field(default_factory=list[str])
    """Lines that were read and are not in CloudWatch Logs yet."""


class _EnvironmentGoneError(Exception):
    """The process ended before it answered."""


class LambdaProcesses:
    """Runs the invocations of moto's Lambda."""

    def __init__(self, children: Children, endpoint: str) -> None:
        self._children = children
        self._endpoint = endpoint
        self._lock = threading.Lock()
        self._idle: defaultdict[str, list[_Environment]] = defaultdict(list)
        # moto runs handlers only in Docker.
        replace(LambdaFunction, "invoke", "dadc324f30ae", self._invoke_over_http)

    def _invoke_over_http(
        self, _original: Any, function: LambdaFunction, body: Any, request_headers: Any, response_headers: Any
    ) -> bytes:
        answer = self._invoke(function, json.loads(body or "{}"))
        if answer.failed:
            response_headers["x-amz-function-error"] = "Unhandled"
        response_headers["x-amz-executed-version"] = str(function.version)
        if request_headers.get("x-amz-log-type") == "Tail":
            tail = answer.logs.encode()[-_LOG_TAIL_BYTES:]
            response_headers["x-amz-log-result"] = base64.b64encode(tail).decode()
        return answer.payload.encode()

    def _invoke(self, function: LambdaFunction, event: Any) -> _Answer:
        request_id = str(uuid.uuid4())
        kind = _kind(function)
        environment = self._take(kind)
        try:
            if environment is None:
                environment = self._start(function)
            logged = [*environment.lines, f"START RequestId: {request_id} Version: {function.version}"]
            environment.lines.clear()
            started = time.monotonic()
            record = self._ask(environment, function, event, request_id)
            milliseconds = (time.monotonic() - started) * 1000
        except OSError as error:
            record = _error("Runtime.InvalidEntrypoint", f"the function cannot be started: {error}")
            return _Answer(json.dumps(record["error"]), True, "")

        megabytes = record.get("megabytes", 0)
        if megabytes > function.memory_size:
            record = _error("Runtime.OutOfMemory", f"RequestId: {request_id} Error: Runtime exited: out of memory")
        logged += environment.lines
        environment.lines.clear()
        logged.append(f"END RequestId: {request_id}")
        logged.append(
            f"REPORT RequestId: {request_id}\tDuration: {milliseconds:.2f} ms\t"
            f"Billed Duration: {int(milliseconds) + 1} ms\tMemory Size: {function.memory_size} MB\t"
            f"Max Memory Used: {megabytes} MB"
        )
        self._log(function, environment.stream, logged)
        if record.get("fatal"):
            self._end(environment)
        else:
            self._give_back(kind, environment)
        failed = "error" in record
        payload = json.dumps(record["error"]) if failed else record["payload"]
        return _Answer(payload, failed, "\n".join(logged))

    def _take(self, kind: str) -> _Environment | None:
        with self._lock:
            while self._idle[kind]:
                environment = self._idle[kind].pop()
                if environment.process.poll() is None:
                    return environment
                self._children.ended(environment.process)
        return None

    def _give_back(self, kind: str, environment: _Environment) -> None:
        with self._lock:
            if len(self._idle[kind]) < IDLE_KEPT:
                self._idle[kind].append(environment)
                return
        self._end(environment)

    def _start(self, function: LambdaFunction) -> _Environment:
        token = secrets.token_hex(8)
        stream = f"{datetime.now(UTC):%Y/%m/%d}/[{function.version}]{uuid.uuid4().hex}"
        root = self._unpack(function)
        command = [sys.executable, "-I", "-S", str(_BOOTSTRAP), str(root), str(_SITE_PACKAGES), token]
        process = self._children.start(command, env=self._variables(function, root, stream), cwd=root)
        environment = _Environment(process, f"\x1e{token}".encode(), stream)
        with contextlib.suppress(_EnvironmentGoneError, TimeoutError):  # the next invocation reports it
            self._read_answer(environment, INIT_SECONDS)
        return environment

    def _unpack(self, function: LambdaFunction) -> Path:
        root = self._children.scratch / function.code_digest.replace(":", "-")
        with self._lock:
            if not root.exists():
                root.mkdir()
                zipfile.ZipFile(io.BytesIO(function.code_bytes)).extractall(root)
        return root

    def _variables(self, function: LambdaFunction, root: Path, stream: str) -> dict[str, str]:
        return {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self._children.scratch),
            "LANG": "en_US.UTF-8",
            "TZ": ":UTC",
            **function.environment_vars,
            "AWS_ACCESS_KEY_ID": "embedded",
            "AWS_SECRET_ACCESS_KEY": "embedded",
            "AWS_REGION": function.region,
            "AWS_DEFAULT_REGION": function.region,
            "AWS_ENDPOINT_URL": self._endpoint,
            "AWS_EXECUTION_ENV": f"AWS_Lambda_{function.run_time}",
            "AWS_LAMBDA_FUNCTION_NAME": function.function_name,
            "AWS_LAMBDA_FUNCTION_VERSION": str(function.version),
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory_size),
            "AWS_LAMBDA_LOG_GROUP_NAME": function.logs_group_name,
            "AWS_LAMBDA_LOG_STREAM_NAME": stream,
            "LAMBDA_TASK_ROOT": str(root),
            "_HANDLER": str(function.handler),
        }

    def _ask(self, environment: _Environment, function: LambdaFunction, event: Any, request_id: str) -> dict[str, Any]:
        seconds = float(function.timeout)
        request = {
            "event": event,
            "request_id": request_id,
            "function_arn": function.function_arn,
            "deadline": time.time() + seconds,
        }
        try:
            assert environment.process.stdin  # noqa: S101 - opened as a pipe
            data = memoryview(json.dumps(request).encode() + b"\n")
            while data:
                data = data[environment.process.stdin.write(data) or 0 :]
            return self._read_answer(environment, seconds)
        except TimeoutError:
            kill_group(environment.process, signal.SIGKILL)
            environment.lines.append(f"{request_id} Task timed out after {seconds:.2f} seconds")
            return _error(
                "Sandbox.Timedout", f"RequestId: {request_id} Error: Task timed out after {seconds:.2f} seconds"
            )
        except (_EnvironmentGoneError, BrokenPipeError):
            code = environment.process.wait()
            how = f"signal: {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
            return _error("Runtime.ExitError", f"RequestId: {request_id} Error: Runtime exited with error: {how}")

    def _read_answer(self, environment: _Environment, seconds: float) -> dict[str, Any]:
        """Read the process's output up to its answer.

        Raises:
            TimeoutError: if there is none within `seconds`.
            _EnvironmentGoneError: if the process ends without one.
        """
        pipe = environment.process.stdout
        assert pipe  # noqa: S101 - opened as a pipe
        deadline = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            while True:
                while b"\n" in environment.rest:
                    line, environment.rest = environment.rest.split(b"\n", 1)
                    before, marker, answer = line.partition(environment.token)
                    if before or not marker:
                        environment.lines.append(before.decode(errors="replace"))
                    if marker:
                        return json.loads(answer)
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise TimeoutError
                chunk = pipe.read(1 << 16)
                if not chunk:
                    raise _EnvironmentGoneError
                environment.rest += chunk

    def _log(self, function: LambdaFunction, stream: str, lines: list[str]) -> None:
        now = unix_time_millis()
        logs = function.logs_backend
        logs.ensure_log_group(function.logs_group_name)
        logs.ensure_log_stream(function.logs_group_name, stream)
        events = [{"timestamp": now, "message": line} for line in lines]
        logs.put_log_events(function.logs_group_name, stream, events)

    def _end(self, environment: _Environment) -> None:
        kill_group(environment.process, signal.SIGKILL)
        environment.process.wait()
        self._children.ended(environment.process)


def _kind(function: LambdaFunction) -> str:
    """Key of the environments that can serve `function`: those started with the same code and settings."""
    started_with = (
        function.function_arn,
        function.code_sha_256,
        function.handler,
        function.memory_size,
        function.version,
        sorted(function.environment_vars.items()),
    )
    return repr(started_with)


def _error(error_type: str, message: str) -> dict[str, Any]:
    """The result of an invocation that ended its process."""
    return {"error": {"errorMessage": message, "errorType": error_type}, "fatal": True}
