"""`python -m worker.name OUT.parquet`: names some firms' topics with an LLM, and leaves the bucket alone.

Firm ids come on stdin, one a line. The topics are found as a batch finds them, so they are the same ones, and the rows
in OUT.parquet are those of a part: two namings of the same topics can be compared. The environment is that of a batch,
less what belongs to one. Progress goes to stderr. The exit code is 0, 1 or 75, as a batch's.
"""

import asyncio
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from contract import env
from contract.quarter import check_quarter
from worker import WorkerError
from worker.__main__ import exit_code
from worker.settings import LlmSettings, read_llm_settings, required


def main(arguments: list[str], environ: Mapping[str, str]) -> int:
    return exit_code(lambda: _run(arguments, environ))


def _run(arguments: list[str], environ: Mapping[str, str]) -> None:
    if len(arguments) != 1:
        raise WorkerError("name the Parquet file to write: python -m worker.name OUT.parquet")
    bucket = required(environ, env.S3_BUCKET)
    quarter = check_quarter(required(environ, env.QUARTER))
    llm = read_llm_settings(environ)
    firm_ids = list(dict.fromkeys(sys.stdin.read().split()))
    if not firm_ids:
        raise WorkerError("give the firms to name on stdin, one a line")
    embedding_model = environ.get(env.TOPIC_EMBEDDING_MODEL, "")
    _write(Path(arguments[0]), asyncio.run(_name(bucket, quarter, firm_ids, llm, embedding_model)))


async def _name(
    bucket_name: str, quarter: str, firm_ids: list[str], settings: LlmSettings, embedding_model: str
) -> list[dict[str, Any]]:
    from worker import parts
    from worker.firm import Firm
    from worker.llm import Llm
    from worker.namer import Namer
    from worker.prefetch import Unreadable, read_firms
    from worker.s3 import Bucket
    from worker.topic_process import TopicProcess

    begun = asyncio.Semaphore(settings.max_concurrent + 2)

    async def rows(firm: Firm | Unreadable) -> list[dict[str, Any]]:
        if isinstance(firm, Unreadable):
            raise WorkerError(f"firm {firm.firm_id} cannot be named: {firm.reason}")
        async with begun:
            found = await topics.find_topics(firm)
            named, counts = await namer.name(firm, found)
        print(f"{firm.firm_id}: {found.skipped or f'{counts.named} of {counts.topics} topics named'}", file=sys.stderr)
        return parts.rows(firm, quarter, named, datetime.now(UTC))

    async with Llm(settings) as llm:
        await llm.check_model()
        namer = Namer(llm)
        with TopicProcess(embedding_model) as topics:
            firms = read_firms(Bucket(bucket_name), quarter, firm_ids)
            named = await asyncio.gather(*[rows(firm) async for firm in firms])
    return [row for firm in named for row in firm]


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    from worker import parts

    half = path.with_name(f"{path.name}.half")
    half.write_bytes(parts.to_parquet(rows))
    half.replace(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
