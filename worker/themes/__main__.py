"""`python -m worker.themes`: clusters the topics of one or more quarters into themes, and has the LLM name them.

`ftm themes` starts it as a Batch job. The names so far are stored in the run's record at every checkpoint. Clustering
is deterministic: another attempt finds the same themes, and asks only for the names that are missing. It exits with 0
when the themes are written and named, 1 when it has failed, and 75 (EX_TEMPFAIL) when another attempt may succeed.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from worker.__main__ import exit_code, stop_before_the_work
from worker.themes.settings import read_settings

if TYPE_CHECKING:
    from llm.client import Clock


def main(environ: Mapping[str, str] = os.environ, clock: "Clock | None" = None) -> int:
    """Find and name the themes that `environ` asks for, and return the exit code."""

    def process() -> None:
        settings = read_settings(environ)
        # Heavy modules are imported only now, so that a wrong variable is reported at once.
        from worker.themes.job import find_and_name_themes

        asyncio.run(find_and_name_themes(settings, clock))

    return exit_code(process)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, stop_before_the_work)
    sys.exit(main())
