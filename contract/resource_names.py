"""The names of a stack's resources and jobs in AWS."""

PROJECT = "ftm"

LOCAL_STACK = "local"
"""The stack of the embedded AWS on one machine."""

EMBEDDED_ACCOUNT = "123456789012"
"""The account id of the embedded AWS: moto's default. No real account has it."""


def prefix(stack: str) -> str:
    """The start of every resource name: `ftm` for the stack prod, `ftm-<stack>` for any other."""
    return PROJECT if stack == "prod" else f"{PROJECT}-{stack}"


def batch_job_name(prefix: str, run: str, batch_id: str) -> str:
    """The name of the Batch job of one batch, unique to its run: `ftm-20230405_101500-2023Q1_batch_0000`."""
    return f"{prefix}-{run}-{batch_id}"


def outputs_parameter(stack: str) -> str:
    """The SSM parameter in which the program publishes the stack's outputs, as a JSON object: `/ftm/outputs`."""
    return f"/{prefix(stack)}/outputs"
