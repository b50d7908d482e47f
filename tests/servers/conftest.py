"""The bucket of these tests."""

from testing.worker_fixtures import aws, bucket

__all__ = ["aws", "bucket"]
