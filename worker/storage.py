"""What one attempt at a batch reads and writes in the bucket: parts, and the progress record that lists them.

In a run that has ended with too few names, an attempt also renames topics of completed firms: it writes a new part with
all topics of the old one, and then the record, which lists the new part instead of the old one.

Attempts of one batch may overlap. The newest attempt owns the record, which is only written if it has not changed since
its owner read or wrote it; each attempt's parts have unique keys. An attempt that finds a newer owner ends.
docs/adr/0009 describes the order of the writes, and why no topic is lost or counted twice.
"""

import secrets
from collections.abc import Callable, Container, Sequence
from contextlib import suppress
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from contract import ContractError
from contract.batch import BatchLine, BatchProgress, Part, find_batch, find_lost_part, parse_progress, why_repair
from contract.bucket import CLIENT_OPTIONS, JSON, PARQUET, Bucket, ChangedError, S3UnavailableError, read_repair
from worker import WorkerError, parts
from worker.firm import Outcome
from worker.naming.repeats import lacks_name, name_uses
from worker.parts import Row
from worker.settings import Settings


class OvertakenError(WorkerError):
    """A newer attempt owns the batch: this one ends without writing."""


def open_bucket(name: str) -> Bucket:
    client: Any = boto3.client("s3", config=Config(**CLIENT_OPTIONS))
    return Bucket(client, name)


def read(bucket: Bucket, key: str, what: str) -> bytes:
    """Read an object.

    Raises:
        WorkerError: when there is none; `what` describes it in the message.
        S3UnavailableError: when S3 fails.
    """
    found = bucket.get(key)
    if found is None:
        raise WorkerError(f"{what} is missing: {bucket.url(key)} does not exist")
    return found.body


class BatchStorage:
    """Call `take` first; from then on `progress` is the batch's record as the next write will store it."""

    progress: BatchProgress

    def __init__(
        self,
        bucket: Bucket,
        settings: Settings,
        to_parquet: Callable[[list[Row]], bytes] = parts.to_parquet,
        from_parquet: Callable[[bytes], list[Row]] = parts.from_parquet,
    ) -> None:
        self.attempt = secrets.token_hex(6)
        self._bucket = bucket
        self._settings = settings
        self._to_parquet = to_parquet
        self._from_parquet = from_parquet
        self._key = settings.run.progress_key(settings.batch_id)
        self._etag: str | None = None
        """The ETag of the record as this attempt last read or wrote it."""
        self._writes = 0
        self._parts_tried = 0
        """The number of the next part. A write that failed may still take effect, so that its key is not used again."""
        self._written: list[str] = []
        """Keys of this attempt's parts."""
        self.repeated_names: frozenset[str] = frozenset()
        """In a run with too few names: names that are treated as missing."""
        self._lacks_names = False
        self._replaceable: dict[str, list[Row]] = {}
        """The rows of the listed parts that contain topics to rename, by key."""

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
        """Become the owner of the batch, and read what earlier attempts have done.

        Returns:
            Whether there is anything to do: a complete batch is left as it is, unless it lacks names in a run that has
            ended with too few.
        """
        repair = read_repair(self._bucket, self._settings.run)
        self.repeated_names = frozenset(repair["repeated_names"] if repair else ())
        while True:
            found = self._bucket.get(self._key)
            self._etag = found.etag if found else None
            self.progress = self._read_progress(found.body, firm_ids) if found else self._new(firm_ids)
            self._parts_tried = self.progress.checkpoints
            progress = self.progress
            self._lacks_names = repair is not None and bool(why_repair(progress, self.repeated_names))
            if progress.state == "complete" and self._is_done() and not self._lacks_names:
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
            return progress.state == "running" or self._lacks_names

    def firms_to_repair(self) -> dict[str, list[Row]]:
        """The firms with topics to rename, each with the rows of all its topics, in the order of the parts.

        Raises:
            OvertakenError: when a newer attempt owns the batch, and has replaced parts.
            WorkerError: when a part that the record lists is gone.
            S3UnavailableError: when S3 fails.
        """
        firms: dict[str, list[Row]] = {}
        for key in self.progress.parts if self._lacks_names else ():
            found = self._bucket.get(key)
            if found is None:
                self.check_owner()
                raise WorkerError(f"a part of the batch is gone: {self._bucket.url(key)} does not exist")
            rows = self._from_parquet(found.body)
            lacking = dict.fromkeys(row["firm_id"] for row in rows if lacks_name(row, self.repeated_names))
            if lacking:
                self._replaceable[key] = rows
            firms |= {firm: [row for row in rows if row["firm_id"] == firm] for firm in lacking}
        return firms

    def checkpoint(self, outcomes: Sequence[Outcome]) -> None:
        """Write a part with the topics of these firms, and then the record that lists it.

        For firms that were completed before, the new part replaces their old parts, with all topics of these.

        Raises:
            OvertakenError: when a newer attempt owns the batch.
            S3UnavailableError: when S3 fails. Outcomes for which `holds` is then true are in a written part, which the
                next record lists.
        """
        rows = [row for outcome in outcomes for row in outcome.rows]
        firms = {outcome.firm_id for outcome in outcomes}
        replaced = [
            key for key, old in self._replaceable.items() if not firms.isdisjoint(row["firm_id"] for row in old)
        ]
        rows += [row for key in replaced for row in self._replaceable[key] if row["firm_id"] not in firms]
        if rows:
            part = self._put_part(rows)
            if replaced:
                self._replaceable[part] = rows
        progress = self.progress
        for key in replaced:
            del progress.parts[key], self._replaceable[key]
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
        """Record why the attempt ended. A complete batch stays complete: either its record was written and only the
        answer was lost, or it lacks names, and the record has the reason as well as the results.

        Raises:
            OvertakenError, S3UnavailableError: as `write_record`.
        """
        if self.progress.state != "complete":
            self.progress.state = "failed"
        if self.progress.state == "failed" or self._lacks_names:
            self.progress.error = reason
        self.write_record()

    def holds(self, outcome: Outcome) -> bool:
        """Whether the outcome is in `progress`."""
        progress, firm = self.progress, outcome.firm_id
        return progress.completed.get(firm) is outcome.counts or firm in progress.skipped or firm in progress.failed

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
        """Check with one HEAD request that no newer attempt owns the batch.

        Raises:
            OvertakenError: when one does.
            S3UnavailableError: when S3 fails.
        """
        found = self._bucket.describe(self._key)
        if not found or found.etag != self._etag:
            self._read_owner()

    def _read_owner(self) -> None:
        """Find out who has changed the record: possibly this attempt, by a write whose answer was lost."""
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
        """Remove this attempt's parts that no record will list. Parts that cannot be removed now are removed when the
        run succeeds."""
        with suppress(BotoCoreError, ClientError, S3UnavailableError):
            self._bucket.delete(key for key in self._written if key not in listed)

    def _is_done(self) -> bool:
        return len(self.progress.completed) + len(self.progress.skipped) == self.progress.firms

    def _put_record(self) -> None:
        self._writes += 1
        self._etag = self._bucket.put_if(
            self._key, self.progress.to_json(), JSON, etag=self._etag, writer=f"{self.attempt}-{self._writes}"
        )

    def _put_part(self, rows: list[Row]) -> str:
        number, self._parts_tried = self._parts_tried, self._parts_tried + 1
        key = self._settings.run.part_key(self._settings.batch_id, number, self.attempt)
        self._written.append(key)
        etag = self._bucket.put_if(key, self._to_parquet(rows), PARQUET, etag=None, writer=key)
        self.progress.parts[key] = Part(etag, len(rows), name_uses(rows))
        return key

    def _new(self, firm_ids: Sequence[str]) -> BatchProgress:
        return BatchProgress(self._settings.batch_id, self._settings.run, len(firm_ids))

    def _read_progress(self, body: bytes, firm_ids: Sequence[str]) -> BatchProgress:
        """The record of earlier attempts; a new one if it is inconsistent, so that the batch starts again."""
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
