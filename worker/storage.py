"""The batch's bucket: what the worker reads and writes, and nothing else."""

import tempfile
from typing import IO, Any, cast

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from contract import ContractError
from contract.batch import BatchLine, BatchProgress, find_batch, parse_progress
from contract.layout import chunk_key, prefetch_manifest_key, progress_key
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

    def progress(self) -> BatchProgress | None:
        """What earlier attempts left, if there were any."""
        try:
            body = self._s3.get_object(Bucket=self._settings.bucket, Key=self._progress_key)["Body"].read()
        except ClientError as error:
            if error.response["Error"]["Code"] in ("NoSuchKey", "404"):
                return None
            raise
        return parse_progress(body)

    def put_progress(self, progress: BatchProgress) -> None:
        self.put(self._progress_key, progress.to_json(), "application/json")

    def put(self, key: str, body: bytes, content_type: str) -> None:
        self._s3.put_object(Bucket=self._settings.bucket, Key=key, Body=body, ContentType=content_type)

    @property
    def _progress_key(self) -> str:
        return progress_key(self._settings.quarter, self._settings.run, self._settings.batch_id)

    def _get(self, key: str, what: str) -> Any:
        try:
            return self._s3.get_object(Bucket=self._settings.bucket, Key=key)["Body"]
        except ClientError as error:
            if error.response["Error"]["Code"] in ("NoSuchKey", "404"):
                raise WorkerError(f"{what} is missing: there is no s3://{self._settings.bucket}/{key}") from error
            raise
