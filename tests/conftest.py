"""What every test shares: botocore reads its description of each AWS service once in a test process.

A client's session keeps these descriptions, and `ftm` makes a session for each command, as it must. In tests that
start hundreds of commands in one process, reading them again was a third of the CPU time.
"""

from collections.abc import Iterator
from functools import cache

import botocore.loaders
import botocore.session
import pytest


@pytest.fixture(scope="session", autouse=True)
def shared_service_descriptions() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.session, "create_loader", cache(botocore.loaders.create_loader))
        yield
