"""The pipeline's bucket: all packages list keys and read and write objects and records through this module.

The client is passed in. The module imports the standard library only, and botocore's exception classes once a call has
failed. Requests are repeated after temporary faults (S3 slows down, a response breaks off or stalls); a lasting fault
is an `S3UnavailableError`, after which another attempt may succeed. Errors such as AccessDenied are raised as
botocore's ClientError.
"""

import json
import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

from contract import ContractError
from contract.batch import BatchLine, BatchProgress, parse_batch_line, parse_progress
from contract.layout import RunRef
from contract.run import Repair

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

T = TypeVar("T")

JSON = "application/json"
PARQUET = "application/vnd.apache.parquet"

THREADS = 16
"""Threads that read a run's records at the same time."""

CLIENT_OPTIONS: dict[str, Any] = {
    "retries": {"mode": "standard", "total_max_attempts": 5},
    "connect_timeout": 10,
    "read_timeout": 20,
    "max_pool_connections": THREADS,
}
"""The arguments of botocore's Config for a client that `Bucket` gets."""

RETRY_SECONDS = 90.0
"""How long a failing request is repeated: S3 may answer SlowDown for a minute while it spreads its load."""

_MAX_DELAY = 10.0

_TRANSIENT = {
    "ConditionalRequestConflict",  # two conditional writes at the same moment: S3 asks to repeat it
    "InternalError",
    "OperationAborted",
    "RequestTimeout",
    "RequestTimeTooSkewed",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
}


class S3UnavailableError(Exception):
    """S3 failed, also after retries; the text is a sentence. The same call may succeed later."""


class ChangedError(Exception):
    """Another writer has changed or removed the object since it was read; the text is its address."""


@dataclass(frozen=True)
class Stored:
    """An object's body and ETag."""

    body: bytes
    etag: str
    """Without quotes."""


@dataclass(frozen=True)
class Description:
    """An object's metadata."""

    etag: str
    writer: str
    """Who wrote it, if `Bucket.put_if` did."""


class Bucket:
    """A bucket behind a boto3 client, which should be made with `CLIENT_OPTIONS`. Safe to share between threads."""

    def __init__(
        self,
        client: "S3Client",
        name: str,
        *,
        retry_seconds: float = RETRY_SECONDS,
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        self.name = name
        self._client = client
        self._retry_seconds = retry_seconds
        self._sleep = sleep or time.sleep

    def url(self, key: str) -> str:
        """The address of an object, for messages."""
        return f"s3://{self.name}/{key}"

    def get(self, key: str, *, most: int | None = None) -> Stored | None:
        """Read an object; None when there is no such object.

        Raises:
            ContractError: when it is larger than `most` bytes; it is not read then.
            S3UnavailableError: when S3 fails.
        """

        def read() -> Stored:
            answer = self._client.get_object(Bucket=self.name, Key=key)
            size = answer["ContentLength"]
            if most is not None and size > most:
                answer["Body"].close()
                raise ContractError(f"{self.url(key)} is larger than {most >> 20} MiB")
            body = answer["Body"].read()
            if len(body) != size:
                raise ConnectionError(f"{len(body)} of {size} bytes came")
            return Stored(body, _unquoted(answer["ETag"]))

        return self._unless_missing(lambda: self._retried("read", key, read))

    def describe(self, key: str) -> Description | None:
        """An object's metadata; None when there is no such object.

        Raises:
            S3UnavailableError: when S3 fails.
        """
        answer = self._unless_missing(
            lambda: self._retried("look up", key, lambda: self._client.head_object(Bucket=self.name, Key=key))
        )
        return answer and Description(_unquoted(answer["ETag"]), answer["Metadata"].get("writer", ""))

    def keys(self, prefix: str) -> dict[str, str]:
        """The keys that begin with `prefix`, each with its ETag (without quotes).

        Raises:
            S3UnavailableError: when S3 fails.
        """
        return dict(self._pages(prefix))

    def put(self, key: str, body: bytes, content_type: str, **options: Any) -> None:
        """Write an object, whatever was there before; `options` are further arguments of PutObject.

        Raises:
            S3UnavailableError: when S3 fails. It may have written the object nevertheless.
        """
        self._put(key, body, content_type, options)

    def put_if(self, key: str, body: bytes, content_type: str, *, etag: str | None, writer: str) -> str:
        """Write an object on the condition that nobody else has changed it, and return its ETag.

        Args:
            etag: of the version to replace; None when there must not be an object yet.
            writer: unique to this write, or to writers that would write the same. It is stored with the object: when
                the answer to a successful write is lost, the repetition fails, and the writer finds itself there.

        Raises:
            ChangedError: when somebody else has written or removed the object.
            S3UnavailableError: when S3 fails. It may have written the object nevertheless.
        """
        condition = {"IfNoneMatch": "*"} if etag is None else {"IfMatch": f'"{etag}"'}
        try:
            return self._put(key, body, content_type, {"Metadata": {"writer": writer}, **condition})
        except self._client.exceptions.ClientError as error:
            if _code(error) not in ("PreconditionFailed", "NoSuchKey"):
                raise
            found = self.describe(key)
            if found and found.writer == writer:
                return found.etag
            raise ChangedError(self.url(key)) from error

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects; keys without an object are ignored.

        Raises:
            S3UnavailableError: when S3 fails.
        """
        for key in keys:
            self._retried("remove", key, lambda key=key: self._client.delete_object(Bucket=self.name, Key=key))

    def _put(self, key: str, body: bytes, content_type: str, options: dict[str, Any]) -> str:
        answer = self._retried(
            "write",
            key,
            lambda: self._client.put_object(Bucket=self.name, Key=key, Body=body, ContentType=content_type, **options),
        )
        return _unquoted(answer["ETag"])

    def _pages(self, prefix: str) -> Iterator[tuple[str, str]]:
        token: dict[str, Any] = {}
        while True:
            page = self._retried(
                "list",
                prefix,
                lambda token=token: self._client.list_objects_v2(Bucket=self.name, Prefix=prefix, **token),
            )
            for item in page.get("Contents", []):
                yield item.get("Key", ""), _unquoted(item.get("ETag", ""))
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page.get("NextContinuationToken", "")}

    def _unless_missing(self, request: Callable[[], T]) -> T | None:
        try:
            return request()
        except self._client.exceptions.ClientError as error:
            # An answer to HEAD has no body: its code is the HTTP status.
            if _code(error) in ("NoSuchKey", "404"):
                return None
            raise

    def _retried(self, verb: str, key: str, request: Callable[[], T]) -> T:
        """Make a request, and repeat it after faults of S3. botocore's own retries end sooner: threads share them, and
        they do not cover what happens while an answer's body is read."""
        started, delay = time.monotonic(), 0.1
        while True:
            try:
                return request()
            except Exception as error:
                fault = _fault(error)
                if not fault:
                    raise
                seconds = time.monotonic() - started
                if seconds >= self._retry_seconds:
                    raise S3UnavailableError(
                        f"S3 failed to {verb} {self.url(key)} for {seconds:.0f} s: {fault}; try again later"
                    ) from error
            self._sleep(delay * random.uniform(0.5, 1))  # noqa: S311 - spreads retries
            delay = min(2 * delay, _MAX_DELAY)


def read_batch_manifest(bucket: Bucket, run: RunRef) -> list[BatchLine]:
    """All batches of a run, in order.

    Raises:
        ContractError: when the run has no batch manifest, or a broken one.
        S3UnavailableError: when S3 fails.
    """
    found = bucket.get(run.manifest_key)
    if found is None:
        raise ContractError(f"{run.quarter} has no run {run.run}: {bucket.url(run.manifest_key)} does not exist")
    return [parse_batch_line(line) for line in found.body.splitlines()]


def read_progress(bucket: Bucket, run: RunRef, batch_id: str) -> BatchProgress | None:
    """The progress record of one batch; None when there is none.

    Raises:
        ContractError: when it is broken.
        S3UnavailableError: when S3 fails.
    """
    found = bucket.get(run.progress_key(batch_id))
    return parse_progress(found.body) if found else None


def read_repair(bucket: Bucket, run: RunRef) -> Repair | None:
    """How a resumed run repairs its names; None when none is missing, or the run has no summary yet.

    Raises:
        S3UnavailableError: when S3 fails.
    """
    found = bucket.get(run.summary_key)
    try:
        return json.loads(found.body)["summary"].get("repair") if found else None
    except (ValueError, KeyError, TypeError, AttributeError):  # a record that cannot be read is made again
        return None


def _fault(error: Exception) -> str:
    """What failed at S3 or on the way to it, as a clause; empty when the error is an answer of S3, or another error."""
    from botocore import exceptions as aws
    from botocore.parsers import ResponseParserError
    from urllib3.exceptions import HTTPError

    match error:
        case aws.ClientError():
            return _fault_in_answer(error)
        case aws.ReadTimeoutError() | aws.ConnectTimeoutError() | TimeoutError():
            return "it did not answer in time"
        case aws.EndpointConnectionError() | aws.SSLError() | aws.ProxyConnectionError():
            return str(error).rstrip(".")
        case aws.HTTPClientError() | aws.ConnectionError() | ConnectionError() | HTTPError():
            return f"the connection broke off ({type(error).__name__})"
        case aws.IncompleteReadError() | aws.ChecksumError() | ResponseParserError():
            return f"its answer was not whole ({type(error).__name__})"
        case _:
            return ""


def _fault_in_answer(error: Any) -> str:
    """The fault in an answer of S3. A status in the place of an error code means that the answer's body was cut off:
    only answers to HEAD have no body."""
    code, status = _code(error), error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if status >= 500 or status == 429 or code in _TRANSIENT:
        message = error.response.get("Error", {}).get("Message", "")
        return f"it answered {code or status}{f' ({message})' if message else ''}"
    if code.isdigit() and error.operation_name != "HeadObject":
        return f"its answer with HTTP status {code} was not whole"
    return ""


def _code(error: Any) -> str:
    return str(cast(dict[str, Any], error.response).get("Error", {}).get("Code", ""))


def _unquoted(etag: str) -> str:
    return etag.strip('"')
