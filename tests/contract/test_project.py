"""Finding the checkout that `ftm` works on."""

from pathlib import Path

import pytest

from contract import ContractError, project

CHECKOUT = Path(__file__).parents[2]


def test_the_checkout_that_ftm_is_installed_from_is_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert project.find_project({}) == CHECKOUT


def test_ftm_project_takes_precedence(tmp_path: Path):
    (tmp_path / "Pulumi.yaml").write_text("name: ftm\nruntime: python\n")
    assert project.find_project({"FTM_PROJECT": str(tmp_path)}) == tmp_path


@pytest.mark.parametrize("content", [None, "name: another\n"])
def test_a_folder_without_the_program_is_rejected(tmp_path: Path, content: str | None):
    if content:
        (tmp_path / "Pulumi.yaml").write_text(content)
    with pytest.raises(ContractError, match=rf"{tmp_path} is not a checkout of ftm: --project \(or FTM_PROJECT\)"):
        project.find_project({"FTM_PROJECT": str(tmp_path)})
