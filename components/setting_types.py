"""The types of settings: the format of their values, and the declared effect of changing them."""

import json
import re
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any, cast

from pydantic import AfterValidator, BeforeValidator, Field


class Change(StrEnum):
    """What changing a setting does to a stack that is already deployed."""

    IN_PLACE = "in place"
    RESTARTS_VLLM = "vLLM restarts"
    NEXT_RUN = "applies to the next run"
    REFUSED = "refused"


def setting(
    default: Any, change: Change, description: str, *, note: str = "", during_run: str = "", **field: Any
) -> Any:
    """A pydantic field with its documentation.

    Args:
        note: An exception to `change`, or the steps to take after a refusal; printed after `change` in
            docs/configuration.md.
        during_run: What the change does to a run that is in progress, when `change` does not say so.
        field: Further arguments of `pydantic.Field`, such as `ge` and `alias`.
    """
    extra = {"change": change.value, "note": note, "during_run": during_run}
    return Field(default, description=description, json_schema_extra=cast(Any, extra), **field)


def matching(pattern: str, allowed: str) -> AfterValidator:
    """Accept values that match `pattern` in full; the error message describes them as `allowed`."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(f"it should be {allowed}")
        return value

    return AfterValidator(check)


def each(check: AfterValidator) -> AfterValidator:
    """Apply `check` to every item of a list."""
    return AfterValidator(lambda values: [cast(Callable[[str], str], check.func)(value) for value in values])


def _arn(service: str, resource: str, example: str) -> AfterValidator:
    return matching(
        rf"arn:aws[a-z-]*:{service}:[a-z0-9-]*:\d{{12}}:{resource}",
        f"an ARN such as arn:aws:{example}",
    )


def _parse_list(value: object) -> object:
    """Pulumi passes a list as JSON."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise ValueError("it should be a list") from None


_IS_LIST = BeforeValidator(_parse_list)

RoleArn = Annotated[str, _arn("iam", r"role/[\w+=,.@/-]+", "iam::123456789012:role/name")]
ProfileArn = Annotated[str, _arn("iam", r"instance-profile/[\w+=,.@/-]+", "iam::123456789012:instance-profile/name")]
SecretArn = Annotated[
    str, _arn("secretsmanager", r"secret:.+", "secretsmanager:us-east-1:123456789012:secret:name-AbCdEf")
]
CertificateArn = Annotated[
    str, _arn("acm", r"certificate/[\w-]+", "acm:us-east-1:123456789012:certificate/1234abcd-...")
]
TopicArn = Annotated[str, _arn("sns", r"[\w-]+", "sns:us-east-1:123456789012:topic")]
KeyArn = Annotated[str, _arn("kms", r"key/[\w-]+", "kms:us-east-1:123456789012:key/1234abcd-...")]
BucketName = Annotated[str, matching(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", "the name of a bucket")]
VpcId = Annotated[str, matching(r"vpc-[0-9a-f]+", "a VPC's id")]
SubnetIds = Annotated[list[str], _IS_LIST, each(matching(r"subnet-[0-9a-f]+", "ids of subnets"))]
InstanceTypes = Annotated[
    list[str],
    _IS_LIST,
    each(matching(r"[a-z][a-z0-9-]*(\.[a-z0-9-]+)?", "instance types or families, such as g6.xlarge or m7i")),
]
EmailAddresses = Annotated[list[str], _IS_LIST, each(matching(r"[^@\s]+@[^@\s]+\.[^@\s]+", "e-mail addresses"))]
HostName = Annotated[str, matching(r"[a-z0-9-]+(\.[a-z0-9-]+)+", "a DNS name")]
PinnedImage = Annotated[
    str, matching(r"\S+(:(?!latest)[\w.-]+|@sha256:[0-9a-f]{64})", "an image with a version or a digest")
]
ImageUri = Annotated[str, matching(r"\S+", "an image's URI")]
ImageTag = Annotated[str, matching(r"[\w][\w.-]{0,127}", "an image tag")]
Text = Annotated[str, matching(r"\S+", "a name without spaces")]
StackName = Annotated[
    str,
    matching(
        r"(?=.{1,64}$)[a-z][a-z0-9]*(-[a-z0-9]+)*",
        "lower-case letters and digits in words separated by single hyphens, at most 64 characters",
    ),
]
