"""The names of the environment variables that one room sets and another reads."""

# The worker: one batch (state machine -> Batch job).
S3_BUCKET = "S3_BUCKET"
QUARTER = "QUARTER"
BATCH_ID = "BATCH_ID"
MANIFEST_S3_KEY = "MANIFEST_S3_KEY"
CHECKPOINT_INTERVAL = "CHECKPOINT_INTERVAL"
TOPIC_EMBEDDING_MODEL = "TOPIC_EMBEDDING_MODEL"
"""A sentence-transformers model; absent, topics are found by LSA."""

# The worker: its LLM (job definition). Absent when the stack has no vLLM.
LLM_BASE_URL = "LLM_BASE_URL"
LLM_MODEL_NAME = "LLM_MODEL_NAME"
LLM_MAX_CONCURRENT = "LLM_MAX_CONCURRENT"
LLM_API_KEY = "LLM_API_KEY"

# The functions.
MIN_NAMED_SHARE = "MIN_NAMED_SHARE"
JOB_QUEUE_ARN = "JOB_QUEUE_ARN"
JOB_NAME_PREFIX = "JOB_NAME_PREFIX"
SNS_TOPIC_ARN = "SNS_TOPIC_ARN"
