"""One embedded AWS for all tests of a process, and its clients."""

import io
import json
import textwrap
import uuid
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import boto3
import pytest

from local.emulator.aws import REGION, EmbeddedAws
from testing.processes import until

ROLE = "arn:aws:iam::123456789012:role/any"


@dataclass
class Aws:
    """The embedded AWS with boto3 clients and helpers that create the resources most tests need."""

    embedded: EmbeddedAws

    def __post_init__(self) -> None:
        session = boto3.Session("embedded", "embedded", region_name=REGION)
        self._clients: dict[str, Any] = {}
        self._session = session

    def client(self, service: str) -> Any:
        if service not in self._clients:
            self._clients[service] = self._session.client(service, endpoint_url=self.embedded.endpoint)  # type: ignore[call-overload]
        return self._clients[service]

    def queue(self, max_vcpus: int = 8) -> str:
        """Create a job queue with its own compute environment; return its name."""
        batch = self.client("batch")
        name = f"q-{uuid.uuid4().hex[:8]}"
        vpc = self.client("ec2").describe_subnets()["Subnets"]
        self._role("batch")
        self._profile("ecs")
        batch.create_compute_environment(
            computeEnvironmentName=name,
            type="MANAGED",
            serviceRole="arn:aws:iam::123456789012:role/batch",
            computeResources={
                "type": "SPOT",
                "minvCpus": 0,
                "maxvCpus": max_vcpus,
                "instanceTypes": ["optimal"],
                "instanceRole": "arn:aws:iam::123456789012:instance-profile/ecs",
                "subnets": [vpc[0]["SubnetId"]],
                "securityGroupIds": [self.client("ec2").describe_security_groups()["SecurityGroups"][0]["GroupId"]],
            },
        )
        order = [{"order": 1, "computeEnvironment": name}]
        batch.create_job_queue(jobQueueName=name, priority=1, state="ENABLED", computeEnvironmentOrder=order)
        return name

    def job_definition(self, code: str, vcpus: str = "1", **settings: Any) -> str:
        """Register a job definition that runs Python source; return its ARN."""
        container = {
            "image": "worker",
            "command": ["python", "-c", textwrap.dedent(code)],
            "resourceRequirements": [{"type": "VCPU", "value": vcpus}, {"type": "MEMORY", "value": "512"}],
            **settings.pop("containerProperties", {}),
        }
        answer = self.client("batch").register_job_definition(
            jobDefinitionName=f"d-{uuid.uuid4().hex[:8]}", type="container", containerProperties=container, **settings
        )
        return answer["jobDefinitionArn"]

    def submit(self, queue: str, definition: str, **settings: Any) -> str:
        settings.setdefault("jobName", "job")
        return self.client("batch").submit_job(jobQueue=queue, jobDefinition=definition, **settings)["jobId"]

    def job(self, job_id: str) -> dict[str, Any]:
        return self.client("batch").describe_jobs(jobs=[job_id])["jobs"][0]

    def ended_job(self, job_id: str) -> dict[str, Any]:
        return until(lambda: self.job(job_id), lambda job: job["status"] in ("SUCCEEDED", "FAILED"))

    def log_lines(self, group: str, stream: str) -> list[str]:
        events = self.client("logs").get_log_events(logGroupName=group, logStreamName=stream)["events"]
        return [event["message"] for event in events]

    def function(self, files: dict[str, str], handler: str, **settings: Any) -> str:
        """Create a Lambda function whose zip contains `files`; return its name."""
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as zipped:
            for name, text in files.items():
                zipped.writestr(name, textwrap.dedent(text))
        self._role("any")
        name = f"f-{uuid.uuid4().hex[:8]}"
        self.client("lambda").create_function(
            FunctionName=name,
            Runtime="python3.13",
            Role=ROLE,
            Handler=handler,
            Code={"ZipFile": archive.getvalue()},
            **{"MemorySize": 256, "Timeout": 30, **settings},
        )
        return name

    def machine(self, definition: dict[str, Any]) -> str:
        """Create a state machine; return its ARN."""
        name = f"m-{uuid.uuid4().hex[:8]}"
        answer = self.client("stepfunctions").create_state_machine(
            name=name, definition=json.dumps(definition), roleArn=ROLE
        )
        return answer["stateMachineArn"]

    def start(self, machine: str, data: Any = None, **settings: Any) -> str:
        states = self.client("stepfunctions")
        return states.start_execution(stateMachineArn=machine, input=json.dumps(data or {}), **settings)["executionArn"]

    def execution(self, arn: str) -> dict[str, Any]:
        return self.client("stepfunctions").describe_execution(executionArn=arn)

    def ended_execution(self, arn: str) -> dict[str, Any]:
        return until(lambda: self.execution(arn), lambda execution: execution["status"] != "RUNNING")

    def run(self, definition: dict[str, Any], data: Any = None) -> dict[str, Any]:
        """Create a state machine, execute it, and return the ended execution."""
        return self.ended_execution(self.start(self.machine(definition), data))

    def events(self, arn: str) -> list[dict[str, Any]]:
        pages = self.client("stepfunctions").get_paginator("get_execution_history").paginate(executionArn=arn)
        return [event for page in pages for event in page["events"]]

    def _role(self, name: str) -> None:
        iam = self.client("iam")
        try:
            iam.get_role(RoleName=name)
        except iam.exceptions.NoSuchEntityException:
            iam.create_role(RoleName=name, AssumeRolePolicyDocument="{}")

    def _profile(self, name: str) -> None:
        iam = self.client("iam")
        try:
            iam.get_instance_profile(InstanceProfileName=name)
        except iam.exceptions.NoSuchEntityException:
            iam.create_instance_profile(InstanceProfileName=name)


@pytest.fixture(scope="session")
def aws() -> Iterator[Aws]:
    embedded = EmbeddedAws.start()
    yield Aws(embedded)
    embedded.stop()
