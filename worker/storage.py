"""The batch's bucket: what the worker reads and writes, and nothing else."""

import tempfile
from typing import IO, Any, cast

import boto3
from botocore.config import Config

from contract import ContractError
from contract.batch import BatchLine, BatchProgress, find_batch, parse_progress
from contract.layout import chunk_key, parts_prefix, prefetch_manifest_key, progress_key
from contract.prefetch import PrefetchManifest, parse_prefetch_manifest
from worker import WorkerError
from worker.settings import Settings

_MIB = 1 << 20


class Storage:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._s3: Any = boto3.client("s3", config=Config(retries={"mode": "standard", "max_attempts": 5}))

    def batch_line(self) -> BatchLine:
        """The batch's line of the manifest, which is streamed: it holds the whole quarter."""
        body = self._get(self._settings.manifest_key, "the batch manifest")
        line = find_batch(body.iter_lines(_MIB), self._settings.batch_id)
        if line.quarter != self._settings.quarter:
            raise ContractError(f"batch {line.batch_id} is of quarter {line.quarter}, not {self._settings.quarter}")
        return line

    def prefetch_manifest(self) -> PrefetchManifest:
        quarter = self._settings.quarter
        body = self._get(prefetch_manifest_key(quarter), "the prefetch manifest").read()
        return parse_prefetch_manifest(body, quarter)

    def chunk(self, name: str) -> IO[bytes]:
        """A chunk of the prefetch, as a temporary file that vanishes when it is closed."""
        body = self._get(chunk_key(self._settings.quarter, name), f"chunk {name} of the prefetch")
        file = cast(IO[bytes], tempfile.TemporaryFile())  # noqa: SIM115 (the caller closes it)
        for block in body.iter_chunks(_MIB):
            file.write(block)
        file.seek(0)
        return file

    def progress(self, firm_ids: list[str]) -> BatchProgress | None:
        """What earlier attempts at these firms left, if it can be trusted; a batch begins anew where it cannot."""
        try:
            body = self._s3.get_object(Bucket=self._settings.bucket, Key=self._progress_key)["Body"].read()
        except self._s3.exceptions.NoSuchKey:
            return None
        try:
            progress = parse_progress(body)
            self._check_progress(progress, firm_ids)
        except ContractError as error:
            print(f"{self._settings.batch_id}: begins anew, since {error}", flush=True)
            return None
        return progress

    def put_progress(self, progress: BatchProgress) -> None:
        self.put(self._progress_key, progress.to_json(), "application/json")

    def put(self, key: str, body: bytes, content_type: str) -> None:
        self._s3.put_object(Bucket=self._settings.bucket, Key=key, Body=body, ContentType=content_type)

    def _check_progress(self, progress: BatchProgress, firm_ids: list[str]) -> None:
        of_batch = self._settings.quarter, self._settings.run, self._settings.batch_id
        if (progress.quarter, progress.run, progress.batch_id) != of_batch:
            raise ContractError("the progress record is another batch's")
        done = progress.completed.keys() | progress.skipped.keys()
        if progress.firms != len(firm_ids) or not done <= set(firm_ids):
            raise ContractError("the progress record is of other firms than the batch manifest's")
        gone = set(progress.parts) - self._part_keys() if progress.parts else set[str]()
        if gone:
            raise ContractError(f"the part {min(gone)}, which the progress record lists, is gone")

    def _part_keys(self) -> set[str]:
        prefix = f"{parts_prefix(self._settings.quarter, self._settings.run)}{self._settings.batch_id}_part_"
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._settings.bucket, Prefix=prefix)
        return {item["Key"] for page in pages for item in page.get("Contents", [])}

    @property
    def _progress_key(self) -> str:
        return progress_key(self._settings.quarter, self._settings.run, self._settings.batch_id)

    def _get(self, key: str, what: str) -> Any:
        try:
            return self._s3.get_object(Bucket=self._settings.bucket, Key=key)["Body"]
        except self._s3.exceptions.NoSuchKey as error:
            raise WorkerError(f"{what} is missing: there is no s3://{self._settings.bucket}/{key}") from error
