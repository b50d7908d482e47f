"""Real executions on an embedded AWS in its own process, with the real functions and state machine definitions, a job
queue, and a fake worker."""

import io
import json
import subprocess
import sys
import time
import uuid
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from components import definition
from contract import layout
from contract.batch import BatchProgress, parse_progress

ROOT = Path(__file__).parents[2]
BUCKET = "pipeline"
QUARTER = "2023Q1"
ROLE = "arn:aws:iam::123456789012:role/any"
QUEUE = "ftm-queue"
WORKER = "ftm-worker"
FUNCTIONS = ("prefetch_check", "create_batch_manifest", "summarize_results", "notify_completion")

EMBEDDED_AWS = """
import gc, sys
gc.disable()  # as in the daemon
from local.emulator.aws import EmbeddedAws
aws = EmbeddedAws.start()
gc.freeze()
gc.enable()
print(aws.endpoint, flush=True)
sys.stdin.read()
aws.stop()
"""


@dataclass
class Stack:
    """A deployed state machine, with helpers to write a prefetch, request faults, start executions and read results."""

    endpoint: str
    control: Path
    """The directory in which a test requests faults for a batch; see fake_worker.py."""

    def __post_init__(self) -> None:
        self._session = boto3.Session("embedded", "embedded", region_name="us-east-1")
        self._clients: dict[str, Any] = {}
        self.quarter_machine = ""
        self.began = 0.0
        """When the test began. Runs that start in the same second have the same id, and their jobs the same names."""

    def client(self, service: str) -> Any:
        if service not in self._clients:
            self._clients[service] = self._session.client(service, endpoint_url=self.endpoint)  # type: ignore[call-overload]
        return self._clients[service]

    @property
    def s3(self) -> Any:
        return self.client("s3")

    @property
    def states(self) -> Any:
        return self.client("stepfunctions")

    def put_prefetch(self, firms: int, quarter: str = QUARTER, bucket: str = BUCKET, **changes: Any) -> None:
        chunk = "chunk_0000.parquet"
        manifest: dict[str, Any] = {
            "quarter": quarter,
            "created_at": "2023-04-01T00:00:00Z",
            "n_firms": firms,
            "n_chunks": 1,
            "chunk_sizes": {chunk: firms},
            "firm_to_chunk": {f"FIRM{number}": chunk for number in range(firms)},
        }
        text = json.dumps(manifest | changes)
        self.s3.put_object(Bucket=bucket, Key=layout.prefetch_manifest_key(quarter), Body=text)
        self.s3.put_object(Bucket=bucket, Key=layout.chunk_key(quarter, chunk), Body=b"PAR1")

    def start(self, machine: str = "", **run_input: Any) -> str:
        """Start an execution of a quarter on `machine`, by default the deployed one; return its ARN."""
        return self.start_with(json.dumps({"quarter": QUARTER, "bucket": BUCKET, **run_input}), machine)

    def start_with(self, text: str, machine: str = "") -> str:
        name = f"test-{uuid.uuid4().hex[:12]}"
        machine = machine or self.quarter_machine
        return self.states.start_execution(stateMachineArn=machine, name=name, input=text)["executionArn"]

    def describe(self, execution: str) -> dict[str, Any]:
        return self.states.describe_execution(executionArn=execution)

    def ended(self, execution: str, seconds: float = 180) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while (described := self.describe(execution))["status"] == "RUNNING":
            assert time.monotonic() < deadline, f"still running after {seconds} s"
            time.sleep(0.2)
        return described

    def run(self, seconds: float = 180, machine: str = "", **run_input: Any) -> "Ended":
        """Start an execution of a quarter and wait until it has ended, `seconds` at most."""
        execution = self.start(machine, **run_input)
        described = self.ended(execution, seconds)
        return Ended(described, self.events(execution))

    def events(self, execution: str) -> list[dict[str, Any]]:
        pages = self.states.get_paginator("get_execution_history").paginate(executionArn=execution)
        return [event for page in pages for event in page["events"]]

    def progress(self, run: str, batch_id: str, quarter: str = QUARTER) -> BatchProgress:
        key = layout.RunRef(quarter, run).progress_key(batch_id)
        return parse_progress(self.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read())

    def keys(self, prefix: str) -> list[str]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return [item["Key"] for page in pages for item in page.get("Contents", [])]

    def jobs(self, run: str) -> Counter[str]:
        """The number of jobs of each batch in a run of this test."""
        named = [{"name": "JOB_NAME", "values": [f"ftm-{run}-*"]}]
        pages = self.client("batch").get_paginator("list_jobs").paginate(jobQueue=QUEUE, filters=named)
        jobs = (job for page in pages for job in page["jobSummaryList"] if job["createdAt"] >= self.began * 1000)
        return Counter(job["jobName"].removeprefix(f"ftm-{run}-") for job in jobs)

    def deploy(self, concurrency: int = 5, batch_timeout: int = 3600, prefix: str = "ftm") -> str:
        """Deploy the machine of one quarter as the program defines it, and return its ARN."""
        functions = {module: self._function(module, prefix) for module in FUNCTIONS}
        queue = self.client("batch").describe_job_queues(jobQueues=[QUEUE])["jobQueues"][0]["jobQueueArn"]
        calls = definition.QuarterCalls(
            **functions,
            job_queue=queue,
            job_definition=WORKER,
            job_name_prefix=prefix,
            sets_concurrency=False,
        )
        return self.create_machine(definition.quarter(calls, concurrency, batch_timeout))

    def create_machine(self, document: dict[str, Any]) -> str:
        name = f"machine-{uuid.uuid4().hex[:8]}"
        answer = self.states.create_state_machine(name=name, definition=json.dumps(document), roleArn=ROLE)
        return answer["stateMachineArn"]

    def prepare(self) -> None:
        """Create what the state machine needs, and then the machine itself."""
        iam, batch = self.client("iam"), self.client("batch")
        iam.create_role(RoleName="any", AssumeRolePolicyDocument="{}")
        iam.create_instance_profile(InstanceProfileName="ecs")
        self.s3.create_bucket(Bucket=BUCKET)
        subnet = self.client("ec2").describe_subnets()["Subnets"][0]["SubnetId"]
        group = self.client("ec2").describe_security_groups()["SecurityGroups"][0]["GroupId"]
        batch.create_compute_environment(
            computeEnvironmentName=QUEUE,
            type="MANAGED",
            serviceRole=ROLE,
            computeResources={
                "type": "SPOT",
                "minvCpus": 0,
                "maxvCpus": 6,
                "instanceTypes": ["optimal"],
                "instanceRole": "arn:aws:iam::123456789012:instance-profile/ecs",
                "subnets": [subnet],
                "securityGroupIds": [group],
            },
        )
        order = [{"order": 1, "computeEnvironment": QUEUE}]
        batch.create_job_queue(jobQueueName=QUEUE, priority=1, state="ENABLED", computeEnvironmentOrder=order)
        batch.register_job_definition(
            jobDefinitionName=WORKER,
            type="container",
            containerProperties={
                "image": "worker",
                "command": ["python", "-S", str(Path(__file__).with_name("fake_worker.py"))],
                "environment": [
                    {"name": "CONTROL", "value": str(self.control)},
                    {"name": "PYTHONPATH", "value": str(ROOT)},
                ],
                "resourceRequirements": [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "128"}],
            },
            retryStrategy={
                "attempts": 5,
                "evaluateOnExit": [
                    {"onStatusReason": "Host EC2*", "action": "RETRY"},
                    {"onReason": "*", "action": "EXIT"},
                ],
            },
        )
        self.quarter_machine = self.deploy()

    def create_function(self, name: str, code: str) -> str:
        """Create a function from Python source with a `handler`; return its ARN."""
        return self._create_function(name, "index.handler", _zip({"index.py": code.encode()}))

    def _function(self, module: str, prefix: str) -> str:
        name = f"{prefix}-{module.replace('_', '-')}"
        functions = self.client("lambda")
        try:
            return functions.get_function(FunctionName=name)["Configuration"]["FunctionArn"]
        except functions.exceptions.ResourceNotFoundException:
            paths = [path for package in ("contract", "functions") for path in (ROOT / package).glob("*.py")]
            code = _zip({str(path.relative_to(ROOT)): path.read_bytes() for path in paths})
            return self._create_function(name, f"functions.{module}.handler", code, JOB_NAME_PREFIX=prefix)

    def _create_function(self, name: str, handler: str, code: bytes, **variables: str) -> str:
        answer = self.client("lambda").create_function(
            FunctionName=name,
            Runtime="python3.13",
            Role=ROLE,
            Handler=handler,
            Code={"ZipFile": code},
            MemorySize=512,
            Timeout=60,
            Environment={"Variables": {"JOB_QUEUE_ARN": QUEUE, **variables}},
        )
        return answer["FunctionArn"]


@dataclass
class Ended:
    """An execution that has ended."""

    described: dict[str, Any]
    events: list[dict[str, Any]]

    @property
    def status(self) -> str:
        return self.described["status"]

    @property
    def cause(self) -> str:
        return self.described.get("cause", "")

    @property
    def seconds(self) -> float:
        return (self.described["stopDate"] - self.described["startDate"]).total_seconds()

    @property
    def summary(self) -> dict[str, Any]:
        return self.output_of("SummarizeResults")["summary"]

    @property
    def manifest(self) -> dict[str, Any]:
        return self.output_of("CreateBatchManifest")["manifest"]

    @property
    def states(self) -> list[str]:
        """The names of the top-level states that were entered."""
        inner = {"SubmitBatchJob", "JobSucceeded", "JobFailed"}
        entered = [
            event["stateEnteredEventDetails"]["name"] for event in self.events if "stateEnteredEventDetails" in event
        ]
        return [name for name in entered if name not in inner]

    @property
    def failures(self) -> int:
        """How often a function or a call of AWS failed."""
        return sum(event["type"] in ("LambdaFunctionFailed", "TaskFailed") for event in self.events)

    def output_of(self, state: str) -> dict[str, Any]:
        for event in self.events:
            details = event.get("stateExitedEventDetails")
            if details and details["name"] == state:
                return json.loads(details["output"])
        raise AssertionError(f"{state} did not finish: {self.described}")

    def largest_state(self) -> int:
        """Size in bytes of the largest input or output of a state or function."""
        sizes = [0]
        for event in self.events:
            for details in (value for value in event.values() if isinstance(value, dict)):
                sizes += [len(details[field]) for field in ("input", "output", "parameters") if field in details]
        return max(sizes)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    process = subprocess.Popen(
        [sys.executable, "-c", EMBEDDED_AWS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdin
    assert process.stdout
    try:
        stack = Stack(process.stdout.readline().strip(), tmp_path_factory.mktemp("control"))
        stack.prepare()
        yield stack
    finally:
        process.stdin.close()
        process.wait(timeout=30)


@pytest.fixture(autouse=True)
def clean(stack: Stack) -> None:
    """Remove the faults and objects of earlier tests."""
    stack.began = time.time()
    for file in stack.control.iterdir():
        file.unlink()
    if keys := stack.keys(""):
        stack.s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": key} for key in keys]})


def _zip(files: dict[str, bytes]) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as zipped:
        for name, body in files.items():
            zipped.writestr(name, body)
    return archive.getvalue()
