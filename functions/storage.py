"""The functions' access to S3: one client for each process, configured as `contract.bucket` requires."""

# boto3-stubs overloads boto3.client with every service, and only the installed ones are known.
# pyright: reportUnknownMemberType=false

import boto3
from botocore.config import Config

from contract.bucket import CLIENT_OPTIONS, Bucket

_RETRY_SECONDS = 60.0
"""Less than any function's timeout: the state machine repeats what fails for longer."""

s3 = boto3.client("s3", config=Config(**CLIENT_OPTIONS))


def open_bucket(name: str) -> Bucket:
    return Bucket(s3, name, retry_seconds=_RETRY_SECONDS)
