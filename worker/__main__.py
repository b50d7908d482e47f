"""`python -m worker`: one batch, named by the environment that the state machine's Batch job gives.

It ends with 0 when the batch is complete, 1 when it has failed, and 75 (EX_TEMPFAIL) when another attempt may succeed.
"""

import asyncio
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from contract import ContractError
from worker import TemporaryError, WorkerError
from worker.settings import Settings, read_settings

if TYPE_CHECKING:
    from worker.llm import Clock


def main(environ: Mapping[str, str] = os.environ, clock: "Clock | None" = None) -> int:
    """Do the batch that `environ` names, and return the exit code; tests give a clock that does not wait."""
    try:
        settings = read_settings(environ)
        return _process(settings, clock)
    except TemporaryError as error:
        return _say(error, os.EX_TEMPFAIL)
    except (WorkerError, ContractError) as error:
        return _say(error, 1)


def _process(settings: Settings, clock: "Clock | None") -> int:
    from botocore.exceptions import BotoCoreError, ClientError

    from worker.batch import process_batch

    try:
        asyncio.run(process_batch(settings, clock))
    except ClientError as error:
        raise WorkerError(f"S3 refuses bucket {settings.bucket}: {error}") from error
    except BotoCoreError as error:
        raise TemporaryError(f"S3 cannot be reached: {error}") from error
    return 0


def _say(error: Exception, code: int) -> int:
    print(f"worker: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
