"""The bucket, as the worker sees it: objects by their keys, and a sentence for what is missing."""

from typing import Any

import boto3
from botocore.config import Config

from worker import WorkerError


class Bucket:
    def __init__(self, name: str) -> None:
        self.name = name
        self._s3: Any = boto3.client("s3", config=Config(retries={"mode": "standard", "max_attempts": 5}))

    def get(self, key: str, what: str) -> Any:
        """The body of an object, to be streamed.

        Raises:
            WorkerError: that `what` is missing.
        """
        body = self.find(key)
        if body is None:
            raise WorkerError(f"{what} is missing: there is no s3://{self.name}/{key}")
        return body

    def find(self, key: str) -> Any | None:
        """The body of an object, to be streamed; None where there is none."""
        try:
            return self._s3.get_object(Bucket=self.name, Key=key)["Body"]
        except self._s3.exceptions.NoSuchKey:
            return None

    def put(self, key: str, body: bytes, content_type: str) -> None:
        self._s3.put_object(Bucket=self.name, Key=key, Body=body, ContentType=content_type)

    def keys(self, prefix: str) -> set[str]:
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
        return {item["Key"] for page in pages for item in page.get("Contents", [])}
