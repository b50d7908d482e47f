"""A simulation of overlapping attempts at one batch: the worker's storage code against a fake of S3.

At every request to S3, the schedule decides which attempt continues and what happens to the request: it succeeds, its
response is lost, it never arrives, it arrives after its sender has stopped waiting, or the attempt is killed before or
after it. Attempts are greenlets, which switch only at these points, so a schedule always gives the same history. In a
run that lacks names, attempts also rename what earlier ones could not name.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any

from botocore.exceptions import ClientError, ConnectionClosedError, ReadTimeoutError
from greenlet import getcurrent, greenlet

from contract.batch import BatchLine, Counts, parse_progress
from contract.bucket import Bucket, S3UnavailableError
from contract.layout import RunRef
from functions.results import read_results
from llm.settings import LlmSettings
from worker.firm import Outcome
from worker.settings import Settings
from worker.storage import BatchStorage, OvertakenError

RUN = RunRef("2023Q1", "20230405_101500")
BATCH = "2023Q1_batch_0000"
FIRMS = [f"F{number}" for number in range(7)]
TOPICS_PER_FIRM = 2
INTERVAL = 2
"""Firms between two checkpoints."""

_SETTINGS = Settings("bucket", RUN, BATCH, INTERVAL, "", LlmSettings("http://llm/v1", "model", 1, ""))
_KINDS = ("pass", "lost", "never sent", "late", "killed before", "killed after")


@dataclass
class History:
    """The result of a schedule."""

    topics: int
    """Counted by the final record."""
    rows: int
    """In the parts that the final record lists, after the run was summarised."""
    lost: int
    doubled: int
    overtaken: int
    """Attempts that found a newer owner."""
    killed: int
    faults: int
    problems: list[str] = field(default_factory=list[str])
    """Descriptions of violations; empty for a correct history."""


class Killed(BaseException):
    """The process of an attempt was killed."""


class FakeS3:
    """The objects of one bucket, with conditional writes. Each write gives an object a new ETag, as with SSE-KMS."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, str, dict[str, str]]] = {}
        self.writes = 0
        self.on_write: Callable[[str], None] = lambda _key: None

    def get_object(self, Key: str, **_: object) -> dict[str, Any]:  # noqa: N803 - boto3's names
        body, etag, _metadata = self._find(Key, "GetObject", "NoSuchKey")
        stream = SimpleNamespace(read=lambda: body, close=lambda: None)
        return {"Body": stream, "ContentLength": len(body), "ETag": f'"{etag}"'}

    def head_object(self, Key: str, **_: object) -> dict[str, Any]:  # noqa: N803
        _body, etag, metadata = self._find(Key, "HeadObject", "404")
        return {"ETag": f'"{etag}"', "Metadata": metadata}

    def put_object(
        self,
        Key: str,  # noqa: N803
        Body: bytes,  # noqa: N803
        Metadata: dict[str, str] | None = None,  # noqa: N803
        IfMatch: str = "",  # noqa: N803
        IfNoneMatch: str = "",  # noqa: N803
        **_: object,
    ) -> dict[str, Any]:
        if IfMatch and Key not in self.objects:
            raise _error("NoSuchKey", 404, "PutObject")
        if (IfNoneMatch and Key in self.objects) or (IfMatch and self.objects[Key][1] != IfMatch.strip('"')):
            raise _error("PreconditionFailed", 412, "PutObject")
        self.writes += 1
        self.objects[Key] = (Body, f"etag{self.writes}", Metadata or {})
        self.on_write(Key)
        return {"ETag": f'"etag{self.writes}"'}

    def delete_object(self, Key: str, **_: object) -> dict[str, Any]:  # noqa: N803
        self.objects.pop(Key, None)
        return {}

    def list_objects_v2(self, Prefix: str, **_: object) -> dict[str, Any]:  # noqa: N803
        found = sorted(key for key in self.objects if key.startswith(Prefix))
        return {"Contents": [{"Key": key, "ETag": f'"{self.objects[key][1]}"'} for key in found]}

    def _find(self, key: str, operation: str, code: str) -> tuple[bytes, str, dict[str, str]]:
        if key not in self.objects:
            raise _error(code, 404, operation)
        return self.objects[key]


class Client:
    """The boto3 client of one attempt: each request waits for the schedule."""

    exceptions = SimpleNamespace(ClientError=ClientError)

    def __init__(self, s3: FakeS3, request: Callable[[Callable[[], Any]], Any]) -> None:
        self._s3 = s3
        self._request = request

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda **arguments: self._request(partial(getattr(self._s3, name), **arguments))


class Attempt:
    """One attempt at the batch, in its own greenlet."""

    def __init__(self, s3: FakeS3, retry_seconds: float, stops_after: int) -> None:
        self.ended = self.overtaken = self.killed = False
        self._stops_after = stops_after
        self._bucket = Bucket(
            Client(s3, self._wait), "bucket", retry_seconds=retry_seconds, sleep=lambda _: None  # pyright: ignore
        )  # fmt: skip
        self._scheduler = getcurrent()
        self._greenlet = greenlet(self._run)
        self._kind = "pass"
        self._late: list[Callable[[], Any]] = []

    def step(self, kind: str, late: list[Callable[[], Any]]) -> None:
        """Perform the attempt's pending request with the fault `kind`, and run it until its next request or its end."""
        self._kind, self._late = kind, late
        self._greenlet.switch()

    def _wait(self, request: Callable[[], Any]) -> Any:
        self._scheduler.switch()
        match self._kind:
            case "killed before":
                raise Killed
            case "killed after":
                _attempt(request)
                raise Killed
            case "lost":
                _attempt(request)
                raise ConnectionClosedError(endpoint_url="https://s3")
            case "never sent":
                raise ConnectionClosedError(endpoint_url="https://s3")
            case "late":
                self._late.append(request)
                raise ReadTimeoutError(endpoint_url="https://s3")
            case _:
                return request()

    def _run(self) -> None:
        try:
            self._process()
        except Killed:
            self.killed = True
        except OvertakenError:
            self.overtaken = True
        except S3UnavailableError:
            pass  # Batch starts another attempt
        self.ended = True

    def _process(self) -> None:
        """The steps of `process_batch` except finding and naming topics."""
        storage = BatchStorage(
            self._bucket, _SETTINGS, to_parquet=lambda rows: json.dumps(rows).encode(), from_parquet=json.loads
        )
        if not storage.take(FIRMS, "now"):
            return
        lacking = list(storage.firms_to_repair())
        progress = storage.progress
        todo = [firm for firm in FIRMS if firm not in progress.completed][: self._stops_after]
        try:
            for start in range(0, len(todo), INTERVAL):
                storage.checkpoint([_outcome(firm) for firm in todo[start : start + INTERVAL]])
            for start in range(0, len(lacking), INTERVAL):
                storage.checkpoint([_outcome(firm, named=2) for firm in lacking[start : start + INTERVAL]])
            if progress.state != "complete":
                storage.fail("stopped by SIGTERM")
        except S3UnavailableError as error:
            storage.fail(str(error))
            raise


def simulate(choices: bytes, attempts: int = 3, repair: bool = False) -> History:
    """Run a schedule, then a final attempt without faults, and summarise the run.

    Args:
        choices: The schedule, continued with zeros. Each step takes two bytes: the attempt that continues (or the late
            request that arrives), and what happens to its request.
        repair: Whether an earlier summary counted too few names, so that attempts rename topics without a name.
    """
    s3, late, stream = FakeS3(), list[Callable[[], Any]](), _stream(choices)
    s3.put_object(RUN.manifest_key, BatchLine(BATCH, RUN.quarter, FIRMS).to_json().encode())
    if repair:
        s3.put_object(RUN.summary_key, b'{"summary": {"repair": {"repeated_names": []}}}')
    problems: list[str] = []
    s3.on_write = _Monitor(s3, problems).check
    running = [
        Attempt(s3, retry_seconds=0 if next(stream) & 1 else 90, stops_after=next(stream) or len(FIRMS))
        for _ in range(attempts)
    ]
    started, faults = list(running), 0
    while running:
        who, what = next(stream), next(stream)
        actor = who % (len(running) + len(late))
        if actor >= len(running):
            _attempt(late.pop(actor - len(running)))
            continue
        kind = _KINDS[what % 32] if what % 32 < len(_KINDS) else "pass"
        faults += kind != "pass"
        running[actor].step(kind, late)
        running = [attempt for attempt in running if not attempt.ended]
    for request in late:
        _attempt(request)
    last = Attempt(s3, 90, len(FIRMS))
    while not last.ended:
        last.step("pass", late)
    return _judge(s3, started, faults, problems)


class _Monitor:
    """Checks each record as it is written."""

    def __init__(self, s3: FakeS3, problems: list[str]) -> None:
        self._s3 = s3
        self._problems = problems
        self._complete = False
        self._named = 0

    def check(self, key: str) -> None:
        if key != RUN.progress_key(BATCH):
            return
        progress = parse_progress(self._s3.objects[key][0])
        if self._complete and (progress.state != "complete" or len(progress.completed) < len(FIRMS)):
            self._problems.append(f"a complete record was replaced by one that is {progress.state}")
        self._complete = self._complete or progress.state == "complete"
        if progress.counts.named < self._named:
            self._problems.append("a topic has lost its name")
        self._named = progress.counts.named
        for part, written in progress.parts.items():
            if self._s3.objects.get(part, (b"", "", {}))[1] != written.etag:
                self._problems.append(f"the record lists {part}, which is not in the bucket as it was written")
        if sum(part.rows for part in progress.parts.values()) != progress.counts.topics:
            self._problems.append("the record's number of topics is not that of its parts")


def _judge(s3: FakeS3, attempts: list[Attempt], faults: int, problems: list[str]) -> History:
    bucket = Bucket(Client(s3, lambda request: request()), "bucket")  # pyright: ignore[reportArgumentType]
    results = read_results(bucket, RUN)
    bucket.delete(results.unlisted_parts)  # as SummarizeResults does
    (batch,) = results.batches
    if batch.problem:
        problems.append(batch.problem)
    parts = [body for key, (body, _, _) in s3.objects.items() if key.startswith(RUN.parts_prefix)]
    found = Counter(row["topic_id"] for body in parts for row in json.loads(body))
    expected = {row["topic_id"] for firm in FIRMS for row in _outcome(firm).rows}
    return History(
        topics=batch.counts.topics,
        rows=found.total(),
        lost=len(expected - found.keys()),
        doubled=sum(count - 1 for count in found.values()),
        overtaken=sum(attempt.overtaken for attempt in attempts),
        killed=sum(attempt.killed for attempt in attempts),
        faults=faults,
        problems=problems,
    )


def _outcome(firm: str, named: int = 1) -> Outcome:
    """A firm's topics, of which the first `named` have a name from the LLM."""
    rows: list[dict[str, Any]] = [
        {
            "firm_id": firm,
            "topic_id": f"{firm}_{number}",
            "name": f"{firm} {number}",
            "keywords": [],
            "naming_method": "llm" if number < named else "keywords",
        }
        for number in range(TOPICS_PER_FIRM)
    ]
    return Outcome(firm, rows, Counts(topics=TOPICS_PER_FIRM, named=named))


def _attempt(request: Callable[[], Any]) -> None:
    """Make a request and discard the response."""
    try:
        request()
    except ClientError:
        return


def _stream(choices: bytes) -> Iterator[int]:
    yield from choices
    while True:
        yield 0


def _error(code: str, status: int, operation: str) -> ClientError:
    answer: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, operation)
