"""`python -m bench [FOLDER]`: measures the worker on the prefetch in FOLDER, or on sample calls.

FOLDER is the folder that contains `prefetch/transcripts/quarter=...`; a `firms.csv` in it gives the sectors by which
themes are judged. Parts whose packages are not installed are skipped and named; `make bench` installs everything.
"""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench import batch, firms, naming, preview, prompts, startup, themes, topics
from testing.vllm_server import ENVIRONMENT, VllmServer, build_model

FIRMS = 50
FIRMS_OF_THEMES = 1_000


def main(arguments: list[str]) -> None:
    folder = Path(arguments[0]) if arguments else None
    measured = firms.load(folder, FIRMS)
    rows = sum(len(firm.sentences) for firm in measured)
    print(f"{len(measured)} firms, {rows / len(measured):.0f} sentences each")
    show("Topics", topics.compare(measured))
    if topics.missing():
        print(f"  left out without {' and '.join(topics.missing())}: make bench installs the extra `bench`")
    everyone = firms.load(folder, FIRMS_OF_THEMES) if folder else measured
    show("Themes", themes.compare(everyone, themes.read_sectors(folder)))
    show("Themes at scale", themes.at_scale(everyone))
    show("What the LLM is shown", topics.representativeness(measured))
    if prompts.available():
        show("Prompts, in Qwen's tokens", prompts.tokens(measured))
    else:
        print("\nPrompts: left out without dashscope and tiktoken, which hold Qwen's tokens; make bench installs them")
    show("A batch of these firms, an LLM that takes 0.2 s, 16 in flight", batch.measure(measured))
    show("Naming at a server limited to 50 requests a second", naming.at_a_limited_server())
    if preview.available():
        show("A preview of a new stack on Pulumi's engine", preview.measure())
    else:
        print("\nPreview: left out without Pulumi's CLI: see https://www.pulumi.com/docs/install/")
    if startup.available():
        show("The start of ftm", startup.measure())
    else:
        print("\nThe start of ftm: left out without the AWS CLI; make bench installs it")
    if not (ENVIRONMENT / "bin" / "vllm").exists():
        print("\nNaming: left out without vLLM's CPU build; make bench installs it")
        return
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "tiny-qwen3"
        build_model(model)
        # Server and client each have a core, as if they ran on separate machines.
        *others, core = sorted(os.sched_getaffinity(0))
        server = VllmServer(model, Path(folder) / "vllm.log", core=core if others else None)
        try:
            server.start()
            os.sched_setaffinity(0, others or {core})
            show("Naming, tiny Qwen3 on vLLM's CPU build", naming.throughput(server.base_url, server.served_model))
        finally:
            server.kill()


def show(title: str, rows: list[dict[str, Any]]) -> None:
    print(f"\n{title}")
    cells = [[str(column) for column in rows[0]], *([str(value) for value in row.values()] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    for line in cells:
        print("  " + "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
