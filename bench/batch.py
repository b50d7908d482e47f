"""Measures the worker on a whole batch, with a bucket on moto's server and an LLM of constant latency."""

import logging
import subprocess
import sys
import threading
import time
from typing import Any

import pyarrow as pa

from contract import env
from testing.aws_server import aws_server, s3_client
from testing.worker import BUCKET, CHUNK_SCHEMA, QUARTER, Bucket, LlmServer, Reply, batch_environment, serving
from worker.firm import Firm

LATENCY_SECONDS = 0.2
IN_FLIGHT = 16


def measure(firms: list[Firm]) -> list[dict[str, Any]]:
    """Measure seconds, the share of them in which the LLM was idle between first and last request, and memory."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # moto logs each request
    llm, watch = LlmServer(), _Watch()
    llm.gate.set()
    llm.behave = watch.answer
    with aws_server() as aws:
        s3 = s3_client(aws["AWS_ENDPOINT_URL"])
        s3.create_bucket(Bucket=BUCKET)
        bucket = Bucket(s3, aws)
        rows = [row for firm in firms for row in _rows(firm)]
        bucket.put_chunk("chunk_0000.parquet", pa.Table.from_pylist(rows, CHUNK_SCHEMA))
        bucket.put_manifests({firm.firm_id: "chunk_0000.parquet" for firm in firms})
        with serving(llm):
            environ = batch_environment(bucket, llm.url)
            environ |= {env.LLM_MAX_CONCURRENT: str(IN_FLIGHT), env.CHECKPOINT_INTERVAL: "10"}
            began = time.monotonic()
            process = subprocess.Popen([sys.executable, "-m", "worker"], env=environ, stdout=subprocess.DEVNULL)
            peak = _peak_memory(process)
            seconds = time.monotonic() - began
            progress = bucket.progress()
    return [
        {
            "exit": process.returncode,
            "firms": len(progress.completed) + len(progress.skipped),
            "topics": progress.counts.topics,
            "seconds": round(seconds, 1),
            "until the first request": round(watch.first - began, 2),
            "LLM idle": f"{watch.idle / max(0.001, watch.last - watch.first):.1%}",
            "mean in flight": round(watch.busy / max(0.001, watch.last - watch.first), 1),
            "peak MB": peak,
        }
    ]


class _Watch:
    """Counts the requests in progress at the LLM over time."""

    def __init__(self) -> None:
        self.first = self.last = 0.0
        self.idle = self.busy = 0.0
        self._now = 0
        self._lock = threading.Lock()

    def answer(self, _number: int, _request: dict[str, Any]) -> Reply:
        self._change(1)
        time.sleep(LATENCY_SECONDS)
        self._change(-1)
        return Reply()

    def _change(self, by: int) -> None:
        with self._lock:
            now = time.monotonic()
            self.first = self.first or now
            passed = now - (self.last or now)
            self.busy += passed * self._now
            self.idle += passed if self._now == 0 else 0.0
            self.last = now
            self._now += by


def _peak_memory(process: subprocess.Popen[bytes]) -> int:
    """The peak memory, in MB, of the worker and its topic process."""
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, sum(_resident(pid) for pid in [process.pid, *_children(process.pid)]))
        time.sleep(0.1)
    return round(peak)


def _children(pid: int) -> list[int]:
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return [int(child) for child in file.read().split()]
    except OSError:
        return []


def _resident(pid: int) -> float:
    try:
        with open(f"/proc/{pid}/status") as file:
            return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmRSS"))
    except (OSError, StopIteration):
        return 0.0


def _rows(firm: Firm) -> list[dict[str, Any]]:
    return [
        {
            "firm_id": firm.firm_id,
            "firm_name": firm.firm_name,
            "permno": firm.permno,
            "gvkey": firm.gvkey,
            "earnings_call_date": firm.earnings_call_date,
            "quarter": QUARTER,
            **vars(sentence),
        }
        for sentence in firm.sentences
    ]
