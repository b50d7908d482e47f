"""A stack for the tests of the CLI: a moto server with the resources of a deployed stack, registered as `local`.

Its state machine has the state names of the real one, and the quarter decides how a run ends, so that each outcome is
immediate. The whole program is tested on the embedded AWS.
"""

import io
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from botocore.exceptions import ClientError
from typer.testing import CliRunner, Result

from cli.main import app
from contract import layout
from contract.batch import BatchLine, BatchProgress, Counts, Part
from contract.topics import TOPIC_COLUMNS
from local import state
from testing.moto_server import MotoServer

BUCKET = "ftm-local-test"
RUN = "20230405_101500"
SUCCEEDS, FAILS, BREAKS, WAITS, UNNAMED = "2023Q1", "2023Q2", "2023Q3", "2023Q4", "2022Q1"
"""How a run of each quarter ends."""

Ftm = Callable[..., Result]


@dataclass(frozen=True)
class Aws:
    """The moto server's address, and clients of it."""

    endpoint: str
    outputs: dict[str, Any]

    def client(self, service: str) -> Any:
        return _client(service, self.endpoint)


@cache
def _client(service: str, endpoint: str) -> Any:
    make_client: Any = boto3.client  # its stub has a signature for each service
    return make_client(
        service,
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=state.ACCESS_KEY,
        aws_secret_access_key=state.SECRET_KEY,
    )


@pytest.fixture(scope="session")
def deployed() -> Iterator[tuple[MotoServer, dict[str, Any]]]:
    """A moto server with a deployed stack; also returns the stack's outputs."""
    server = MotoServer.start()
    aws = Aws(server.endpoint, {})
    outputs = deploy(aws)
    warm_up(aws)
    server.keep()
    yield server, outputs
    server.stop()


@pytest.fixture(scope="session")
def local_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a daemon whose process is this one."""
    path = tmp_path_factory.mktemp("ftm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FTM_LOCAL_DIR", str(path))
        assert state.hold()
    return path


@pytest.fixture
def aws(deployed: tuple[MotoServer, dict[str, Any]], local_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Aws:
    """The stack `local` as deployed, without traces of earlier tests."""
    monkeypatch.setenv("FTM_LOCAL_DIR", str(local_dir))
    monkeypatch.setenv("FTM_STACK", "local")
    server, outputs = deployed
    server.begin()
    aws = Aws(server.endpoint, dict(outputs))
    register(aws)
    return aws


def register(aws: Aws) -> None:
    """Register it as the stack `local`, with its current outputs."""
    llm = state.Llm("fake-vllm", True)
    state.write(state.LocalState(os.getpid(), "local", aws.endpoint, "us-east-1", aws.outputs, llm, "2023-04-05"))


@pytest.fixture
def ftm(aws: Aws) -> Ftm:
    """Run `ftm` in this process, as its console script would."""

    def run(*arguments: str, exit_code: int = 0) -> Result:
        result = CliRunner().invoke(app, list(arguments), prog_name="ftm")
        assert result.exit_code == exit_code, f"{result.stdout}\n{result.stderr}\n{result.exception!r}"
        assert "Traceback" not in result.stderr
        return result

    return run


def deploy(aws: Aws) -> dict[str, Any]:
    """Create the deployed resources that the CLI uses; return the stack's outputs."""
    aws.client("s3").create_bucket(Bucket=BUCKET)
    machine = aws.client("stepfunctions").create_state_machine(
        name="ftm-local-quarter-processor",
        definition=json.dumps(DEFINITION),
        roleArn="arn:aws:iam::123456789012:role/ftm-local",
    )
    waits = {"StartAt": "Wait", "States": {"Wait": {"Type": "Wait", "Seconds": 600, "End": True}}}
    quarters = aws.client("stepfunctions").create_state_machine(
        name="ftm-local-quarters", definition=json.dumps(waits), roleArn="arn:aws:iam::123456789012:role/ftm-local"
    )
    ec2 = aws.client("ec2")
    ec2.create_launch_template(
        LaunchTemplateName="gpu", LaunchTemplateData={"ImageId": "ami-12c6146b", "InstanceType": "g5.xlarge"}
    )
    aws.client("autoscaling").create_auto_scaling_group(
        AutoScalingGroupName="ftm-local-vllm-asg",
        LaunchTemplate={"LaunchTemplateName": "gpu"},
        MinSize=0,
        MaxSize=2,
        DesiredCapacity=0,
        AvailabilityZones=["us-east-1a"],
    )
    ecs = aws.client("ecs")
    ecs.create_cluster(clusterName="ftm-local-vllm-cluster")
    ecs.register_task_definition(
        family="vllm", containerDefinitions=[{"name": "vllm", "image": "vllm", "memory": 1000}]
    )
    ecs.create_service(
        cluster="ftm-local-vllm-cluster", serviceName="ftm-local-vllm-service", taskDefinition="vllm", desiredCount=0
    )
    vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    group = aws.client("elbv2").create_target_group(Name="vllm", Protocol="HTTP", Port=8000, VpcId=vpc)
    return {
        "bucket": BUCKET,
        "region": "us-east-1",
        "state_machine_arn": machine["stateMachineArn"],
        "quarters_state_machine_arn": quarters["stateMachineArn"],
        "job_queue_arn": _job_queue(aws),
        "job_definition_arn": put_job_definition(aws),
        "batch_log_group": "/aws/batch/ftm-local",
        "vllm_asg_name": "ftm-local-vllm-asg",
        "vllm_cluster_name": "ftm-local-vllm-cluster",
        "vllm_service_name": "ftm-local-vllm-service",
        "vllm_target_group_arn": group["TargetGroups"][0]["TargetGroupArn"],
        "vllm_base_url": "http://127.0.0.1:9/v1",
    }


def warm_up(aws: Aws) -> None:
    """Fill the server's caches (of its parser, and of its services' errors), which each copy would fill again."""
    machines = aws.client("stepfunctions")
    role = "arn:aws:iam::123456789012:role/ftm-local"
    machine = machines.create_state_machine(name="warm", definition=json.dumps(DEFINITION), roleArn=role)
    arn = machine["stateMachineArn"]
    for quarter in (SUCCEEDS, FAILS, BREAKS, UNNAMED):
        machines.start_execution(stateMachineArn=arn, name=quarter, input=json.dumps({"quarter": quarter}))
    wait_until_none_runs(aws)
    for execution in machines.list_executions(stateMachineArn=arn)["executions"]:
        machines.get_execution_history(executionArn=execution["executionArn"])
    machines.delete_state_machine(stateMachineArn=arn)
    for call in (
        lambda: machines.describe_state_machine(stateMachineArn=arn),
        lambda: aws.client("s3").get_object(Bucket=BUCKET, Key="missing"),
        lambda: aws.client("logs").describe_log_streams(logGroupName="missing"),
    ):
        with suppress(ClientError):
            call()


def running_executions(aws: Aws) -> list[str]:
    machines = aws.client("stepfunctions")
    return [
        item["executionArn"]
        for machine in machines.list_state_machines()["stateMachines"]
        for item in machines.list_executions(stateMachineArn=machine["stateMachineArn"], statusFilter="RUNNING")[
            "executions"
        ]
    ]


def wait_until_none_runs(aws: Aws) -> None:
    """Step Functions ends a stopped execution before it answers; moto ends it afterwards."""
    deadline = time.monotonic() + 120
    while running_executions(aws):
        assert time.monotonic() < deadline, "an execution that was stopped still runs"
        time.sleep(0.02)


def make_vllm_healthy(aws: Aws) -> None:
    """One GPU running, as after a completed scale-up."""
    aws.client("autoscaling").set_desired_capacity(AutoScalingGroupName="ftm-local-vllm-asg", DesiredCapacity=1)
    aws.client("ecs").update_service(cluster="ftm-local-vllm-cluster", service="ftm-local-vllm-service", desiredCount=1)
    instance = aws.client("ec2").describe_instances()["Reservations"][0]["Instances"][0]["InstanceId"]
    aws.client("elbv2").register_targets(
        TargetGroupArn=aws.outputs["vllm_target_group_arn"], Targets=[{"Id": instance}]
    )


def put_job_definition(aws: Aws, **variables: str) -> str:
    """Register a new revision of the worker's job definition; return its ARN."""
    return aws.client("batch").register_job_definition(
        jobDefinitionName="ftm-local-worker",
        type="container",
        containerProperties={
            "image": "worker",
            "vcpus": 1,
            "memory": 1024,
            "environment": [{"name": name, "value": value} for name, value in variables.items()],
        },
    )["jobDefinitionArn"]


def put_manifest(aws: Aws, quarter: str, firms: int = 3, **changes: Any) -> None:
    """Write a prefetch of `firms` firms: a complete manifest and an empty chunk."""
    ids = [f"F{number}" for number in range(firms)]
    manifest = {
        "quarter": quarter,
        "created_at": "2023-04-01T00:00:00Z",
        "n_firms": firms,
        "n_chunks": 1,
        "chunk_sizes": {"chunk_0000.parquet": firms},
        "firm_to_chunk": dict.fromkeys(ids, "chunk_0000.parquet"),
    }
    s3 = aws.client("s3")
    s3.put_object(Bucket=BUCKET, Key=layout.chunk_key(quarter, "chunk_0000.parquet"), Body=b"")
    s3.put_object(
        Bucket=BUCKET, Key=layout.prefetch_manifest_key(quarter), Body=json.dumps({**manifest, **changes}).encode()
    )


def put_run(aws: Aws, quarter: str, run: str = RUN, *, latest: bool = True) -> None:
    """Write the results of a run of one batch: F0 has two topics, F1 was skipped, F2 has one; one part is unlisted."""
    s3 = aws.client("s3")
    batch = layout.batch_id(quarter, 0)
    line = BatchLine(batch, quarter, ["F0", "F1", "F2"]).to_json()
    ref = layout.RunRef(quarter, run)
    s3.put_object(Bucket=BUCKET, Key=ref.manifest_key, Body=line.encode())
    part, half = (ref.part_key(batch, number, "a") for number in (0, 1))
    written = s3.put_object(Bucket=BUCKET, Key=part, Body=parquet(quarter, [("F2", 0), ("F0", 10), ("F0", 2)]))
    s3.put_object(Bucket=BUCKET, Key=half, Body=parquet(quarter, [("F0", 11)]))
    record = BatchProgress(
        batch,
        ref,
        firms=3,
        state="complete",
        completed={"F0": Counts(topics=2, named=2, prompt_tokens=80), "F2": Counts(topics=1, named=1)},
        skipped={"F1": "2 usable sentences, at least 3 are needed"},
        parts={part: Part(written["ETag"].strip('"'), rows=3)},
    )
    s3.put_object(Bucket=BUCKET, Key=ref.progress_key(batch), Body=record.to_json())
    if latest:
        s3.put_object(Bucket=BUCKET, Key=layout.latest_key(quarter), Body=json.dumps({"run": run}).encode())


def parquet(quarter: str, topics: list[tuple[str, int]]) -> bytes:
    """A part with the topics `(firm, number)`."""
    rows = [
        {
            **dict.fromkeys(TOPIC_COLUMNS),
            "firm_id": firm,
            "firm_name": f"{firm} Corp",
            "quarter": quarter,
            "topic_id": f"{firm}_{number}",
            "local_topic_id": number,
            "name": f"Topic {number} of {firm}",
            "summary": "A sentence about it.",
            "naming_method": "llm",
            "keywords": ["margin", "growth"],
            "n_sentences": 7,
        }
        for firm, number in topics
    ]
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


def _job_queue(aws: Aws) -> str:
    ec2 = aws.client("ec2")
    subnet = ec2.describe_subnets()["Subnets"][0]["SubnetId"]
    group = ec2.describe_security_groups()["SecurityGroups"][0]["GroupId"]
    batch = aws.client("batch")
    role = aws.client("iam").create_role(RoleName="batch", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    environment = batch.create_compute_environment(
        computeEnvironmentName="ftm-local",
        type="MANAGED",
        serviceRole=role,
        computeResources={
            "type": "FARGATE",
            "maxvCpus": 4,
            "subnets": [subnet],
            "securityGroupIds": [group],
        },
    )
    queue = batch.create_job_queue(
        jobQueueName="ftm-local",
        state="ENABLED",
        priority=1,
        computeEnvironmentOrder=[{"order": 1, "computeEnvironment": environment["computeEnvironmentArn"]}],
    )
    return queue["jobQueueArn"]


def summary(quarter: str, failed: bool) -> dict[str, Any]:
    failure = {"batch_id": f"{quarter}_batch_0001", "reason": "the worker gave up", "exit_code": 1, "log_stream": "s/1"}
    return {
        "quarter": quarter,
        "run": RUN,
        "has_failures": failed,
        "message": "1 of 2 batches failed" if failed else "all of 3 firms are accounted for",
        "batches": {"total": 2, "succeeded": 1 if failed else 2, "failed": int(failed)},
        "firms": {"total": 3, "completed": 2, "skipped": 1, "failed": 0},
        "topics": {"total": 3, "named": 3},
        "tokens": {"prompt": 100, "cached": 80, "completion": 30},
        "fallbacks": [],
        "seconds": 1.5,
        "failures": [failure] if failed else [],
    }


def _branch(quarter: str, then: str) -> dict[str, str]:
    return {"Variable": "$.quarter", "StringEquals": quarter, "Next": then}


DEFINITION: dict[str, Any] = {
    "StartAt": "CheckPrefetch",
    "States": {
        "CheckPrefetch": {
            "Type": "Choice",
            "Choices": [_branch(BREAKS, "PrefetchRequired")],
            "Default": "CreateBatchManifest",
        },
        "PrefetchRequired": {
            "Type": "Fail",
            "Error": "PrefetchRequired",
            "Cause": json.dumps({"errorMessage": "the prefetch of 2023Q3 is broken", "stackTrace": ["somewhere"]}),
        },
        "CreateBatchManifest": {
            "Type": "Pass",
            "Result": {"run": RUN, "manifest_key": "", "firms": 3, "batch_size": 2, "batch_ids": ["a", "b"]},
            "ResultPath": "$.manifest",
            "Next": "ProcessBatches",
        },
        "ProcessBatches": {
            "Type": "Map",
            "MaxConcurrency": 5,
            "ItemsPath": "$.manifest.batch_ids",
            "ItemProcessor": {"StartAt": "Job", "States": {"Job": {"Type": "Pass", "End": True}}},
            "ResultPath": "$.batches",
            "Next": "HowItEnds",
        },
        "HowItEnds": {
            "Type": "Choice",
            "Choices": [_branch(WAITS, "Wait"), _branch(FAILS, "FailOneBatch"), _branch(UNNAMED, "NameTooFew")],
            "Default": "FailNone",
        },
        "Wait": {"Type": "Wait", "Seconds": 600, "Next": "FailNone"},
        "FailNone": {
            "Type": "Pass",
            "Result": summary(SUCCEEDS, failed=False),
            "ResultPath": "$.counted",
            "Next": "SummarizeResults",
        },
        "FailOneBatch": {
            "Type": "Pass",
            "Result": summary(FAILS, failed=True),
            "ResultPath": "$.counted",
            "Next": "SummarizeResults",
        },
        "NameTooFew": {
            "Type": "Pass",
            "Result": summary(UNNAMED, failed=False)
            | {
                "has_failures": True,
                "message": "1 of 3 topics was named",
                "fallbacks": [{"reason": "request_refused", "topics": 2, "example": "HTTP 422: no such field"}],
            },
            "ResultPath": "$.counted",
            "Next": "SummarizeResults",
        },
        "SummarizeResults": {
            "Type": "Pass",
            "InputPath": "$.counted",
            "ResultPath": "$.summary",
            "Next": "CheckForFailures",
        },
        "CheckForFailures": {
            "Type": "Choice",
            "Choices": [
                {
                    "Variable": "$.summary.has_failures",
                    "BooleanEquals": False,
                    "Next": "QuarterCompletedSuccessfully",
                }
            ],
            "Default": "QuarterCompletedWithFailures",
        },
        "QuarterCompletedWithFailures": {
            "Type": "Fail",
            "Error": "QuarterCompletedWithFailures",
            "CausePath": "$.summary.message",
        },
        "QuarterCompletedSuccessfully": {"Type": "Succeed"},
    },
}
