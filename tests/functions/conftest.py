"""Fixtures for tests of the Lambda handlers with real boto3 clients against moto's S3, SNS and Batch."""

import hashlib
import importlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pytest
from moto import mock_aws

from contract import layout
from contract.batch import BatchLine, BatchProgress, Counts, Part

QUARTER = "2023Q1"
BUCKET = "pipeline"
RUN = "20230405_101500"
EXECUTION = "arn:aws:states:us-east-1:123456789012:execution:ftm-quarter-processor:one"
EMPTY_ETAG = hashlib.md5(b"").hexdigest()  # noqa: S324 - as S3 makes its ETags
MODULES = ("storage", "prefetch_check", "create_batch_manifest", "summarize_results", "notify_completion")


@pytest.fixture(scope="session")
def modules() -> dict[str, ModuleType]:
    """The functions make their clients when they are imported, as in Lambda: region and credentials come first."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL"):
            patch.delenv(name, raising=False)
        for name, value in {
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
        }.items():
            patch.setenv(name, value)
        return {name: importlib.import_module(f"functions.{name}") for name in MODULES}


@pytest.fixture
def s3(modules: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        s3 = modules["storage"].s3
        s3.create_bucket(Bucket=BUCKET)
        yield s3


@dataclass
class Bucket:
    """A bucket, with helpers that write a quarter's objects and read the results."""

    s3: Any
    quarter: str = QUARTER
    run: str = RUN
    lines: list[BatchLine] = field(default_factory=list)

    @property
    def ref(self) -> layout.RunRef:
        return layout.RunRef(self.quarter, self.run)

    def put(self, key: str, body: bytes | str = b"") -> None:
        self.s3.put_object(Bucket=BUCKET, Key=key, Body=body)

    def get(self, key: str) -> bytes:
        return self.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()

    def json(self, key: str) -> Any:
        return json.loads(self.get(key))

    def delete(self, key: str) -> None:
        self.s3.delete_object(Bucket=BUCKET, Key=key)

    def keys(self) -> list[str]:
        return [item["Key"] for item in self.s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])]

    def put_prefetch(self, firm_to_chunk: dict[str, str], **changes: Any) -> None:
        chunks = list(dict.fromkeys(firm_to_chunk.values()))
        manifest = prefetch_manifest(firm_to_chunk) | changes
        self.put(layout.prefetch_manifest_key(self.quarter), json.dumps(manifest))
        for chunk in chunks:
            self.put(layout.chunk_key(self.quarter, chunk))

    def put_run(self, batches: int = 3, firms: int = 2) -> None:
        """Write a run whose batches are all complete, with four topics per firm."""
        self.lines = [
            BatchLine(layout.batch_id(self.quarter, b), self.quarter, [f"F{b}_{n}" for n in range(firms)])
            for b in range(batches)
        ]
        text = "".join(line.to_json() + "\n" for line in self.lines)
        self.put(self.ref.manifest_key, text)
        for line in self.lines:
            progress = self.complete(line)
            self.put_progress(progress)
            for part in progress.parts:
                self.put(part)

    def complete(self, line: BatchLine) -> BatchProgress:
        return BatchProgress(
            batch_id=line.batch_id,
            run=self.ref,
            firms=len(line.firm_ids),
            state="complete",
            completed={firm: Counts(topics=4, named=4, prompt_tokens=100) for firm in line.firm_ids},
            parts={self.ref.part_key(line.batch_id, 0, "a"): Part(EMPTY_ETAG, 4 * len(line.firm_ids))},
            checkpoints=1,
            seconds=1.5,
        )

    def put_progress(self, progress: BatchProgress) -> None:
        self.put(self.progress_key(progress.batch_id), progress.to_json())

    def progress_key(self, batch_id: str) -> str:
        return self.ref.progress_key(batch_id)


@pytest.fixture
def bucket(s3: Any) -> Bucket:
    return Bucket(s3)


def prefetch_manifest(firm_to_chunk: dict[str, str]) -> dict[str, Any]:
    sizes = Counter(firm_to_chunk.values())
    return {
        "quarter": QUARTER,
        "created_at": "2023-04-01T00:00:00Z",
        "n_firms": len(firm_to_chunk),
        "n_chunks": len(sizes),
        "chunk_sizes": dict(sizes),
        "firm_to_chunk": firm_to_chunk,
    }
