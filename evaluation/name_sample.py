"""`python -m evaluation.name_sample OUT.parquet`: names the topics of some firms with an LLM, without changing the
bucket.

It reads firm ids from stdin, one per line. It finds the same topics as a batch and writes the rows of a part to
OUT.parquet, so that two sets of names for the same topics can be compared. The environment is that of the worker,
without the variables of a batch. Progress and firms that cannot be named are reported on stderr. Completed firms are
written even if the LLM fails midway; without any name there is no file. The exit codes are those of the worker.
"""

import asyncio
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from contract import env
from contract.batch import Counts
from contract.fallbacks import fallback_lines
from contract.quarter import check_quarter
from llm.settings import LlmSettings, read_llm_settings
from worker import WorkerError
from worker.__main__ import exit_code

if TYPE_CHECKING:
    from worker.firm import Firm, Outcome
    from worker.prefetch import Unreadable

_OUTAGE_SECONDS = 10.0


def main(arguments: list[str], environ: Mapping[str, str]) -> int:
    return exit_code(lambda: _run(arguments, environ))


def _run(arguments: list[str], environ: Mapping[str, str]) -> None:
    if len(arguments) != 1:
        raise WorkerError("name the Parquet file to write: python -m evaluation.name_sample OUT.parquet")
    bucket = env.required(environ, env.S3_BUCKET)
    quarter = check_quarter(env.required(environ, env.QUARTER))
    llm = replace(read_llm_settings(environ), url_option="--llm-url", model_option="--model")
    lines = (line.strip() for line in sys.stdin.read().splitlines())
    firm_ids = list(dict.fromkeys(firm_id for firm_id in lines if firm_id))
    if not firm_ids:
        raise WorkerError("give the firms to name on stdin, one a line")
    embedding_model = environ.get(env.TOPIC_EMBEDDING_MODEL, "")
    path = Path(arguments[0])
    half = path.with_name(f"{path.name}.half")
    try:
        half.touch()  # an unwritable file is reported before the first paid request
    except OSError as error:
        raise WorkerError(f"{path} cannot be written: {error.strerror}") from error
    outcomes: dict[str, Outcome] = {}
    try:
        asyncio.run(_name(bucket, quarter, firm_ids, llm, embedding_model, outcomes))
    finally:
        done = [outcomes[firm_id] for firm_id in firm_ids if firm_id in outcomes and not outcomes[firm_id].failed]
        counts = sum((outcome.counts for outcome in done), Counts())
        if counts.named:
            _write(half, done)
            half.replace(path)
            print(f"{counts.named} of {counts.topics} topics named", file=sys.stderr)
            if len(done) < len(firm_ids):
                print(f"{len(firm_ids) - len(done)} of {len(firm_ids)} firms are not in {path}", file=sys.stderr)
        half.unlink(missing_ok=True)
    if not counts.named:
        raise WorkerError("not one topic was named")


async def _name(
    bucket_name: str,
    quarter: str,
    firm_ids: list[str],
    settings: LlmSettings,
    embedding_model: str,
    outcomes: dict[str, "Outcome"],
) -> None:
    """Store the outcome of each firm in `outcomes`; as many firms are in progress at once as keep the LLM busy."""
    from llm.client import Llm, Timeouts
    from worker.batch import do_firm
    from worker.naming.namer import Namer
    from worker.prefetch import read_firms
    from worker.storage import open_bucket
    from worker.topics.process import TopicProcess

    places = asyncio.Semaphore(settings.max_concurrent + 2)

    async def do(firm: "Firm | Unreadable") -> None:
        outcomes[firm.firm_id] = outcome = await do_firm(firm, quarter, topics, namer)
        places.release()
        print(_line(outcome), file=sys.stderr)

    # An operator is waiting: an absent server ends the command within half a minute.
    async with Llm(settings, timeouts=Timeouts(outage=_OUTAGE_SECONDS)) as llm:
        await llm.check_model()
        namer = Namer(llm)
        with TopicProcess(embedding_model) as topics:
            try:
                async with asyncio.TaskGroup() as group:
                    async for firm in read_firms(open_bucket(bucket_name), quarter, firm_ids):
                        await places.acquire()
                        group.create_task(do(firm))
            except ExceptionGroup as errors:
                raise errors.exceptions[0] from None
            finally:
                for line in fallback_lines(namer.fallbacks):
                    print(line, file=sys.stderr)


def _line(outcome: "Outcome") -> str:
    if outcome.failed:
        return f"firm {outcome.firm_id} cannot be named: {outcome.failed}"
    return f"{outcome.firm_id}: {outcome.skipped or f'{outcome.counts.named} of {outcome.counts.topics} topics named'}"


def _write(path: Path, outcomes: list["Outcome"]) -> None:
    from worker import parts

    path.write_bytes(parts.to_parquet([row for outcome in outcomes for row in outcome.rows]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
