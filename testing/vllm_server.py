"""A real vLLM on the CPU, started with the arguments of the task definition."""

import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any

from local.deploy import program
from testing.paper_cloud import Deployed, PaperCloud

ROOT = Path(__file__).parents[1]
ENVIRONMENT = ROOT / ".venv-vllm"
START_SECONDS = 240

NEEDS_GPU = {"--gpu-memory-utilization"}
"""Arguments of the task definition that do not apply to a CPU."""
FOR_THE_TEST = [
    "--dtype",  # a CPU without AVX-512 is three times slower with bfloat16
    "float32",
    "--enforce-eager",  # compiling takes longer than the test
    "--structured-outputs-config",  # random weights produce any amount of whitespace that a schema allows
    '{"backend":"guidance","disable_any_whitespace":true}',
]


def build_model(folder: Path, script: str = "tiny_qwen3.py") -> None:
    """Write a model into `folder` with a script of this folder, by default the tiny random Qwen3."""
    build = Path(__file__).with_name(script)
    subprocess.run([ENVIRONMENT / "bin" / "python", build, folder], check=True, capture_output=True)


@cache
def deployed_command() -> list[str]:
    """The arguments of `vllm serve` in the task definition: the model, then options."""
    run = program.preview("prod", PaperCloud(), root=ROOT)
    task = Deployed(run, []).one("ecs/taskDefinition:TaskDefinition")
    (container,) = json.loads(task["containerDefinitions"])
    return container["command"]


def cpu_command(model: Path, port: int) -> list[str]:
    """The deployed command for a tiny model on a CPU."""
    _, *options = deployed_command()
    command = [str(model)]
    for option, value in _pairs(options):
        if option in NEEDS_GPU:
            continue
        command += [option, *({"--port": [str(port)]}.get(option, value))]
    return command + FOR_THE_TEST


def _pairs(words: list[str]) -> list[tuple[str, list[str]]]:
    pairs: list[tuple[str, list[str]]] = []
    for word in words:
        if word.startswith("--"):
            pairs.append((word, []))
        else:
            pairs[-1][1].append(word)
    return pairs


@dataclass
class VllmServer:
    model: Path
    log: Path
    port: int = 0
    process: subprocess.Popen[bytes] | None = None
    core: int | None = None
    """The only core that the server may use; None for all cores."""
    _output: IO[bytes] | None = None

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def served_model(self) -> str:
        command = deployed_command()
        return command[command.index("--served-model-name") + 1]

    def start(self) -> None:
        """Start the server and wait until it is healthy; a restarted server keeps its port."""
        self.port = self.port or _free_port()
        self._output = self.log.open("ab")
        self.process = subprocess.Popen(
            [
                *self._pinned(),
                str(ENVIRONMENT / "bin" / "vllm"),
                "serve",
                *cpu_command(self.model, self.port),
            ],
            env={
                "PATH": f"{ENVIRONMENT / 'bin'}:{os.environ['PATH']}",
                "HOME": str(self.model.parent),
                "VLLM_CPU_KVCACHE_SPACE": "1",
                "HF_HUB_OFFLINE": "1",
                "VLLM_NO_USAGE_STATS": "1",
                **({} if self.core is None else {"VLLM_CPU_OMP_THREADS_BIND": str(self.core)}),
            },
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        deadline = time.monotonic() + START_SECONDS
        while not self.healthy():
            assert self.process.poll() is None, f"vLLM ended: {self.log.read_text()[-3000:]}"
            assert time.monotonic() < deadline, f"vLLM is not healthy: {self.log.read_text()[-3000:]}"
            time.sleep(0.2)

    def _pinned(self) -> list[str]:
        return [] if self.core is None else ["taskset", "--cpu-list", str(self.core)]

    def kill(self) -> None:
        """Kill the server, like a reclaimed host."""
        if self.process and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        if self._output:
            self._output.close()

    def healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        return sum(float(value) for value in re.findall(rf"^{re.escape(name)}(?:{{.*}})? (\S+)$", text, re.MULTILINE))

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 (our own server)
            return json.loads(answer.read())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
