"""The project's folder: the checkout whose Pulumi program and stacks `ftm` works on."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from contract import ContractError
from contract.env import FTM_PROJECT
from contract.resource_names import PROJECT

_NAME = re.compile(rf"^name:\s*['\"]?{PROJECT}['\"]?\s*$", re.MULTILINE)


def find_project(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder of ftm's Pulumi.yaml: FTM_PROJECT, else the checkout that this package belongs to, else the working
    directory or the nearest folder above it.

    Raises:
        ContractError: if there is none, as for a wheel that is used outside of a checkout.
    """
    if given := environ.get(FTM_PROJECT):
        folder = Path(given).absolute()
        if _is_project(folder):
            return folder
        raise ContractError(f"{folder} is not a checkout of {PROJECT}: --project (or {FTM_PROJECT}) must name one")
    checkout = Path(__file__).resolve().parent.parent
    for folder in (checkout, Path.cwd(), *Path.cwd().parents):
        if _is_project(folder):
            return folder
    raise ContractError(
        f"this command needs a checkout of {PROJECT}, and {Path.cwd()} is not in one: name it with --project DIR (or "
        f"{FTM_PROJECT})"
    )


def _is_project(folder: Path) -> bool:
    try:
        return bool(_NAME.search((folder / "Pulumi.yaml").read_text()))
    except (OSError, UnicodeDecodeError):
        return False
