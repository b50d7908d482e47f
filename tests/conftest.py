"""What every test shares: a check of the topics after a fault, and settings that save CPU time."""

import gc
import os
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

import botocore.hooks
import botocore.loaders
import botocore.session
import pytest
from botocore.hooks import EventAliaser, HierarchicalEmitter

from testing.tables import print_table


@pytest.fixture(scope="session", autouse=True)
def fast_clients() -> Iterator[None]:
    """botocore reads its service descriptions and derives the names of its events once, not for each session.

    `ftm` makes a session for each command, as it must, and tests start hundreds of commands in one process.
    """
    aliaser: Any = EventAliaser(HierarchicalEmitter())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.session, "create_loader", cache(botocore.loaders.create_loader))
        patch.setattr(botocore.hooks, "accepts_kwargs", cache(botocore.hooks.accepts_kwargs))
        patch.setattr(EventAliaser, "_alias_event_name", staticmethod(cache(aliaser._alias_event_name)))
        yield


@pytest.fixture(scope="session", autouse=True)
def processes_without_pandas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Processes that tests start find no pandas, as in the worker's image: pyarrow and scikit-learn would import it,
    which takes as long as most of what these processes do."""
    folder = tmp_path_factory.mktemp("without-pandas")
    (folder / "pandas.py").write_text('raise ImportError("not installed in the worker\'s image")')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
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
    gc.disable()


def pytest_collection_finish() -> None:
    """Spare the garbage collector what the test modules have imported: it stays, and is searched again and again."""
    gc.freeze()
    gc.enable()


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
