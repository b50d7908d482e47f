"""The interface between `ftm` and a tool: a JSON request on stdin, a JSON response on stdout, progress on stderr.

After a failure the response is `{"error": sentence}`, and the exit code is one of `ftm`'s.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

from contract import ContractError
from contract.exit_codes import ExitCode
from evaluation import EvaluationError
from llm import LlmAddressError, LlmError, LlmKeyError, LlmModelError, LlmUnavailableError

_LLM_CODES: dict[type[LlmError], int] = {
    LlmModelError: ExitCode.USAGE,
    LlmAddressError: ExitCode.NOT_FOUND,
    LlmUnavailableError: ExitCode.NOT_FOUND,
    LlmKeyError: ExitCode.DENIED,
}


def answer_request(work: Callable[[Any], object]) -> int:
    """Do `work` on the request from stdin, print its result, and return the process's exit code."""
    try:
        result = work(json.load(sys.stdin))
    except EvaluationError as error:
        return _fail(error, error.code)
    except ContractError as error:
        return _fail(error, ExitCode.USAGE)
    except LlmError as error:
        return _fail(error, _LLM_CODES.get(type(error), ExitCode.FAILED))
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except Exception as error:
        # Imported late: most tools never load botocore.
        from botocore.exceptions import BotoCoreError, ClientError

        if isinstance(error, BotoCoreError | ClientError):
            return _fail(error, ExitCode.FAILED)
        raise
    print(json.dumps(result, ensure_ascii=False), flush=True)
    return 0


def _fail(error: Exception, code: int) -> int:
    print(json.dumps({"error": " ".join(str(error).split())}, ensure_ascii=False), flush=True)
    return code
