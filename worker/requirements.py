"""`python worker/requirements.py pyproject.toml EXTRA...`: the requirements of some extras, one a line, for the image.

The image does not install the project: its packages are copied, and only their dependencies are installed. Standard
library only.
"""

import sys
import tomllib
from pathlib import Path


def read(pyproject: Path, extras: list[str]) -> list[str]:
    """The requirements of the extras.

    Raises:
        SystemExit: with a sentence that names an extra that does not exist.
    """
    known: dict[str, list[str]] = tomllib.loads(pyproject.read_text())["project"]["optional-dependencies"]
    for extra in extras:
        if extra not in known:
            sys.exit(f"{pyproject} has no extra {extra!r}: EXTRAS can be {', '.join(sorted(known))}")
    return [requirement for extra in extras for requirement in known[extra]]


if __name__ == "__main__":
    print(*read(Path(sys.argv[1]), sys.argv[2:]), sep="\n")
