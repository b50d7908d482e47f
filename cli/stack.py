"""The stack that a command works on: its outputs, and AWS clients that reach it."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from shlex import quote
from typing import TYPE_CHECKING, Any, cast

from cli.errors import CliError, NotFoundError, aws_code, explain
from contract import ContractError
from contract.exit_codes import ExitCode
from contract.project import find_project
from contract.resource_names import outputs_parameter

if TYPE_CHECKING:
    from boto3.session import Session
    from mypy_boto3_autoscaling import AutoScalingClient
    from mypy_boto3_batch import BatchClient
    from mypy_boto3_ecs import ECSClient
    from mypy_boto3_elbv2 import ElasticLoadBalancingv2Client
    from mypy_boto3_logs import CloudWatchLogsClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_stepfunctions import SFNClient

    from contract.bucket import Bucket

PULUMI_SECONDS = 60.0

LOCAL = "local"
"""The stack that `ftm local up` deploys on this machine."""


@dataclass(frozen=True)
class Target:
    """The values of the global options."""

    stack: str
    region: str | None = None
    profile: str | None = None
    verbose: bool = False


@dataclass(frozen=True)
class Stack:
    """A deployed stack. Its clients are created on first use, since importing boto3 takes a quarter of a second."""

    name: str
    outputs: Mapping[str, Any]
    region: str | None = None
    profile: str | None = None
    endpoint: str | None = None
    """The embedded AWS's address; None for AWS itself."""
    credentials: Mapping[str, str] = field(default_factory=dict[str, str])
    source: str = ""
    """Where the outputs come from."""

    def output(self, name: str) -> str:
        """One of the stack's exports.

        Raises:
            NotFoundError: when the stack lacks it.
        """
        value = self.outputs.get(name)
        if not value:
            raise NotFoundError(f"the stack {self.name} has no output {name!r}: deploy it again with `pulumi up`")
        return str(value)

    @property
    def command(self) -> str:
        """`ftm` with the options that select this stack, for hints."""
        profile = f" --profile {quote(self.profile)}" if self.profile else ""
        return f"ftm --stack {quote(self.name)}{profile}"

    def aws_command(self, command: str) -> str:
        """A command line of the AWS CLI that works on this stack."""
        words = [f"{name.upper()}={value}" for name, value in self.credentials.items()]  # only the embedded AWS has any
        words += ["aws", command]
        if self.region:
            words.append(f"--region {self.region}")
        if self.profile:
            words.append(f"--profile {quote(self.profile)}")
        if self.endpoint:
            words.append(f"--endpoint-url {self.endpoint}")
        return " ".join(words)

    @property
    def poll_interval(self) -> float:
        """Seconds between two requests while waiting: AWS throttles them, the embedded AWS does not."""
        return 0.5 if self.endpoint else 3.0

    @cached_property
    def s3(self) -> "S3Client":
        return self.client("s3")

    @cached_property
    def bucket(self) -> "Bucket":
        """The pipeline's bucket: objects and records."""
        from contract.bucket import Bucket

        # Not retried on the embedded AWS: if it does not answer, it has ended.
        return Bucket(self.s3, self.output("bucket"), retry_seconds=0 if self.endpoint else 20)

    @cached_property
    def stepfunctions(self) -> "SFNClient":
        return self.client("stepfunctions")

    @cached_property
    def batch(self) -> "BatchClient":
        return self.client("batch")

    @cached_property
    def autoscaling(self) -> "AutoScalingClient":
        return self.client("autoscaling")

    @cached_property
    def ecs(self) -> "ECSClient":
        return self.client("ecs")

    @cached_property
    def elbv2(self) -> "ElasticLoadBalancingv2Client":
        return self.client("elbv2")

    @cached_property
    def logs(self) -> "CloudWatchLogsClient":
        return self.client("logs")

    def forget_clients(self) -> None:
        """Create all clients anew on their next use, with credentials that may have been renewed meanwhile."""
        for name in [name for name, value in vars(type(self)).items() if isinstance(value, cached_property)]:
            self.__dict__.pop(name, None)

    @cached_property
    def _session(self) -> "Session":
        from boto3.session import Session

        if self.endpoint is None:
            return Session(profile_name=self.profile, region_name=self.region)
        from botocore.session import Session as CoreSession

        # The operator's own profile and configuration files do not concern the embedded AWS.
        ignored: Any = dict.fromkeys(("profile", "config_file", "credentials_file"), (None, None, None, None))
        return Session(botocore_session=CoreSession(ignored), region_name=self.region, **self.credentials)

    def client(self, service: str) -> Any:
        """A new client of any AWS service, untyped; the properties above are the typed ones."""
        from botocore.config import Config

        local = self.endpoint is not None
        config = Config(
            retries={"mode": "standard", "total_max_attempts": 2 if local else 5},
            connect_timeout=10,
            max_pool_connections=20,
            # On the loopback: no DNS for a bucket name in the host, and no proxy.
            s3={"addressing_style": "path"} if local else {},
            proxies={} if local else None,
        )
        session = cast(Any, self._session)  # its stub has a signature for each of AWS's 400 services
        return session.client(service, endpoint_url=self.endpoint, config=config)


def connect(target: Target) -> Stack:
    """The stack that `target` names, with its outputs.

    Raises:
        NotFoundError: when it is not deployed, or the local one is not up.
        CliError: when Pulumi cannot read it, with the reason.
    """
    stack = _local_stack() if target.stack == LOCAL else _deployed_stack(target)
    if target.verbose:
        print(f"outputs of the stack {stack.name}: {stack.source}", file=sys.stderr)
    return stack


def _deployed_stack(target: Target) -> Stack:
    """From the parameter in AWS if it can be read, which needs AWS credentials only; else from Pulumi.

    Raises:
        CliError: when neither can be read, with the reasons.
    """
    unpublished = None
    try:
        if outputs := _published_outputs(target):
            source = f"SSM parameter {outputs_parameter(target.stack)}"
            return Stack(target.stack, outputs, target.region or outputs.get("region"), target.profile, source=source)
    except CliError as error:
        unpublished = error
    try:
        outputs = _pulumi_outputs(target.stack)
    except (CliError, ContractError) as error:
        if unpublished is None:
            raise
        codes = (unpublished.code, getattr(error, "code", ExitCode.NOT_FOUND))
        code = ExitCode.DENIED if ExitCode.DENIED in codes else codes[1]
        raise CliError(f"{unpublished}; and not from Pulumi: {error}", code) from error
    source = "pulumi stack output"
    return Stack(target.stack, outputs, target.region or outputs.get("region"), target.profile, source=source)


def _published_outputs(target: Target) -> dict[str, Any] | None:
    """The outputs in the SSM parameter; None when no region is known in which to ask for it.

    Raises:
        CliError: when it cannot be read, with the reason.
    """
    if not (target.region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or _has_profile()):
        return None  # importing boto3 to find that out takes a quarter of a second
    from boto3.session import Session
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    parameter = outputs_parameter(target.stack)
    config = Config(connect_timeout=3, read_timeout=5, retries={"total_max_attempts": 1})
    try:
        # boto3 reads AWS_DEFAULT_REGION only; the AWS CLI also reads AWS_REGION.
        region = target.region or os.environ.get("AWS_REGION")
        session = cast(Any, Session(profile_name=target.profile, region_name=region))
        answer = session.client("ssm", config=config).get_parameter(Name=parameter)
        return cast(dict[str, Any], json.loads(answer["Parameter"]["Value"]))
    except (BotoCoreError, ClientError, ValueError) as error:
        missing = aws_code(error) == "ParameterNotFound"
        reason, code = ("it does not exist in this region", ExitCode.NOT_FOUND) if missing else explain(error)
        raise CliError(
            f"the stack {target.stack} cannot be read from its parameter {parameter} in AWS: {reason}", code
        ) from error


def _has_profile() -> bool:
    """Whether a configuration file may name a region."""
    path = os.environ.get("AWS_CONFIG_FILE") or os.path.expanduser("~/.aws/config")
    return os.path.exists(path)


def _local_stack() -> Stack:
    from local import state

    local = state.read()
    if local is None:
        raise NotFoundError("the stack local is not up: start it with `ftm local up`")
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]  # profile, region and endpoint of the real AWS
    keys = {"aws_access_key_id": state.ACCESS_KEY, "aws_secret_access_key": state.SECRET_KEY}
    return Stack(
        LOCAL, local.outputs, local.region, endpoint=local.endpoint, credentials=keys, source=str(state.directory())
    )


def _pulumi_outputs(stack: str) -> dict[str, Any]:
    """The stack's outputs, read with Pulumi's own CLI, which knows the backend; secrets stay hidden."""
    project = find_project()
    command = ["pulumi", "stack", "output", "--json", "--non-interactive", "--stack", stack]
    try:
        answer = subprocess.run(
            command,
            cwd=project,
            env={**os.environ, "PULUMI_SKIP_UPDATE_CHECK": "true"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PULUMI_SECONDS,
            check=False,
        )
    except FileNotFoundError as error:
        raise NotFoundError(
            f"the outputs of the stack {stack} cannot be read without Pulumi's CLI: install it from "
            "https://www.pulumi.com/docs/install, or pass --region to read them from AWS (local needs none)"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise CliError(
            f"Pulumi did not answer within {PULUMI_SECONDS:.0f} seconds: check the network and the backend "
            "(`pulumi whoami --verbose`)"
        ) from error
    if answer.returncode:
        raise _pulumi_error(stack, answer.stderr)
    outputs = _parse_outputs(answer.stdout)
    if not outputs:
        raise NotFoundError(f"the stack {stack} has no outputs: deploy it with `pulumi up --stack {stack}`")
    return outputs


def _parse_outputs(stdout: str) -> dict[str, Any]:
    """The JSON object in Pulumi's output, which a banner may precede.

    Raises:
        CliError: when there is none.
    """
    _, brace, rest = stdout.partition("{")
    try:
        outputs, _ = json.JSONDecoder().raw_decode(brace + rest)
    except ValueError as error:
        raise CliError(f"Pulumi printed no outputs, but {stdout.strip()[:80]!r}") from error
    return outputs


def _pulumi_error(stack: str, stderr: str) -> CliError:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("error:").strip() for line in lines if line.startswith("error:")]
    reason = (errors or lines or ["it gave no reason"])[-1]
    text = stderr.lower()
    if "no stack named" in text:
        return NotFoundError(f"there is no stack {stack!r}: `pulumi stack ls` lists those that exist")
    if "pulumi_access_token" in text or "pulumi login" in text or "not logged in" in text:
        return CliError("Pulumi is not logged in to the backend that holds the stacks: `pulumi login`", ExitCode.DENIED)
    if any(word in text for word in ("accessdenied", "expiredtoken", "credentials", "unauthorized", "forbidden")):
        return CliError(f"Pulumi may not read the stack {stack}: {reason}", ExitCode.DENIED)
    return NotFoundError(f"Pulumi cannot read the stack {stack}: {reason}")
