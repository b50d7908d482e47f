"""`python -m worker.export`: writes a file of a run's results for `ftm topics --out`, on the operator's machine.

The request comes on stdin as JSON, with the fields of `Request`. Prints `{"rows": N, "linked": N}`, or
`{"error": "..."}` with exit code 1 or 2.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from contract import ContractError
from contract.bucket import S3UnavailableError
from contract.layout import RunRef
from contract.themes import ThemesRef
from worker import WorkerError
from worker.export.files import Request, export


def main() -> int:
    """Answer the request on stdin."""
    fields: dict[str, Any] = json.load(sys.stdin)
    fields |= {name: fields[name] and RunRef(*fields[name]) for name in ("run", "previous")}
    fields |= {"themes": fields["themes"] and ThemesRef(*fields["themes"]), "path": Path(fields["path"])}
    try:
        print(json.dumps(asyncio.run(export(Request(**fields)))))
    except (WorkerError, ContractError) as error:
        return _fail(error, 2)
    except (S3UnavailableError, BotoCoreError, ClientError, OSError) as error:
        return _fail(error, 1)
    return 0


def _fail(error: Exception, code: int) -> int:
    print(json.dumps({"error": " ".join(str(error).split())}, ensure_ascii=False))
    return code


if __name__ == "__main__":
    sys.exit(main())
