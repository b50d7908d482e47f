"""What every test shares: a check of the topics after a fault, and service descriptions that botocore reads once.

A client's session keeps these descriptions, and `ftm` makes a session for each command, as it must. In tests that
start hundreds of commands in one process, reading them again was a third of the CPU time.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, fields
from functools import cache

import botocore.loaders
import botocore.session
import pytest

from testing.tables import print_table


@pytest.fixture(scope="session", autouse=True)
def shared_service_descriptions() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.session, "create_loader", cache(botocore.loaders.create_loader))
        yield


@dataclass(frozen=True)
class Survived:
    """What a fault led to."""

    fault: str
    times: int
    """How often it happened."""
    lost: int
    """Topics that should be there and are not."""
    doubled: int
    outcome: str


_SURVIVED = pytest.StashKey[list[Survived]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_SURVIVED] = []


@pytest.fixture
def survives(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Checks that a fault happened and neither loses nor doubles a topic, and notes it for the table of `make faults`.

    Takes the fault's name, how often it happened, the topics that there should be, those that were found, and how it
    ended, in words.
    """

    def check(fault: str, times: int, expected: Iterable[Hashable], found: Iterable[Hashable], outcome: str) -> None:
        counts = Counter(found)
        lost, doubled = len(set(expected) - counts.keys()), counts.total() - len(counts)
        request.config.stash[_SURVIVED].append(Survived(fault, times, lost, doubled, outcome))
        assert times > 0, f"the fault did not happen: {fault}"
        assert (lost, doubled) == (0, 0), outcome

    return check


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table of faults, in a process that has run their tests itself."""
    if rows := config.stash[_SURVIVED]:
        terminalreporter.section("faults")
        print_table([each.name for each in fields(Survived)], [vars(row) for row in rows])
