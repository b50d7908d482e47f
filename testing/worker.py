"""Shared by the worker's tests and benchmarks: sample calls, a bucket with helpers, a small LLM server that can fail,
and the worker."""

import asyncio
import json
import multiprocessing.forkserver
import os
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO, StringIO
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq

from contract import env
from contract.batch import BatchLine, BatchProgress, parse_progress
from contract.layout import RunRef, chunk_key, prefetch_manifest_key
from contract.prefetch import SENTENCE_COLUMNS
from llm.client import Clock
from worker.__main__ import main

BUCKET = "worker-tests"
QUARTER = "2023Q1"
RUN = RunRef(QUARTER, "20230405_101500")
BATCH = "2023Q1_batch_0000"
MODEL = "tiny-model"
PROMPT_TOKENS = 600
"""The tokens that the LLM server reports for each prompt; typical for a topic with eight sentences."""

SUBJECTS = [
    "crude oil prices and drilling activity in the basin",
    "gross margin expansion from lower freight costs",
    "share repurchases and dividend policy of the board",
    "cloud subscription bookings and customer renewals",
    "clinical trial enrollment and regulatory approval",
]


class FakeTime:
    """A clock whose sleeps take no time; `slept` records their durations."""

    def __init__(self, on_sleep: Callable[[float], None] = lambda _seconds: None) -> None:
        self.slept: list[float] = []
        self._on_sleep = on_sleep

    @property
    def clock(self) -> Clock:
        return Clock(now=lambda: sum(self.slept), sleep=self._sleep, jitter=lambda: 0.5)

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self._on_sleep(sum(self.slept))
        await asyncio.sleep(0)


@dataclass
class Reply:
    """The reaction of the LLM server to one request."""

    status: int = 200
    body: Any = None
    """JSON, or raw bytes; None for a good name."""
    finish_reason: str = "stop"
    close: bool = False
    """Close the connection without a response."""


NOT_FOUND = Reply(status=404, body={"detail": "Not Found"})

Behaviour = Callable[[int, dict[str, Any]], Reply]
"""Returns the reaction to a request, from its number (from 0) and its JSON."""


@dataclass
class LlmServer:
    """An OpenAI-compatible server; `behave` decides its reactions, and `requests` records what it received."""

    behave: Behaviour = field(default=lambda _number, _request: Reply())
    models: Reply = field(default_factory=lambda: Reply(body={"object": "list", "data": [{"id": MODEL}]}))
    requests: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    most_at_once: int = 0
    gate: threading.Event = field(default_factory=threading.Event)
    """Completions wait while this is clear."""
    url: str = ""
    _at_once: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, request: dict[str, Any]) -> Reply:
        with self._lock:
            number = len(self.requests)
            self.requests.append(request)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            self.gate.wait(60)
            return self.behave(number, request)
        finally:
            with self._lock:
                self._at_once -= 1


def completion(content: str, finish_reason: str = "stop") -> dict[str, Any]:
    """A response in vLLM's format."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": MODEL,
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": finish_reason},
        ],
        "usage": {
            "prompt_tokens": PROMPT_TOKENS,
            "completion_tokens": 10 if finish_reason == "stop" else 10_000,
            "total_tokens": PROMPT_TOKENS + 10,
            "prompt_tokens_details": {"cached_tokens": 64},
        },
    }


def good_name(request: dict[str, Any]) -> str:
    """A name that depends only on the keywords of the topic."""
    line = next(line for line in request["messages"][1]["content"].splitlines() if line.startswith("Keywords: "))
    first, second = (line.removeprefix("Keywords: ") + ", outlook").split(", ")[:2]
    return json.dumps({"name": f"Outlook for {first} and {second}", "summary": f"The call discusses {first}."})


@contextmanager
def serving(server: LlmServer) -> Iterator[None]:
    """Run the LLM server at its `url`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = (
            True  # headers and body are written separately: the body would wait for an acknowledgement
        )

        def do_GET(self) -> None:
            self.send(server.models if self.path == "/v1/models" else NOT_FOUND)

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            reply = server.answer(request) if self.path == "/v1/chat/completions" else NOT_FOUND
            if reply.status == 200 and reply.body is None and not reply.close:
                reply = Reply(body=completion(good_name(request), reply.finish_reason))
            self.send(reply)

        def send(self, reply: Reply) -> None:
            if reply.close:
                self.close_connection = True
                self.connection.close()
                return
            body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body or {}).encode()
            self.send_response(reply.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def handle(self) -> None:
            with suppress(OSError, ValueError):  # the client has disconnected, or was disconnected
                super().handle()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
    server.url = f"http://127.0.0.1:{http.server_port}/v1"
    yield
    server.gate.set()
    http.shutdown()
    http.server_close()


@dataclass
class Bucket:
    """The bucket, with helpers that write a prefetch and read results."""

    s3: Any
    aws: dict[str, str]

    def put(self, key: str, body: bytes) -> None:
        self.s3.put_object(Bucket=BUCKET, Key=key, Body=body)

    def get(self, key: str) -> bytes:
        return self.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()

    def put_firms(self, firms: dict[str, list[dict[str, Any]]], chunk: str = "chunk_0000.parquet") -> None:
        """Write a prefetch of one chunk, and a batch of all its firms."""
        rows = [row for sentences in firms.values() for row in sentences]
        self.put_chunk(chunk, pa.Table.from_pylist(rows, CHUNK_SCHEMA))
        self.put_manifests(dict.fromkeys(firms, chunk))

    def put_chunk(self, name: str, table: pa.Table) -> None:
        sink = BytesIO()
        pq.write_table(table, sink)
        self.put(chunk_key(QUARTER, name), sink.getvalue())

    def put_manifests(self, firm_to_chunk: dict[str, str], batch: list[str] | None = None) -> None:
        chunks = sorted(set(firm_to_chunk.values()))
        manifest = {
            "quarter": QUARTER,
            "created_at": "2023-04-01T00:00:00Z",
            "n_firms": len(firm_to_chunk),
            "n_chunks": len(chunks),
            "chunk_sizes": {name: list(firm_to_chunk.values()).count(name) for name in chunks},
            "firm_to_chunk": firm_to_chunk,
        }
        self.put(prefetch_manifest_key(QUARTER), json.dumps(manifest).encode())
        other = BatchLine("2023Q1_batch_0001", QUARTER, ["OTHER"])
        line = BatchLine(BATCH, QUARTER, batch if batch is not None else list(firm_to_chunk))
        self.put(RUN.manifest_key, f"{other.to_json()}\n{line.to_json()}\n".encode())

    def progress(self) -> BatchProgress:
        return parse_progress(self.get(RUN.progress_key(BATCH)))

    def keys(self, prefix: str) -> list[str]:
        return [item["Key"] for item in self.s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])]

    def topics(self) -> list[dict[str, Any]]:
        """The rows of the parts that the record lists."""
        return [row for key in self.progress().parts for row in pq.read_table(BytesIO(self.get(key))).to_pylist()]


CHUNK_SCHEMA = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in SENTENCE_COLUMNS.items()])


def sentence(firm: str, position: int, raw_text: str, **other: Any) -> dict[str, Any]:
    """One row of a chunk."""
    return {
        "firm_id": firm,
        "firm_name": f"{firm.title()} Industries, Inc.",
        "permno": 10001,
        "gvkey": "001234",
        "transcript_id": f"{firm}-1",
        "earnings_call_date": date(2023, 2, 3),
        "sentence_id": f"{firm}_{firm}-1_{position:04d}",
        "raw_text": raw_text,
        "cleaned_text": raw_text.lower().rstrip("."),
        "speaker_type": "Executive",
        "position": position,
        "quarter": QUARTER,
        **other,
    }


def call(firm: str, sentences: int = 60) -> list[dict[str, Any]]:
    """A call about five subjects."""
    return [
        sentence(firm, n, f"In segment {n} we saw {SUBJECTS[n * len(SUBJECTS) // sentences]} improve by {n} percent.")
        for n in range(sentences)
    ]


@dataclass
class Worker:
    """The worker, with the environment that Batch gives it."""

    environ: dict[str, str]

    def start(self, **changes: str | None) -> subprocess.Popen[str]:
        """Start `python -m worker`, as Batch does."""
        return subprocess.Popen(
            [sys.executable, "-m", "worker"],
            env=self._environment(changes),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    @contextmanager
    def fork(self, prepare: Callable[[], None] | None = None, **changes: str | None) -> Iterator["ForkedWorker"]:
        """Run the worker's `__main__` in a process that has imported its modules already, and kill it at the end.

        For tests that send signals. SIGTERM is blocked at first, as by the image's entry point. `prepare` is called in
        the process before the worker's code.
        """
        process = ForkedWorker(self._environment(changes), prepare)
        try:
            yield process
        finally:
            process.kill()

    def run(self, clock: Clock | None = None, **changes: str | None) -> subprocess.CompletedProcess[str]:
        """Run the worker in this process."""
        return self.call(lambda environ: main(environ, clock), "", **changes)

    def call(
        self, work: Callable[[dict[str, str]], int], stdin: str = "", **changes: str | None
    ) -> subprocess.CompletedProcess[str]:
        """Run the entry point `work` in this process, with the worker's environment and separate standard streams.

        All runs share a topic process: starting one takes longer than finding the topics of a test.
        """
        environ = self._environment(changes)
        stdout, stderr = StringIO(), StringIO()
        with (
            patch.dict(os.environ, environ, clear=True),
            patch("worker.topics.process.ProcessPoolExecutor", _topic_process),
            patch("sys.stdin", StringIO(stdin)),
            redirect_stdout(stdout),
            redirect_stderr(stderr),
        ):
            code = work(environ)
        return subprocess.CompletedProcess("worker", code, stdout.getvalue(), stderr.getvalue())

    def run_process(self, **changes: str | None) -> subprocess.CompletedProcess[str]:
        process = self.start(**changes)
        try:
            stdout, stderr = process.communicate(timeout=240)
        finally:
            kill(process)
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

    def _environment(self, changes: dict[str, str | None]) -> dict[str, str]:
        return {name: value for name, value in {**self.environ, **changes}.items() if value is not None}


class ForkedWorker:
    """A worker in a forked process; see `Worker.fork`."""

    def __init__(self, environ: dict[str, str], prepare: Callable[[], None] | None) -> None:
        context = _loaded_processes()
        pipes = [context.Pipe(duplex=False) for _ in range(2)]
        self._outputs = [reader for reader, _ in pipes]
        writers = [writer for _, writer in pipes]
        self._process = context.Process(target=_run_main, args=(environ, prepare, writers))
        self._process.start()
        for writer in writers:
            writer.close()

    @property
    def is_running(self) -> bool:
        return self._process.is_alive()

    def send(self, number: signal.Signals) -> None:
        """Send a signal; the process may have ended already."""
        with suppress(ProcessLookupError):
            os.kill(self._process.ident or 0, number)

    def kill(self) -> None:
        """Send SIGKILL. The topic process ends by itself."""
        self._process.kill()
        self._process.join()

    def finish(self) -> subprocess.CompletedProcess[str]:
        """Wait for the end of the worker."""
        self._process.join(240)
        code = self._process.exitcode
        assert code is not None, "the worker does not end"
        return subprocess.CompletedProcess("worker", code, *(_read(output) for output in self._outputs))


def _read(output: Connection) -> str:
    with os.fdopen(os.dup(output.fileno())) as file:
        return file.read()


def _run_main(environ: dict[str, str], prepare: Callable[[], None] | None, outputs: Sequence[Connection]) -> None:
    for number, output in enumerate(outputs, 1):
        os.dup2(output.fileno(), number)
        output.close()
    os.environ.clear()
    os.environ.update(environ)
    if prepare:
        prepare()
    del sys.modules["worker.__main__"]  # which this module has imported
    # Its topic process is forked from the same server: Python would start another one here.
    server = vars(multiprocessing.forkserver)["_forkserver"]
    with (
        patch.object(server, "ensure_running"),
        patch("multiprocessing.get_context", lambda _method: get_context("forkserver")),
    ):
        runpy.run_module("worker", run_name="__main__", alter_sys=True)


class _LastingPool(ProcessPoolExecutor):
    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Python ends the process when the tests end."""


def _topic_process(*_: object, **__: object) -> ProcessPoolExecutor:
    return _lasting_pool()


@cache
def _lasting_pool() -> ProcessPoolExecutor:
    return _LastingPool(1, _loaded_processes())


@cache
def _loaded_processes() -> ForkServerContext:
    context = get_context("forkserver")
    context.set_forkserver_preload(["__main__", "testing.worker_modules"])
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    multiprocessing.forkserver.ensure_running()
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return context


def batch_environment(bucket: Bucket, base_url: str) -> dict[str, str]:
    """The environment variables that Batch gives the worker of the sample batch."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", "/"),
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        **bucket.aws,
        env.S3_BUCKET: BUCKET,
        env.QUARTER: QUARTER,
        env.BATCH_ID: BATCH,
        env.MANIFEST_S3_KEY: RUN.manifest_key,
        env.CHECKPOINT_INTERVAL: "2",
        env.LLM_BASE_URL: base_url,
        env.LLM_MAX_CONCURRENT: "8",
    }


def kill(process: subprocess.Popen[str]) -> None:
    """Send SIGKILL to the worker and its topic process."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
