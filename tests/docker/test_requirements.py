"""docker/requirements.py: what is installed into the images before the sources are there."""

import subprocess
import sys
import tomllib

import pytest

from tests.server import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def requirements(extras: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "docker/requirements.py", "pyproject.toml", extras]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("given", "extras"), [("cpu,", ["cpu"]), ("", []), (" gpu , training", ["gpu", "training"])])
def test_the_projects_requirements_with_those_of_its_extras(given: str, extras: list[str]) -> None:
    done = requirements(given)
    expected = PROJECT["dependencies"] + [line for name in extras for line in PROJECT["optional-dependencies"][name]]
    assert (done.returncode, done.stdout.splitlines()) == (0, expected)


def test_an_unknown_extra_is_named() -> None:
    done = requirements("cpu,trace")
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        done.stderr
        == f"error: 'trace' is no extra of the project; the extras are {', '.join(PROJECT['optional-dependencies'])}\n"
    )
