"""`python -m worker`: processes one batch, which the environment of the state machine's Batch job names.

It exits with 0 when the batch is complete, 1 when it has failed, and 75 (EX_TEMPFAIL) when another attempt may succeed.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from contract import ContractError
from contract.bucket import S3UnavailableError
from llm import LlmError, LlmUnavailableError
from worker import TemporaryError, WorkerError
from worker.settings import read_settings

if TYPE_CHECKING:
    from llm.client import Clock


def main(environ: Mapping[str, str] = os.environ, clock: "Clock | None" = None) -> int:
    """Process the batch that `environ` names, and return the exit code; tests pass a clock that does not wait."""

    def process() -> None:
        settings = read_settings(environ)
        # Heavy modules are imported only now, so that a wrong variable is reported at once.
        from worker.batch import process_batch

        asyncio.run(process_batch(settings, clock))

    return exit_code(process)


def exit_code(work: Callable[[], None]) -> int:
    """Do `work`, and report its errors in one sentence each on stderr.

    The image starts Python with SIGTERM blocked: one that was sent while the interpreter started is handled here.
    """
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    try:
        work()
    except (TemporaryError, LlmUnavailableError, S3UnavailableError) as error:
        return _report(error, os.EX_TEMPFAIL)
    except (WorkerError, LlmError, ContractError) as error:
        return _report(error, 1)
    except KeyboardInterrupt:
        return _report("stopped", 130)
    except Exception as error:
        if code := _report_aws_error(error):
            return code
        if isinstance(error, OSError):
            return _report(f"this machine refuses: {error}", 1)
        raise
    return 0


def _report_aws_error(error: Exception) -> int:
    """Report an error of botocore, and return the exit code; 0 for other errors."""
    from botocore import exceptions as aws

    match error:
        case aws.NoCredentialsError() | aws.PartialCredentialsError():
            return _report(
                f"there are no AWS credentials ({error}): in AWS the job definition's role provides them, elsewhere "
                "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
                1,
            )
        case aws.ClientError():
            # A job's role gives the next attempt new credentials.
            expired = _answer_code(error) in ("ExpiredToken", "ExpiredTokenException")
            return _report(f"S3 refuses: {error}", os.EX_TEMPFAIL if expired else 1)
        case aws.BotoCoreError():
            return _report(f"S3 cannot be reached: {error}", os.EX_TEMPFAIL)
        case _:
            return 0


def _answer_code(error: Any) -> str:
    return error.response.get("Error", {}).get("Code", "")


def _report(error: object, code: int) -> int:
    print(f"worker: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
    return code


def stop_before_the_work(*_: object) -> None:
    """SIGTERM while modules are still imported: once the batch runs, it handles SIGTERM itself."""
    os._exit(_report("stopped by SIGTERM before the work began; another attempt does it", os.EX_TEMPFAIL))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, stop_before_the_work)
    sys.exit(main())
