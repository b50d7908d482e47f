"""`python -m testing.faults [SCHEDULES]`: checks the topics of a batch after overlapping attempts and faults of S3.

It prints two tables: the simulation of `testing.attempts`, and whole batches of the real worker with a proxy that fails
some requests to S3. The worker is restarted while it exits with 75, as Batch does. The exit code is 1 unless the parts
contain every topic that the records count exactly once.
"""

import logging
import os
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from testing.attempts import simulate
from testing.aws_server import aws_server, s3_client
from testing.faulty_s3 import Fault, Rule, faulty_s3
from testing.tables import print_table
from testing.virtual_time import virtual_time
from testing.worker import BUCKET, Bucket, LlmServer, Worker, batch_environment, call, serving

FIRMS = 40
SHARE = {"GET": 0.5, "PUT": 0.15, "HEAD": 0.15}
"""The share of requests that fail, by method; a batch has few GET requests."""
ATTEMPTS = 5

_OVERLAPS = ["attempts", "schedules", "faults", "killed", "overtaken", "topics", "rows", "lost", "doubled"]
_FAULTS = ["fault", "requests", "failed", "exits", "topics", "rows", "lost", "doubled"]


def main(schedules: int) -> int:
    overlaps = [_try_schedules(attempts, schedules // 2) for attempts in (2, 3)]
    print("Overlapping attempts\n")
    print_table(_OVERLAPS, overlaps)
    rows = _try_faults()
    print("\nA failing S3\n")
    print_table(_FAULTS, rows)
    wrong = [row for row in (*overlaps, *rows) if row["lost"] or row["doubled"] or row["topics"] != row["rows"]]
    return bool(wrong) or any(row.get("problems") for row in overlaps)


def _try_schedules(attempts: int, schedules: int) -> dict[str, Any]:
    total: Counter[str] = Counter()
    started = time.monotonic()
    for seed in range(schedules):
        dice = random.Random(seed)
        history = simulate(dice.randbytes(dice.randint(0, 200)), attempts)
        for name in ("topics", "rows", "lost", "doubled", "overtaken", "killed", "faults"):
            total[name] += getattr(history, name)
        total["problems"] += len(history.problems)
        for problem in history.problems:
            print(f"schedule {seed} of {attempts} attempts: {problem}", file=sys.stderr)
    print(f"{schedules} schedules of {attempts} attempts in {time.monotonic() - started:.0f} s", file=sys.stderr)
    return {**total, "attempts": attempts, "schedules": schedules} | {name: total[name] for name in ("lost", "doubled")}


def _try_faults() -> list[dict[str, Any]]:
    kinds: list[tuple[str, Fault, Sequence[str]]] = [
        ("none", "answer", ()),
        ("503 SlowDown", "answer", ("GET", "PUT", "HEAD")),
        ("connection reset", "reset", ("GET", "PUT", "HEAD")),
        ("answer lost", "lost", ("GET", "PUT", "HEAD")),
        ("body cut", "cut", ("GET",)),
        ("body cut and reset", "cut and reset", ("GET",)),
    ]
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # moto logs each request
    with aws_server() as aws:
        return [_try_fault(aws, *kind) for kind in kinds]


class _Sometimes(Rule):
    """Fails a random share of the requests, reproducibly."""

    dice: random.Random

    def matches(self, method: str, path: str) -> bool:
        if method != self.method or not re.search(self.pattern, path) or self.dice.random() >= SHARE[method]:
            return False
        self.times += 1
        return True


def _try_fault(aws: dict[str, str], name: str, fault: Fault, methods: Sequence[str]) -> dict[str, Any]:
    os.environ.update(aws)
    s3 = s3_client(aws["AWS_ENDPOINT_URL"])
    s3.create_bucket(Bucket=BUCKET)
    bucket = Bucket(s3, aws)
    bucket.put_firms({f"FIRM{number:02}": call(f"FIRM{number:02}") for number in range(FIRMS)})
    llm = LlmServer()
    llm.gate.set()
    with faulty_s3(aws["AWS_ENDPOINT_URL"]) as proxy, serving(llm):
        for method in methods:
            rule = _Sometimes(method, ".", fault, times=0)
            rule.dice = random.Random(f"{name} {method}")
            proxy.rules.append(rule)
        worker = Worker(batch_environment(bucket, llm.url) | {"AWS_ENDPOINT_URL": proxy.url})
        exits = list(_attempts(worker))
        failed = sum(int(rule.times) for rule in proxy.rules)
        requests = len(proxy.requests)
    topics = Counter(row["topic_id"] for row in bucket.topics())
    counted = bucket.progress().counts.topics
    for key in bucket.keys(""):
        s3.delete_object(Bucket=BUCKET, Key=key)
    s3.delete_bucket(Bucket=BUCKET)
    return {
        "fault": name,
        "requests": requests,
        "failed": failed,
        "exits": " ".join(map(str, exits)),
        "topics": counted,
        "rows": topics.total(),
        "lost": max(0, counted - len(topics)),
        "doubled": topics.total() - len(topics),
    }


def _attempts(worker: Worker) -> Iterable[int]:
    for _ in range(ATTEMPTS):
        with virtual_time():
            done = worker.run()
        if done.returncode:
            print(done.stderr.strip(), file=sys.stderr)
        yield done.returncode
        if done.returncode != os.EX_TEMPFAIL:
            return


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000))
