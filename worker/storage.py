"""One attempt at a batch, as the bucket sees it: it takes over the batch, and writes parts and the record of them.

Attempts of one batch may overlap. The record has one owner, the newest attempt, and is only written on the condition
that it has not changed since its owner read or wrote it; a part has a key that no other attempt uses. An attempt that
finds a newer owner ends. docs/adr/0009 describes what is written when, and why no topic is lost or counted twice.
"""

import secrets
from collections.abc import Callable, Container, Sequence
from contextlib import suppress
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from contract import ContractError
from contract.batch import BatchLine, BatchProgress, Part, find_batch, find_lost_part, parse_progress
from contract.bucket import CLIENT_OPTIONS, JSON, PARQUET, Bucket, ChangedError, S3UnavailableError
from worker import WorkerError, parts
from worker.firm import Outcome
from worker.settings import Settings


class OvertakenError(WorkerError):
    """A newer attempt has taken the batch over: this one must not write anything, and ends."""


def open_bucket(name: str) -> Bucket:
    client: Any = boto3.client("s3", config=Config(**CLIENT_OPTIONS))
    return Bucket(client, name)


def read(bucket: Bucket, key: str, what: str) -> bytes:
    """Read an object whole.

    Raises:
        WorkerError: that `what` is missing.
        S3UnavailableError: when S3 fails.
    """
    found = bucket.get(key)
    if found is None:
        raise WorkerError(f"{what} is missing: {bucket.url(key)} does not exist")
    return found.body


class BatchStorage:
    """`take` comes first; `progress` is then what the batch's record says, or will say at the next write."""

    progress: BatchProgress

    def __init__(
        self,
        bucket: Bucket,
        settings: Settings,
        to_parquet: Callable[[list[dict[str, Any]]], bytes] = parts.to_parquet,
    ) -> None:
        self.attempt = secrets.token_hex(6)
        self._bucket = bucket
        self._settings = settings
        self._to_parquet = to_parquet
        self._key = settings.run.progress_key(settings.batch_id)
        self._etag: str | None = None
        """Of the record as this attempt last read or wrote it."""
        self._writes = 0
        self._parts_tried = 0
        """The number of the next part. A part that was tried and failed may still arrive: its key is not used again."""
        self._written: list[str] = []
        """Keys of this attempt's parts."""

    def line(self) -> BatchLine:
        """The batch's line of the batch manifest.

        Raises:
            WorkerError, ContractError: when there is no such manifest, or it has no such batch.
        """
        manifest = read(self._bucket, self._settings.run.manifest_key, "the batch manifest")
        line = find_batch(manifest.splitlines(), self._settings.batch_id)
        if line.quarter != self._settings.run.quarter:
            raise ContractError(f"batch {line.batch_id} is of quarter {line.quarter}, not {self._settings.run.quarter}")
        return line

    def take(self, firm_ids: Sequence[str], now: str) -> bool:
        """Become the owner of the batch, whose record then holds what earlier attempts have done.

        Returns:
            Whether there is anything to do: a batch that is complete is left as it is.
        """
        while True:
            found = self._bucket.get(self._key)
            self._etag = found.etag if found else None
            self.progress = self._read_progress(found.body, firm_ids) if found else self._new(firm_ids)
            self._parts_tried = self.progress.checkpoints
            progress = self.progress
            if progress.state == "complete" and self._is_done():
                return False
            progress.owner, progress.attempts = self.attempt, progress.attempts + 1
            progress.state, progress.error, progress.failed, progress.pace = "running", "", {}, None
            if self._is_done():
                progress.state = "complete"
            progress.started_at = progress.started_at or now
            try:
                self._put_record()
            except ChangedError:
                continue  # another attempt has written in between: it is older than this one
            return progress.state == "running"

    def checkpoint(self, outcomes: Sequence[Outcome]) -> None:
        """Write a part with the topics of these firms, and then the record that lists it.

        Raises:
            OvertakenError: when a newer attempt owns the batch.
            S3UnavailableError: when S3 fails. If `holds` the outcomes then, their part has been written, and the next
                record lists it.
        """
        rows = [row for outcome in outcomes for row in outcome.rows]
        if rows:
            self._put_part(rows)
        progress = self.progress
        for outcome in outcomes:
            if outcome.failed:
                progress.failed[outcome.firm_id] = outcome.failed
            elif outcome.skipped:
                progress.skipped[outcome.firm_id] = outcome.skipped
            else:
                progress.completed[outcome.firm_id] = outcome.counts
        progress.checkpoints += 1
        if self._is_done():
            progress.state = "complete"
        self.write_record()

    def fail(self, reason: str) -> None:
        """Record why the attempt ended. A batch that is complete stays so: its record may have been written already,
        and only the answer lost.

        Raises:
            OvertakenError, S3UnavailableError: as `write_record`.
        """
        if self.progress.state != "complete":
            self.progress.state, self.progress.error = "failed", reason
        self.write_record()

    def holds(self, outcome: Outcome) -> bool:
        """Whether the outcome is in `progress`."""
        progress = self.progress
        return any(outcome.firm_id in firms for firms in (progress.completed, progress.skipped, progress.failed))

    def write_record(self) -> None:
        """Write the record as `progress` is now.

        Raises:
            OvertakenError: when a newer attempt owns the batch.
            S3UnavailableError: when S3 fails.
        """
        while True:
            try:
                return self._put_record()
            except ChangedError:
                self._read_owner()

    def check_owner(self) -> None:
        """See with one HEAD request that no newer attempt owns the batch.

        Raises:
            OvertakenError: when one does.
            S3UnavailableError: when S3 fails.
        """
        found = self._bucket.describe(self._key)
        if not found or found.etag != self._etag:
            self._read_owner()

    def _read_owner(self) -> None:
        """Find out who has changed the record. It may have been this attempt, by a write whose answer never came."""
        found = self._bucket.get(self._key)
        if found is None:  # removed by hand
            self._etag = None
            return
        try:
            current = parse_progress(found.body)
        except ContractError:
            current = None
        if current and current.owner == self.attempt:
            self._etag = found.etag
            return
        self._remove_parts(current.parts if current else {})
        raise OvertakenError(
            f"a newer attempt has taken over {self._settings.batch_id}: this one ends without writing its last firms"
        )

    def _remove_parts(self, listed: Container[str]) -> None:
        """Remove what this attempt has written and no record will list. What stays here, for want of a permission, is
        removed when the run succeeds."""
        with suppress(BotoCoreError, ClientError, S3UnavailableError):
            self._bucket.delete(key for key in self._written if key not in listed)

    def _is_done(self) -> bool:
        return len(self.progress.completed) + len(self.progress.skipped) == self.progress.firms

    def _put_record(self) -> None:
        self._writes += 1
        self._etag = self._bucket.put_if(
            self._key, self.progress.to_json(), JSON, etag=self._etag, writer=f"{self.attempt}-{self._writes}"
        )

    def _put_part(self, rows: list[dict[str, Any]]) -> None:
        number, self._parts_tried = self._parts_tried, self._parts_tried + 1
        key = self._settings.run.part_key(self._settings.batch_id, number, self.attempt)
        self._written.append(key)
        etag = self._bucket.put_if(key, self._to_parquet(rows), PARQUET, etag=None, writer=key)
        self.progress.parts[key] = Part(etag, len(rows))

    def _new(self, firm_ids: Sequence[str]) -> BatchProgress:
        return BatchProgress(self._settings.batch_id, self._settings.run, len(firm_ids))

    def _read_progress(self, body: bytes, firm_ids: Sequence[str]) -> BatchProgress:
        """What earlier attempts left, if it is consistent; the batch starts again from nothing if not."""
        try:
            progress = parse_progress(body)
            self._check(progress, firm_ids)
        except ContractError as error:
            print(f"{self._settings.batch_id}: starts again from nothing, because {error}", flush=True)
            return self._new(firm_ids)
        return progress

    def _check(self, progress: BatchProgress, firm_ids: Sequence[str]) -> None:
        run, batch_id = self._settings.run, self._settings.batch_id
        if (progress.run, progress.batch_id) != (run, batch_id):
            raise ContractError("the progress record is that of another batch")
        done = progress.completed.keys() | progress.skipped.keys()
        if progress.firms != len(firm_ids) or not done <= set(firm_ids):
            raise ContractError("the progress record has other firms than the batch manifest")
        if len(done) < len(progress.completed) + len(progress.skipped):
            raise ContractError("the progress record counts a firm twice")
        if not progress.parts:
            return
        if lost := find_lost_part(progress, self._bucket.keys(run.batch_parts_prefix(batch_id))):
            raise ContractError(f"of what the progress record lists, {lost}")
