"""AWS Batch: compute environment, queue, job definition."""

import json

from botocore.exceptions import ClientError

from local.deploy.program import Resource
from local.deploy.resources.calls import Aws, fit, physical_name
from local.deploy.resources.registry import Created, creates

_LINKED_ROLE = "AWSServiceRoleForBatch"


@creates("aws:batch/computeEnvironment:ComputeEnvironment")
def compute_environment(aws: Aws, resource: Resource) -> Created:
    inputs, name = resource.inputs, physical_name(resource)
    resources = inputs.get("computeResources") or {}
    without = ("name", "namePrefix", "computeResources", "updatePolicy")  # it only governs later updates
    made = aws.call(
        "batch",
        "create_compute_environment",
        {"state": "ENABLED", "serviceRole": _linked_role(aws)} | inputs,
        without,
        computeEnvironmentName=name,
        computeResources=fit(aws, "batch", "ComputeResource", resources, ("ec2Configurations",)),
    )
    arn = made["computeEnvironmentArn"]
    return name, {"name": name, "arn": arn, "status": "VALID", "state": inputs.get("state", "ENABLED")}


@creates("aws:batch/jobQueue:JobQueue")
def job_queue(aws: Aws, resource: Resource) -> Created:
    name = physical_name(resource)
    inputs = {"state": "ENABLED"} | resource.inputs
    arn = aws.call("batch", "create_job_queue", inputs, ("name", "timeouts"), jobQueueName=name)["jobQueueArn"]
    return arn, {"name": name, "arn": arn}


@creates("aws:batch/jobDefinition:JobDefinition")
def job_definition(aws: Aws, resource: Resource) -> Created:
    name = physical_name(resource)
    inputs, without = resource.inputs, ("name", "namePrefix", "containerProperties", "deregisterOnNewRevision")
    container = inputs["containerProperties"]
    made = aws.call(
        "batch",
        "register_job_definition",
        inputs,
        without,
        jobDefinitionName=name,
        # This is already AWS's JSON: boto3 validates it, and its keys stay as they are.
        containerProperties=json.loads(container) if isinstance(container, str) else container,
    )
    arn, revision = made["jobDefinitionArn"], made["revision"]
    return arn, {"name": name, "arn": arn, "arnPrefix": arn.removesuffix(f":{revision}"), "revision": revision}


def _linked_role(aws: Aws) -> str:
    """The service-linked role, which AWS creates on the first use of Batch and the embedded AWS does not."""
    iam = aws.client("iam")
    path = "/aws-service-role/batch.amazonaws.com/"
    trusted = {"Effect": "Allow", "Principal": {"Service": "batch.amazonaws.com"}, "Action": "sts:AssumeRole"}
    trust = json.dumps({"Version": "2012-10-17", "Statement": [trusted]})
    try:
        iam.create_role(RoleName=_LINKED_ROLE, Path=path, AssumeRolePolicyDocument=trust)
    except ClientError as error:
        # Two compute environments of a stack are created at the same time. The code is compared, since botocore may
        # make the classes of `iam.exceptions` twice when two threads ask for them at once.
        if error.response.get("Error", {}).get("Code") != "EntityAlreadyExists":
            raise
    return iam.get_role(RoleName=_LINKED_ROLE)["Role"]["Arn"]
