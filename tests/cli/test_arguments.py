"""Any arguments: `ftm` ends with one of its exit codes and a sentence, and never with a traceback."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from cli.errors import ExitCode
from cli.main import app

from .command_tree import command_tree

SAFE = sorted({name.split()[0] for name in command_tree()} - {"local", "console"})  # these start processes
ARGUMENT = st.sampled_from(
    ["2023Q1", "2023Q1..2023Q4", "--json", "--yes", "--run", "--", "-1", "\x1b[31m", "'; --"]
) | (st.text(st.characters(exclude_categories=["Cs"]), max_size=12))


@settings(max_examples=50, deadline=None, database=None)
@given(st.sampled_from(SAFE), st.lists(ARGUMENT, max_size=4))
def test_any_arguments_end_with_an_exit_code_and_a_sentence(command: str, arguments: list[str]) -> None:
    """There is no stack, so that valid arguments are refused as well."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FTM_LOCAL_DIR", "/nonexistent")
        result = CliRunner().invoke(app, ["--stack", "local", command, *arguments], prog_name="ftm")

    assert result.exit_code in set(ExitCode)
    assert isinstance(result.exception, SystemExit | None)
    assert "Traceback" not in result.stderr
    assert "internal error" not in result.stderr
