"""The stack, from a clean copy of the project's files; nothing is skipped where there is no engine."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compose.stack import Stack, docker, run
from tests.server import ROOT

BUILT = "RADOGAGA_IMAGES_ARE_BUILT"
"""Set where the engine that runs the images can't build them, because it has no network."""


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files under version control as they are now, and nothing else."""
    target = tmp_path_factory.mktemp("radogaga")
    listed = run("git", "ls-files", "-z", cwd=ROOT)
    assert listed.returncode == 0, listed.stderr
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)
    for path in (target, *target.parents):  # containers with users of their own read from it
        if path.stat().st_uid == os.getuid() and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o055)
    return target


@pytest.fixture(scope="session")
def stack(folder: Path) -> Iterator[Stack]:
    """The stack, up and healthy."""
    docker("version")
    stack = Stack(folder, "radogaga-test")
    if not os.environ.get(BUILT):
        stack.compose("build", REVISION=revision())
    try:
        stack.up()
        yield stack
    finally:
        stack.command("docker", "compose", "down", "--volumes", "--timeout", "5")


@pytest.fixture
def replicas(stack: Stack) -> Iterator[list[str]]:
    """The ids of three replicas; one is left when the test is over."""
    stack.up(3)
    yield stack.ids("service")
    stack.up(1)


def revision() -> str:
    """Returns the commit that is tested."""
    return run("git", "rev-parse", "HEAD", cwd=ROOT).stdout.strip()
