"""The `ftm` command lines in the documentation: their commands and options exist."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from .command_tree import command_tree

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "cli").rglob("*.py"))]
GLOBAL_OPTIONS = {"--stack", "--region", "--profile", "--project", "--verbose", "--version", "--install-completion"}


def command_lines(text: str) -> Iterator[str]:
    """Matches the arguments of `ftm` in quoted commands, and in the lines of fenced or indented blocks."""
    text = re.sub(r'(?<!")"\s*\n\s*f?"(?!")', "", text)  # the parts of one string in Python
    text = re.sub(r"\{(self\._)?stack\.command\}", "ftm", text).replace("{what}", " {what}")
    yield from re.findall(r"`(?:[A-Z_]+=\S* )*ftm ([a-z-][^`]*)`", text)
    blocks = "".join(re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    for line in re.findall(r"^(?:[A-Z_]+=\S* )*ftm ([a-z-].*)", blocks, re.MULTILINE):
        yield from re.split(r" \|\|? ftm ", line)
    yield from re.findall(r"^ {4,}ftm ([a-z-].*)", text, re.MULTILINE)


def words_of(line: str) -> list[str]:
    """The command line without comments, pipes and redirections."""
    words = shlex.split(line.rstrip(".:,"), comments=True)
    ends = [number for number, word in enumerate(words) if re.match(r"[|>&;]", word)]
    return words[: ends[0]] if ends else words


def faults(line: str) -> list[str]:
    """The words of a command line that are neither a command nor an option of it."""
    words, tree = words_of(line), command_tree()
    if words[:1] == ["--stack"]:
        words = words[2:]
    path = next((" ".join(words[:depth]) for depth in (2, 1) if " ".join(words[:depth]) in tree), "")
    options = {word.partition("=")[0] for word in words if re.match(r"--\w", word)} - GLOBAL_OPTIONS - {"--help"}
    if not path:
        return sorted(options) if words[0].startswith("--") or words[0] == "COMMAND" else words[:1]
    command = tree[path]
    if hasattr(command, "commands"):
        return words[1:2]  # the next word is not a command of the group
    return sorted(options - {option for parameter in command.params for option in parameter.opts})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_in_the_documentation_exists(page: Path) -> None:
    assert {line: wrong for line in command_lines(page.read_text()) if (wrong := faults(line))} == {}


def test_faults_are_found() -> None:
    lines = ["topcs 2023Q1", "vllm sclae 1", "topics 2023Q1 --frm F", "--stack prod topics Q --firm F | head -2 # two"]

    assert [faults(line) for line in lines] == [["topcs"], ["sclae"], ["--frm"], []]
