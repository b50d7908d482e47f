"""The embedded AWS as a whole: no process outlives it, and concurrent requests work."""

import json
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from testing.processes import is_alive, until

SERVE = (
    "import gc; gc.disable(); from local.emulator.aws import EmbeddedAws; aws = EmbeddedAws.start(); "
    "print(aws.endpoint, flush=True); input(); aws.stop()"
)


@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_no_process_is_left(aws, end):
    daemon = subprocess.Popen([sys.executable, "-c", SERVE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert daemon.stdin
    assert daemon.stdout
    other: Any = type(aws)(SimpleNamespace(endpoint=daemon.stdout.readline().strip()))
    command = "import subprocess, time; subprocess.Popen(['sleep', '60']); print('up', flush=True); time.sleep(60)"
    job_id = other.submit(other.queue(), other.job_definition(command))
    name = other.function({"f.py": "def handler(event, context): return __file__"}, "f.handler")
    answer = other.client("lambda").invoke(FunctionName=name)
    code = Path(json.loads(answer["Payload"].read()))
    assert code.exists()
    stream = until(lambda: other.job(job_id)["container"].get("logStreamName"))
    until(lambda: other.log_lines("/aws/batch/job", stream))
    started = descendants(daemon.pid)
    assert len(started) >= 4  # the guard, the job and its child process, the process of the function

    if end == "killed":
        daemon.kill()
    else:
        daemon.communicate("\n")
    daemon.wait()
    until(lambda: not any(map(is_alive, started)), seconds=10)
    assert not code.exists()


@pytest.mark.parametrize(
    ("condition", "allowed"),
    [
        ({"Bool": {"aws:SecureTransport": "false"}}, True),
        ({"Bool": {"aws:SecureTransport": "true"}}, False),
        ({}, False),
    ],
)
def test_the_conditions_of_a_bucket_policy_are_evaluated(aws, condition, allowed):
    s3 = aws.client("s3")
    bucket = f"b-{uuid.uuid4().hex}"
    s3.create_bucket(Bucket=bucket)
    resource = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
    deny = {"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": resource}
    policy = {"Version": "2012-10-17", "Statement": [{**deny, "Condition": condition} if condition else deny]}
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))
    if allowed:
        s3.put_object(Bucket=bucket, Key="k", Body=b"")
        return
    with pytest.raises(s3.exceptions.ClientError, match="Forbidden"):
        s3.put_object(Bucket=bucket, Key="k", Body=b"")


def test_conditional_writes_to_a_bucket(aws):
    s3 = aws.client("s3")
    bucket = f"b-{uuid.uuid4().hex}"
    s3.create_bucket(Bucket=bucket)
    tag = s3.put_object(Bucket=bucket, Key="k", Body=b"1", IfNoneMatch="*")["ETag"]
    with pytest.raises(s3.exceptions.ClientError, match="PreconditionFailed"):
        s3.put_object(Bucket=bucket, Key="k", Body=b"2", IfNoneMatch="*")
    s3.put_object(Bucket=bucket, Key="k", Body=b"2", IfMatch=tag)
    with pytest.raises(s3.exceptions.ClientError, match="PreconditionFailed"):
        s3.put_object(Bucket=bucket, Key="k", Body=b"3", IfMatch=tag)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"2"


def descendants(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-eo", "pid,ppid"], capture_output=True, text=True, check=True).stdout
    parents = {int(child): int(parent) for child, parent in (line.split() for line in listed.splitlines()[1:])}
    found = [pid]
    for ancestor in found:
        found += [child for child, parent in parents.items() if parent == ancestor]
    return found[1:]


def test_concurrent_requests_do_not_fail(aws):
    """moto itself answers 500 to some of them: `dictionary changed size during iteration`."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(8) as pool:
            names = [f"at-once-{number}" for number in range(100)]
            iam = aws.client("iam")
            list(pool.map(lambda name: iam.create_role(RoleName=name, AssumeRolePolicyDocument="{}"), names))
    finally:
        sys.setswitchinterval(interval)
