"""The command line itself: the order of options, errors as JSON, 80 columns, colour, help and version."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app

from .command_tree import command_tree
from .conftest import FAILS, SUCCEEDS, Aws, Ftm, make_vllm_healthy, put_manifest, put_run
from .terminal import CTRL_C, on_terminal


def help_of(*command: str) -> str:
    return CliRunner().invoke(app, [*command, "--help"], prog_name="ftm", env={"COLUMNS": "80"}).stdout


@pytest.mark.parametrize("command", [name for name, one in command_tree().items() if not hasattr(one, "commands")])
def test_every_help_has_an_example_and_fits_80_columns(command: str) -> None:
    text = help_of(*command.split())

    assert re.search(rf"Examples?:\n\s+.*ftm .*{command}", text), text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("group", ["", *(name for name, one in command_tree().items() if hasattr(one, "commands"))])
def test_no_line_of_a_list_of_commands_is_truncated(group: str) -> None:
    text = help_of(*group.split())

    assert "..." not in text.split("Commands:")[1]
    assert max(map(len, text.splitlines())) <= 80


def test_the_list_of_commands_has_the_first_line_of_each_help() -> None:
    listed = help_of().split("Commands:\n")[1].splitlines()

    helps = {name: one.help.splitlines()[0] for name, one in command_tree().items() if " " not in name}
    assert dict(line.split(maxsplit=1) for line in listed) == helps


def test_the_version() -> None:
    assert re.fullmatch(r"ftm \d+\.\d+\.\d+\n", CliRunner().invoke(app, ["--version"], prog_name="ftm").stdout)


def test_the_stack_option_may_follow_the_subcommand(ftm: Ftm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTM_STACK", "prod")

    assert "bucket\tftm-local-test" in ftm("outputs", "--stack", "local").stdout
    assert ftm("outputs", "bucket", "--stack=local", "--json").stdout == '"ftm-local-test"\n'


def test_the_embedded_aws_ignores_the_operators_profile_and_region(ftm: Ftm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")

    ftm("--region", "eu-west-1", "vllm", "status")


@pytest.mark.parametrize(
    ("arguments", "message", "exit_code"),
    [
        (["topics", "2023Q9"], "'2023Q9' is not a quarter", 2),
        (["topics", SUCCEEDS], "2023Q1 has no run", 3),
        (["vllm", "scale", "9"], "cannot be scaled to 9", 2),
        (["vllm", "scale", "many"], "it is not a whole number", 2),
        (["run-quarter", SUCCEEDS, "--batch-size", "0"], "it must be at least 1", 2),
    ],
)
def test_an_error_is_a_json_document_too(ftm: Ftm, arguments: list[str], message: str, exit_code: int) -> None:
    refused = ftm(*arguments, "--json", exit_code=exit_code)

    error = json.loads(refused.stdout)["error"]
    assert message in error["message"]
    assert error["exit_code"] == exit_code
    assert "Input should be" not in refused.output


def test_a_quarter_in_lower_case(aws: Aws, ftm: Ftm) -> None:
    put_run(aws, SUCCEEDS)

    assert "F2_0" in ftm("topics", SUCCEEDS.lower()).stdout


def test_answering_no_changes_nothing_and_exits_130(aws: Aws) -> None:
    make_vllm_healthy(aws)
    put_manifest(aws, SUCCEEDS)

    screen = on_terminal("run-quarter", SUCCEEDS, keys="n\n")

    assert screen.exit_code == 130
    assert "Run 2023Q1? [y/N]: n" in screen.lines
    assert "Cancelled. Nothing was changed." in screen.lines
    assert not aws.client("stepfunctions").list_executions(stateMachineArn=aws.outputs["state_machine_arn"])[
        "executions"
    ]


def test_ctrl_c_at_a_question_exits_130(aws: Aws) -> None:
    put_manifest(aws, SUCCEEDS)

    screen = on_terminal("prefetch", "sample", SUCCEEDS, keys=CTRL_C)

    assert screen.exit_code == 130
    assert "Interrupted." in screen.text
    assert "Traceback" not in screen.text


def test_ids_are_never_cut_and_a_narrow_terminal_drops_columns(aws: Aws, ftm: Ftm) -> None:
    make_vllm_healthy(aws)
    put_manifest(aws, FAILS)
    put_run(aws, SUCCEEDS)

    wide = on_terminal("status", SUCCEEDS, columns=120)
    narrow = on_terminal("status", SUCCEEDS, columns=48)
    narrower_than_the_table = on_terminal("status", SUCCEEDS, columns=16)

    for screen in (wide, narrow, narrower_than_the_table):
        assert any(line.startswith(" 2023Q1_batch_0000 ") for line in screen.lines), screen.text
        assert any(" complete " in f"{line} " for line in screen.lines)
    assert any("attempts" in line for line in wide.lines)
    assert not any("attempts" in line for line in narrow.lines)
    assert [
        line for line in narrow.lines if line.startswith(" ") and len(line) > 48
    ] == []  # only tables: the terminal wraps prose


def test_no_color_applies_to_all_output(aws: Aws) -> None:
    coloured = on_terminal("topics", SUCCEEDS)
    plain = on_terminal("topics", SUCCEEDS, NO_COLOR="1")

    assert "\x1b[" in coloured.text
    assert "\x1b[" not in plain.text
    assert coloured.exit_code == plain.exit_code == 3


@pytest.mark.parametrize("arguments", [("topics", "--help"), ("topics", SUCCEEDS, "--json")])
def test_a_full_disk_behind_stdout_is_reported_in_one_sentence(aws: Aws, arguments: tuple[str, ...]) -> None:
    put_run(aws, SUCCEEDS)
    command = Path(sys.executable).with_name("ftm")
    with open("/dev/full", "w") as full:
        ended = subprocess.run([command, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False)

    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].endswith(
        "ftm: the operating system reported an error: [Errno 28] No space left on device"
    )
    assert "Traceback" not in ended.stderr
