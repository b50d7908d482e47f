"""The firms to measure with: from a prefetch folder, or sample calls."""

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import cast

from contract.bucket import Bucket, Stored
from contract.layout import prefetch_manifest_key
from contract.prefetch import parse_prefetch_manifest
from local.samples import writer as samples
from worker.firm import Firm
from worker.prefetch import read_firms

SAMPLE_QUARTER = "2023Q1"


class Folder:
    """A folder with the layout of the bucket, read like a bucket."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def get(self, key: str) -> Stored:
        return Stored((self.root / key).read_bytes(), etag="")


def load(folder: Path | None, count: int) -> list[Firm]:
    """Firms of typical size, spread over a prefetch; `folder` is the folder that contains `prefetch/`."""
    if folder is None:
        with tempfile.TemporaryDirectory() as made:
            root = Path(made)
            quarter_folder = root / prefetch_manifest_key(SAMPLE_QUARTER).rsplit("/", 1)[0]
            quarter_folder.mkdir(parents=True)
            samples.write(quarter_folder, SAMPLE_QUARTER, firms=count)
            return _read(root, SAMPLE_QUARTER, count)
    manifests = sorted(folder.glob("prefetch/transcripts/quarter=*/manifest.json"))
    if not manifests:
        print(
            f"bench: {folder} holds no prefetch/transcripts/quarter=*/manifest.json: name the folder above prefetch/",
            file=sys.stderr,
        )
        sys.exit(2)
    return _read(folder, manifests[-1].parent.name.removeprefix("quarter="), count)


def _read(root: Path, quarter: str, count: int) -> list[Firm]:
    manifest = parse_prefetch_manifest((root / prefetch_manifest_key(quarter)).read_bytes(), quarter)
    chosen = manifest.firm_ids[:: max(1, len(manifest.firm_ids) // count)][:count]
    bucket = cast(Bucket, Folder(root))

    async def read() -> list[Firm]:
        return [firm async for firm in read_firms(bucket, quarter, chosen) if isinstance(firm, Firm)]

    return asyncio.run(read())
