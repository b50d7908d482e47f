"""`python -m worker`: one batch, named by the environment that the state machine's Batch job gives.

It ends with 0 when the batch is complete, 1 when it has failed, and 75 (EX_TEMPFAIL) when another attempt may succeed.
"""

import asyncio
import os
import sys

from contract import ContractError
from worker import TemporaryError, WorkerError
from worker.settings import Settings, read_settings


def main() -> int:
    try:
        settings = read_settings(os.environ)
        return _process(settings)
    except TemporaryError as error:
        return _say(error, os.EX_TEMPFAIL)
    except (WorkerError, ContractError) as error:
        return _say(error, 1)


def _process(settings: Settings) -> int:
    from botocore.exceptions import BotoCoreError, ClientError

    from worker.batch import process_batch
    from worker.llm import Clock

    try:
        asyncio.run(process_batch(settings, Clock()))
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
