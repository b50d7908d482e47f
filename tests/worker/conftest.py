"""The bucket, the LLM server and the worker of these tests."""

from testing.worker_fixtures import aws, bucket, llm, proxy, worker

__all__ = ["aws", "bucket", "llm", "proxy", "worker"]
