"""Every failure as one sentence for a person and one exit code for a script; the one place that knows both."""

from enum import IntEnum
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from contract import ContractError

if TYPE_CHECKING:
    from botocore.exceptions import ClientError


class ExitCode(IntEnum):
    """What `ftm` exits with; the guide documents them."""

    DONE = 0
    FAILED = 1
    """The run failed, or something that has no code of its own."""
    USAGE = 2
    """The command line, or input that does not hold what it must."""
    NOT_FOUND = 3
    """No such stack, quarter, run or firm, or it is not up."""
    DENIED = 4
    """No credentials, expired ones, or no permission."""
    CONFLICT = 5
    """Something that runs already is in the way."""


class CliError(Exception):
    """A failure that a service can tell in its own words."""

    def __init__(self, sentence: str, code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(sentence)
        self.code = code


class NotFoundError(CliError):
    def __init__(self, sentence: str) -> None:
        super().__init__(sentence, ExitCode.NOT_FOUND)


class UsageError(CliError):
    def __init__(self, sentence: str) -> None:
        super().__init__(sentence, ExitCode.USAGE)


class ConflictError(CliError):
    def __init__(self, sentence: str) -> None:
        super().__init__(sentence, ExitCode.CONFLICT)


_LOG_IN = "log in (`aws sso login` or `aws configure`) or name another --profile"

_NO_CREDENTIALS = {
    "NoCredentialsError",
    "PartialCredentialsError",
    "CredentialRetrievalError",
    "SSOTokenLoadError",
    "UnauthorizedSSOTokenError",
    "TokenRetrievalError",
    "LoginRefreshRequired",
}
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired"}
_INVALID_IDENTITY = {
    "InvalidClientTokenId",
    "UnrecognizedClientException",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "InvalidSignatureException",
    "AuthFailure",
}
_DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AuthorizationError", "403", "Forbidden"}
_THROTTLED = {"Throttling", "ThrottlingException", "TooManyRequestsException", "SlowDown", "RequestLimitExceeded"}
_MISSING = {
    "NoSuchBucket": "the bucket is not there",
    "StateMachineDoesNotExist": "the state machine is not there",
    "ExecutionDoesNotExist": "the execution is not there",
    "ClusterNotFoundException": "the ECS cluster is not there",
    "ServiceNotFoundException": "the ECS service is not there",
    "TargetGroupNotFound": "the target group is not there",
}


def explain(error: BaseException) -> tuple[str, ExitCode]:
    """The sentence and the exit code of a failure.

    botocore's exceptions are known by their class's name, so that a command that never asked AWS does not import it.
    """
    if isinstance(error, CliError):
        return str(error), error.code
    if isinstance(error, ContractError):
        return str(error), ExitCode.USAGE
    module = type(error).__module__
    if module.startswith("boto"):
        return _explain_aws(error)
    if module.startswith("local."):
        return str(error), ExitCode.FAILED
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}", ExitCode.USAGE
    if isinstance(error, OSError):
        return f"the operating system refused: {error}", ExitCode.FAILED
    return f"ftm has met an error of its own ({_described(error)}); FTM_DEBUG=1 shows where", ExitCode.FAILED


def _explain_aws(error: BaseException) -> tuple[str, ExitCode]:
    name = type(error).__name__
    if hasattr(error, "response"):
        return _explain_answer(cast("ClientError", error))
    if name == "S3UploadFailedError" and error.__context__:
        return explain(error.__context__)  # boto3 packs AWS's own answer into a text
    if name in _NO_CREDENTIALS:
        return f"no AWS credentials: {_LOG_IN}", ExitCode.DENIED
    if name == "ProfileNotFound":
        return f"{error}: see ~/.aws/config", ExitCode.DENIED
    if name == "NoRegionError":
        return "no AWS region: give --region, or set AWS_REGION", ExitCode.USAGE
    if name in ("EndpointConnectionError", "ConnectTimeoutError", "ConnectionClosedError", "ReadTimeoutError"):
        url = urlsplit(str(getattr(error, "kwargs", {}).get("endpoint_url", "")))
        return (
            f"{url.scheme}://{url.netloc} does not answer: check the network, the stack and its region",
            ExitCode.NOT_FOUND,
        )
    return f"the AWS SDK refused: {_described(error)}", ExitCode.FAILED


def _explain_answer(error: "ClientError") -> tuple[str, ExitCode]:
    """The words for an error that AWS answered with; AWS's own message names the resource, so it is kept."""
    answer = cast(dict[str, Any], error.response.get("Error", {}))
    code = str(answer.get("Code", "unknown error"))
    message = str(answer.get("Message", "")).rstrip(".") or "no message"
    operation = error.operation_name
    if code in _EXPIRED:
        return f"the AWS credentials have expired: {_LOG_IN}", ExitCode.DENIED
    if code in _INVALID_IDENTITY:
        return f"AWS does not know these credentials ({code}): {_LOG_IN}", ExitCode.DENIED
    if code in _DENIED:
        return f"no permission for {operation}: {message}", ExitCode.DENIED
    if code in _THROTTLED:
        return f"AWS throttled {operation}, also after retries: try again in a minute", ExitCode.FAILED
    if code in _MISSING:
        what = answer.get("BucketName") or message
        return f"{_MISSING[code]} ({what}): is the stack deployed in this account and region?", ExitCode.NOT_FOUND
    return f"AWS refused {operation}: {code}: {message}", ExitCode.FAILED


def _described(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def aws_code(error: BaseException) -> str:
    """The code of an error that AWS answered with, such as `NoSuchKey`; empty for any other exception."""
    response = cast(dict[str, Any], getattr(error, "response", {}))
    return str(response.get("Error", {}).get("Code", ""))
