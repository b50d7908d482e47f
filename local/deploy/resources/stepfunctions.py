"""State machines and the services that they call: Step Functions, Lambda, SNS."""

import hashlib
import io
import zipfile
from base64 import b64encode
from pathlib import Path
from typing import Any

import pulumi

from local.deploy.program import Resource
from local.deploy.resources.calls import Aws, physical_name
from local.deploy.resources.registry import Created, creates
from local.state import LocalError


@creates("aws:lambda/function:Function")
def function(aws: Aws, resource: Resource) -> Created:
    inputs, name = resource.inputs, physical_name(resource)
    archive = zip_archive(inputs["code"])
    without = ("name", "code", "sourceCodeHash", "reservedConcurrentExecutions", "skipDestroy")
    made = aws.call("lambda", "create_function", inputs, without, FunctionName=name, Code={"ZipFile": archive})
    if (reserved := inputs.get("reservedConcurrentExecutions", -1)) >= 0:
        aws.client("lambda").put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=reserved)
    arn = made["FunctionArn"]
    return name, {
        "name": name,
        "arn": arn,
        "qualifiedArn": f"{arn}:{made['Version']}",
        "version": made["Version"],
        "invokeArn": f"arn:aws:apigateway:{aws.region}:lambda:path/2015-03-31/functions/{arn}/invocations",
        "sourceCodeHash": b64encode(hashlib.sha256(archive).digest()).decode(),
    }


@creates("aws:sfn/stateMachine:StateMachine")
def state_machine(aws: Aws, resource: Resource) -> Created:
    inputs, name = dict(resource.inputs), physical_name(resource)
    if logging := dict(inputs.get("loggingConfiguration") or {}):
        destination = {"cloudWatchLogsLogGroup": {"logGroupArn": logging.pop("logDestination", None)}}
        inputs["loggingConfiguration"] = {**logging, "destinations": [destination]}
    made = aws.call("stepfunctions", "create_state_machine", inputs, ("name", "namePrefix"), name=name)
    arn = made["stateMachineArn"]
    return arn, {"name": name, "arn": arn, "status": "ACTIVE"}


@creates("aws:sns/topic:Topic")
def topic(aws: Aws, resource: Resource) -> Created:
    inputs, name = resource.inputs, physical_name(resource)
    attributes = {"KmsMasterKeyId": inputs.get("kmsMasterKeyId"), "Policy": inputs.get("policy")}
    made = aws.call(
        "sns",
        "create_topic",
        {"tags": inputs.get("tags")},
        Name=name,
        Attributes={key: value for key, value in attributes.items() if value},
    )
    return made["TopicArn"], {"name": name, "arn": made["TopicArn"]}


@creates("aws:sns/topicPolicy:TopicPolicy")
def topic_policy(aws: Aws, resource: Resource) -> Created:
    arn, policy = resource.inputs["arn"], resource.inputs["policy"]
    aws.client("sns").set_topic_attributes(TopicArn=arn, AttributeName="Policy", AttributeValue=policy)
    return arn, {}


@creates("aws:sns/topicSubscription:TopicSubscription")
def topic_subscription(aws: Aws, resource: Resource) -> Created:
    inputs = resource.inputs
    made = aws.client("sns").subscribe(
        TopicArn=inputs["topic"], Protocol=inputs["protocol"], Endpoint=inputs["endpoint"], ReturnSubscriptionArn=True
    )
    return made["SubscriptionArn"], {"arn": made["SubscriptionArn"]}


def zip_archive(archive: Any) -> bytes:
    """Zip a Pulumi archive; the same files always give the same bytes."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, content in sorted(_files(archive, "")):
            entry = zipfile.ZipInfo(name)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            bundle.writestr(entry, content)
    return packed.getvalue()


def _files(archive: Any, prefix: str) -> list[tuple[str, bytes]]:
    match archive:
        case pulumi.FileAsset(path=path):
            return [(prefix, Path(path).read_bytes())]
        case pulumi.StringAsset(text=text):
            return [(prefix, text.encode())]
        case pulumi.AssetArchive(assets=assets):
            return [file for name, inner in assets.items() for file in _files(inner, f"{prefix}{_joint(prefix)}{name}")]
        case pulumi.FileArchive(path=path):
            return _files_under(Path(path), f"{prefix}{_joint(prefix)}")
        case _:
            raise LocalError(f"the function's code is a {type(archive).__name__}, not an archive of local files")


def _joint(prefix: str) -> str:
    return "/" if prefix else ""


def _files_under(path: Path, prefix: str) -> list[tuple[str, bytes]]:
    if path.is_dir():
        files = (file for file in path.rglob("*") if file.is_file())
        return [(prefix + file.relative_to(path).as_posix(), file.read_bytes()) for file in files]
    with zipfile.ZipFile(path) as bundle:
        return [(prefix + name, bundle.read(name)) for name in bundle.namelist() if not name.endswith("/")]
