"""Prints what the project needs with some of its extras: ``python docker/requirements.py pyproject.toml cpu,traces``.

The images install this before they copy the sources, so that a change of the sources leaves that layer as it was.
"""

import sys
import tomllib
from pathlib import Path


def requirements(pyproject: str, extras: str) -> list[str]:
    """Returns the requirements.

    Arguments:
        pyproject: The text of pyproject.toml.
        extras: Names of extras, with commas between them; blanks and empty names don't matter.

    Raises:
        ValueError: The project has no such extra; the known ones are named.
    """
    project = tomllib.loads(pyproject)["project"]
    known: dict[str, list[str]] = project["optional-dependencies"]
    needed: list[str] = list(project["dependencies"])
    for extra in filter(None, (name.strip() for name in extras.split(","))):
        if extra not in known:
            raise ValueError(f"{extra!r} is no extra of the project; the extras are {', '.join(known)}")
        needed += known[extra]
    return needed


if __name__ == "__main__":
    try:
        print(*requirements(Path(sys.argv[1]).read_text(), sys.argv[2]), sep="\n")
    except ValueError as error:
        sys.exit(f"error: {error}")
