"""The tests in an environment with the image's own pins run by `make test-embeddings`, which makes it."""

import os

from testing.worker_fixtures import aws, bucket, llm, worker

__all__ = ["aws", "bucket", "llm", "worker"]

collect_ignore_glob = [] if os.environ.get("TEST_EMBEDDINGS") else ["test_*"]
