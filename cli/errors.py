"""Turns every failure into one sentence for a person and one exit code for a script; no other module does."""

import sys
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from contract import ContractError
from contract.exit_codes import ExitCode

if TYPE_CHECKING:
    from botocore.exceptions import ClientError


class CliError(Exception):
    """A failure whose message is already a sentence for the operator."""

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


_LOG_IN = "log in (`aws sso login` or `aws configure`) or choose another --profile"

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
    "NoSuchBucket": "the bucket does not exist",
    "StateMachineDoesNotExist": "the state machine does not exist",
    "ExecutionDoesNotExist": "the execution does not exist",
    "ClusterNotFoundException": "the ECS cluster does not exist",
    "ServiceNotFoundException": "the ECS service does not exist",
    "TargetGroupNotFound": "the target group does not exist",
}


def explain(error: BaseException) -> tuple[str, ExitCode]:
    """The sentence and the exit code of a failure.

    botocore is imported only if it already is: a command that never called AWS cannot have raised its exceptions.
    """
    if isinstance(error, CliError):
        return str(error), error.code
    if isinstance(error, ContractError):
        return str(error), ExitCode.USAGE
    if _is_unavailable_s3(error):
        return str(error), ExitCode.NOT_FOUND
    if "botocore.exceptions" in sys.modules and (explained := _explain_aws(error)):
        return explained
    if type(error).__module__.startswith("local."):
        return str(error), ExitCode.FAILED
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}", ExitCode.USAGE
    if isinstance(error, OSError):
        return f"the operating system reported an error: {error}", ExitCode.FAILED
    return f"internal error ({_described(error)}); set FTM_DEBUG=1 for the traceback", ExitCode.FAILED


def is_temporary(error: BaseException) -> bool:
    """Whether the same call to AWS may succeed later without a change here.

    True for a lost connection, throttling, an error inside AWS, and credentials that expired: an SSO session can be
    renewed while a command waits.
    """
    if _is_unavailable_s3(error):
        return True
    if "botocore.exceptions" not in sys.modules:
        return False
    from botocore import exceptions

    if isinstance(error, exceptions.ClientError):
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        return status >= 500 or aws_code(error) in _THROTTLED | _EXPIRED
    return isinstance(
        error,
        exceptions.HTTPClientError
        | exceptions.ConnectionError
        | exceptions.CredentialRetrievalError
        | exceptions.SSOError
        | exceptions.IncompleteReadError,
    )


def aws_code(error: BaseException) -> str:
    """The code of an error response from AWS, such as `NoSuchKey`; empty for any other exception."""
    response = cast(dict[str, Any], getattr(error, "response", None) or {})
    return str(response.get("Error", {}).get("Code", ""))


def _is_unavailable_s3(error: BaseException) -> bool:
    from contract.bucket import S3UnavailableError  # not at the start: `ftm --help` needs no bucket

    return isinstance(error, S3UnavailableError)


def _explain_aws(error: BaseException) -> tuple[str, ExitCode] | None:
    """As `explain`, for the exceptions of botocore; None for any other."""
    from botocore import exceptions

    if isinstance(error, exceptions.ClientError):
        return _explain_response(error)
    if isinstance(
        error,
        exceptions.NoCredentialsError
        | exceptions.PartialCredentialsError
        | exceptions.CredentialRetrievalError
        | exceptions.SSOError,
    ):
        return f"no AWS credentials: {_LOG_IN}", ExitCode.DENIED
    if isinstance(error, exceptions.ProfileNotFound):
        return f"{error}: see ~/.aws/config", ExitCode.DENIED
    if isinstance(error, exceptions.NoRegionError):
        return "no AWS region: pass --region, or set AWS_REGION", ExitCode.USAGE
    if isinstance(error, exceptions.HTTPClientError | exceptions.ConnectionError | exceptions.IncompleteReadError):
        return f"{_address(error)} does not answer: check the network, the stack and its region", ExitCode.NOT_FOUND
    if isinstance(error, exceptions.BotoCoreError):
        return _refused(error), ExitCode.FAILED
    return None


def _explain_response(error: "ClientError") -> tuple[str, ExitCode]:
    """The sentence for an error response of AWS; AWS's own message names the resource, so it is kept."""
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
        return f"AWS throttled {operation}, even after retries: try again in a minute", ExitCode.FAILED
    if code in _MISSING:
        what = answer.get("BucketName") or message
        return f"{_MISSING[code]} ({what}): is the stack deployed in this account and region?", ExitCode.NOT_FOUND
    return f"AWS refused {operation}: {code}: {message}", ExitCode.FAILED


def _address(error: BaseException) -> str:
    """The endpoint that did not answer; a response that breaks off while it is read does not name one."""
    url = urlsplit(str(cast(dict[str, Any], getattr(error, "kwargs", {})).get("endpoint_url") or ""))
    return f"{url.scheme}://{url.netloc}" if url.netloc else "AWS"


def _refused(error: BaseException) -> str:
    return f"the AWS SDK reported an error: {_described(error)}"


def _described(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
