"""`python -m worker`: one batch, named by the environment that the state machine's Batch job gives.

It ends with 0 when the batch is complete, 1 when it has failed, and 75 (EX_TEMPFAIL) when another attempt may succeed.
"""

import asyncio
import os
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from contract import ContractError
from llm import LlmError, LlmUnavailableError
from worker import TemporaryError, WorkerError
from worker.settings import read_settings

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

    from llm.client import Clock


def main(environ: Mapping[str, str] = os.environ, clock: "Clock | None" = None) -> int:
    """Do the batch that `environ` names, and return the exit code; tests give a clock that does not wait."""

    def process() -> None:
        settings = read_settings(environ)
        # What is heavy is loaded only now, so that a wrong variable is told at once.
        from worker.batch import process_batch

        asyncio.run(process_batch(settings, clock))

    return exit_code(process)


def exit_code(work: Callable[[], None]) -> int:
    """Do `work`; its errors are one sentence each on stderr."""
    try:
        work()
    except (TemporaryError, LlmUnavailableError) as error:
        return _say(error, os.EX_TEMPFAIL)
    except (WorkerError, LlmError, ContractError) as error:
        return _say(error, 1)
    except KeyboardInterrupt:
        return _say("stopped", 130)
    except Exception as error:
        # botocore is loaded by now if it is its error, and not for the sake of naming it.
        from botocore.exceptions import BotoCoreError, ClientError

        if isinstance(error, ClientError):
            return _say(f"S3 refuses: {error}", os.EX_TEMPFAIL if _is_temporary(error) else 1)
        if isinstance(error, BotoCoreError):
            return _say(f"S3 cannot be reached: {error}", os.EX_TEMPFAIL)
        if isinstance(error, OSError):
            return _say(f"this machine refuses: {error}", 1)
        raise
    return 0


def _is_temporary(error: "ClientError") -> bool:
    """Whether S3 may well do later, or for a job with new credentials, what it does not do now."""
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return status >= 500 or error.response.get("Error", {}).get("Code") in ("RequestTimeout", "ExpiredToken")


def _say(error: object, code: int) -> int:
    print(f"worker: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
