"""What belongs to one batch in the bucket: its line of the manifest, its progress and its parts."""

from typing import Any

from contract import ContractError
from contract.batch import BatchLine, BatchProgress, find_batch, parse_progress
from contract.layout import part_key, parts_prefix, progress_key
from worker import parts
from worker.s3 import Bucket
from worker.settings import Settings

_MIB = 1 << 20


class BatchStorage:
    def __init__(self, bucket: Bucket, settings: Settings) -> None:
        self._bucket = bucket
        self._settings = settings

    def line(self) -> BatchLine:
        """The batch's line of the manifest, which is streamed: it holds the whole quarter.

        Raises:
            WorkerError, ContractError: when there is no such manifest, or it has no such batch.
        """
        body = self._bucket.get(self._settings.manifest_key, "the batch manifest")
        line = find_batch(body.iter_lines(_MIB), self._settings.batch_id)
        if line.quarter != self._settings.quarter:
            raise ContractError(f"batch {line.batch_id} is of quarter {line.quarter}, not {self._settings.quarter}")
        return line

    def progress(self, firm_ids: list[str]) -> BatchProgress | None:
        """What earlier attempts at these firms left, if it can be trusted; a batch begins anew where it cannot."""
        body = self._bucket.find(self._progress_key)
        if body is None:
            return None
        try:
            progress = parse_progress(body.read())
            self._check(progress, firm_ids)
        except ContractError as error:
            print(f"{self._settings.batch_id}: begins anew, since {error}", flush=True)
            return None
        return progress

    def put_part(self, number: int, rows: list[dict[str, Any]]) -> str:
        """Write a part and return its key."""
        key = part_key(self._settings.quarter, self._settings.run, self._settings.batch_id, number)
        self._bucket.put(key, parts.to_parquet(rows), "application/vnd.apache.parquet")
        return key

    def put_progress(self, progress: BatchProgress) -> None:
        self._bucket.put(self._progress_key, progress.to_json(), "application/json")

    def _check(self, progress: BatchProgress, firm_ids: list[str]) -> None:
        settings = self._settings
        if (progress.quarter, progress.run, progress.batch_id) != (settings.quarter, settings.run, settings.batch_id):
            raise ContractError("the progress record is another batch's")
        done = progress.completed.keys() | progress.skipped.keys()
        if progress.firms != len(firm_ids) or not done <= set(firm_ids):
            raise ContractError("the progress record is of other firms than the batch manifest's")
        if len(done) < len(progress.completed) + len(progress.skipped):
            raise ContractError("the progress record counts a firm twice")
        if not progress.parts:
            return
        prefix = f"{parts_prefix(settings.quarter, settings.run)}{settings.batch_id}_part_"
        gone = set(progress.parts) - self._bucket.keys(prefix)
        if gone:
            raise ContractError(f"the part {min(gone)}, which the progress record lists, is gone")

    @property
    def _progress_key(self) -> str:
        return progress_key(self._settings.quarter, self._settings.run, self._settings.batch_id)
