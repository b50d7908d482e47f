"""Checks of a deployed stack. Each returns one line: the state, and for a problem what to do about it.

A check never raises: its error is reported as its finding.
"""

import math
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from cli.errors import explain
from cli.services import cost, executions, prefetch, quota, runs, vllm
from cli.stack import Stack
from contract import env
from contract import resource_names as names

Level = Literal["ok", "warning", "failure"]

_OUTPUTS = ("bucket", "state_machine_arn", "job_queue_arn", "job_definition_arn", "batch_log_group", "region")
_VLLM_OUTPUTS = ("vllm_cluster_name", "vllm_service_name", "vllm_asg_name", "vllm_target_group_arn", "vllm_base_url")


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    check: str
    level: Level
    text: str
    """What was found; for a warning or a failure also what to do."""


def examine(stack: Stack) -> list[Finding]:
    """All checks, in the order in which to repair what fails."""
    checks: list[tuple[str, Callable[[Stack], Finding]]] = [
        ("credentials", _credentials),
        ("region", _region),
        ("outputs", _outputs),
        ("bucket", _bucket),
        ("prefetch", _prefetch),
        ("state machine", _state_machine),
        ("Batch queue", _queue),
        ("worker image", _image),
    ]
    if vllm.is_part_of(stack):
        checks += [
            ("GPU quota", _quota),
            ("tokens per request", _tokens),
            ("vLLM", _vllm),
            ("targets", _targets),
            ("address", _address),
            ("idle GPUs", _idle),
        ]
    else:
        checks.append(("API key", _api_key))
    checks.append(("alarms", _alarms))
    return [_run(name, check, stack) for name, check in checks]


def _run(name: str, check: Callable[[Stack], Finding], stack: Stack) -> Finding:
    try:
        return check(stack)
    except Exception as error:
        sentence, _ = explain(error)
        return Finding(name, "failure", sentence)


def _credentials(stack: Stack) -> Finding:
    identity = stack.client("sts").get_caller_identity()
    return Finding("credentials", "ok", f"account {identity['Account']}, as {identity['Arn'].rsplit(':', 1)[-1]}")


def _region(stack: Stack) -> Finding:
    deployed, used = str(stack.outputs.get("region", "")), stack.region or ""
    if deployed and used and deployed != used:
        text = f"the stack is in {deployed}, but {used} is used: leave out --region"
        return Finding("region", "failure", text)
    return Finding("region", "ok", used or deployed)


def _outputs(stack: Stack) -> Finding:
    wanted = [*_OUTPUTS, *(_VLLM_OUTPUTS if vllm.is_part_of(stack) else ())]
    if missing := [name for name in wanted if not stack.outputs.get(name)]:
        text = f"the stack lacks {', '.join(missing)}: deploy it again with `pulumi up`"
        return Finding("outputs", "failure", text)
    return Finding("outputs", "ok", f"{len(stack.outputs)} outputs, from {stack.source}")


def _bucket(stack: Stack) -> Finding:
    bucket, key = stack.output("bucket"), f"progress/.doctor-{os.getpid()}"
    stack.s3.list_objects_v2(Bucket=bucket, MaxKeys=1)
    stack.s3.put_object(Bucket=bucket, Key=key, Body=b"")
    stack.s3.delete_object(Bucket=bucket, Key=key)
    return Finding("bucket", "ok", f"{bucket} can be listed and written")


def _prefetch(stack: Stack) -> Finding:
    items = prefetch.inventory(stack)
    if broken := [item for item in items if item["problem"]]:
        return Finding("prefetch", "warning", broken[0]["problem"])
    if not items:
        text = f"no quarter has one: upload it with `{stack.command} prefetch put QUARTER DIR`"
        return Finding("prefetch", "warning", text)
    quarters = f"{items[-1]['quarter']} to {items[0]['quarter']}" if len(items) > 1 else items[0]["quarter"]
    return Finding("prefetch", "ok", f"{len(items)} {'quarter' if len(items) == 1 else 'quarters'}, {quarters}")


def _state_machine(stack: Stack) -> Finding:
    at_once = executions.check_state_machine(stack)
    running = executions.any_running(stack)
    return Finding("state machine", "ok", f"{at_once} batches at once; {f'{running} runs' if running else 'idle'}")


def _queue(stack: Stack) -> Finding:
    queue = stack.batch.describe_job_queues(jobQueues=[stack.output("job_queue_arn")])["jobQueues"]
    if not queue:
        text = f"{stack.output('job_queue_arn')} does not exist: deploy the stack again with `pulumi up`"
        return Finding("Batch queue", "failure", text)
    environments = [order["computeEnvironment"] for order in queue[0].get("computeEnvironmentOrder", [])]
    described = stack.batch.describe_compute_environments(computeEnvironments=environments)["computeEnvironments"]
    for item in [queue[0], *described]:
        if item.get("state") == "DISABLED" or item.get("status") == "INVALID":
            name = item.get("jobQueueName") or item.get("computeEnvironmentName")
            reason = item.get("statusReason") or f"{item.get('state')}, {item.get('status')}"
            return Finding("Batch queue", "failure", f"{name} cannot take jobs ({reason}): enable it, or `pulumi up`")
    return Finding("Batch queue", "ok", f"{queue[0]['jobQueueName']} takes jobs")


def _image(stack: Stack) -> Finding:
    arn = stack.output("job_definition_arn")
    definitions = stack.batch.describe_job_definitions(jobDefinitions=[arn])["jobDefinitions"]
    if not definitions:
        text = f"the job definition {arn} does not exist: deploy the stack again with `pulumi up`"
        return Finding("worker image", "failure", text)
    image = str(definitions[0].get("containerProperties", {}).get("image", ""))
    registry, _, rest = image.partition("/")
    if ".dkr.ecr." not in registry:
        return Finding("worker image", "ok", f"{image} (not in ECR: not checked)")
    if stack.endpoint:
        return Finding("worker image", "ok", "local jobs run from the checkout, without an image")
    repository, _, tag = rest.partition(":")
    try:
        stack.client("ecr").describe_images(repositoryName=repository, imageIds=[{"imageTag": tag or "latest"}])
    except Exception as error:
        if type(error).__name__ not in ("ImageNotFoundException", "RepositoryNotFoundException"):
            raise
        text = f"{image} is not in ECR: push it with `make push STACK={stack.name}`"
        return Finding("worker image", "failure", text)
    return Finding("worker image", "ok", f"{repository}:{tag} is in ECR")


def _quota(stack: Stack) -> Finding:
    found = list(quota.quotas(stack, vllm.status(stack).maximum))
    if not found:
        return Finding("GPU quota", "ok", "not needed on this machine")
    for one in found:
        if not one.suffices:
            level = "failure" if one.vcpus * one.instances < one.needed else "warning"  # not even one instance
            return Finding("GPU quota", level, one.sentence)
    return Finding("GPU quota", "ok", ", ".join(f"{one.vcpus:.0f} vCPUs of {one.kind} instances" for one in found))


def _tokens(stack: Stack) -> Finding:
    """Compare the setting that limits the requests per GPU with the tokens that the last run of each quarter used."""
    expected = int(stack.outputs.get("vllm_tokens_per_request") or 0)
    counts = [record["summary"] for record in runs.latest_records(stack)]
    topics = sum(one["topics"]["total"] for one in counts)
    if not topics or not expected:
        return Finding("tokens per request", "ok", "no run has succeeded yet" if expected else "set by the config")
    measured = sum(one["tokens"]["prompt"] + one["tokens"]["completion"] for one in counts) / topics
    text = f"{measured:.0f} in the last successful runs; ftm:vllmTokensPerRequest is {expected}"
    if expected / 2 <= measured <= expected:
        return Finding("tokens per request", "ok", text)
    fitting = max(128, math.ceil(measured * 1.2 / 10) * 10)
    advice = f"`pulumi config set ftm:vllmTokensPerRequest {fitting}` sends as many requests as the GPU holds"
    return Finding("tokens per request", "warning", f"{text}: {advice}")


def _vllm(stack: Stack) -> Finding:
    found = vllm.status(stack)
    if found.desired_tasks != found.desired:
        text = (
            f"the service wants {found.desired_tasks} tasks, but the group wants {found.desired} instances: "
            f"`{stack.command} vllm scale {found.desired}`"
        )
        return Finding("vLLM", "failure", text)
    if not found.settled:
        reason = vllm.last_word(stack)
        text = f"{found.healthy} of {found.desired} healthy{f': {reason}' if reason else ''}"
        return Finding("vLLM", "warning", text)
    types = ", ".join(cost.instance_types(stack))
    return Finding(
        "vLLM", "ok", f"{found.healthy} of {found.desired} healthy, at most {found.maximum} {types}".rstrip()
    )


def _targets(stack: Stack) -> Finding:
    health = stack.elbv2.describe_target_health(TargetGroupArn=stack.output("vllm_target_group_arn"))
    sick = [
        target.get("TargetHealth", {})
        for target in health["TargetHealthDescriptions"]
        if target.get("TargetHealth", {}).get("State") not in ("healthy", "draining")
    ]
    if sick:
        reason = sick[0].get("Description") or sick[0].get("Reason") or sick[0].get("State", "")
        text = f"{len(sick)} not healthy ({reason}): see `{stack.command} vllm logs`"
        return Finding("targets", "warning", text)
    return Finding("targets", "ok", f"{len(health['TargetHealthDescriptions'])} registered, none unhealthy")


def _address(stack: Stack) -> Finding:
    url = stack.output("vllm_base_url")
    published = f"/{names.prefix(stack.name)}/vllm/base_url"
    try:
        value = stack.client("ssm").get_parameter(Name=published)["Parameter"]["Value"]
    except Exception as error:
        if type(error).__name__ != "ParameterNotFound":
            raise
        return Finding("address", "warning", f"the parameter {published} does not exist: `pulumi up` publishes it")
    if value != url:
        text = f"the parameter {published} says {value}, the stack {url}: `pulumi up` publishes it again"
        return Finding("address", "failure", text)
    host = urlsplit(url).hostname or ""
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        return Finding("address", "ok", f"{url} (its name is known inside the VPC only)")
    return Finding("address", "ok", url)


def _idle(stack: Stack) -> Finding:
    found = vllm.status(stack)
    if found.instances and not executions.any_running(stack):
        text = f"nothing runs, but GPUs are up ({found.instances}): switch them off with `{stack.command} vllm scale 0`"
        return Finding("idle GPUs", "warning", text)
    return Finding("idle GPUs", "ok", "none")


def _api_key(stack: Stack) -> Finding:
    arn = stack.output("job_definition_arn")
    definitions = stack.batch.describe_job_definitions(jobDefinitions=[arn])["jobDefinitions"]
    secrets = [item for one in definitions for item in one.get("containerProperties", {}).get("secrets", [])]
    if env.LLM_API_KEY in [item.get("name") for item in secrets]:
        return Finding("API key", "ok", f"the jobs get {env.LLM_API_KEY} from a secret")
    text = f"the stack has no vLLM, and its jobs get no {env.LLM_API_KEY}: see docs/configuration.md"
    return Finding("API key", "failure", text)


def _alarms(stack: Stack) -> Finding:
    prefix = f"{names.prefix(stack.name)}-"
    found = stack.client("cloudwatch").describe_alarms(AlarmNamePrefix=prefix)["MetricAlarms"]
    ringing = [alarm["AlarmName"] for alarm in found if alarm["StateValue"] == "ALARM"]
    if ringing:
        return Finding("alarms", "warning", f"{', '.join(ringing)}: see the CloudWatch console")
    return Finding("alarms", "ok", f"{len(found)} alarms, none is on" if found else "none is defined")
