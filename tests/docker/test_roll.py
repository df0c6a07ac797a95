"""docker/roll.sh before something that acts as docker does: what becomes of its replicas when it can't go on."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.server import ROOT, SECONDS

DOCKER = """#!/bin/sh
case "$1 $2" in
"compose ps") cat replicas ;;
"compose up") printf 'new1\\nnew2\\n' >> replicas ;;
"inspect --format") echo "$STATE" ;;
"logs --tail") echo "the log of $4" >&2 ;;
"rm --force") shift 2; for name in "$@"; do sed -i "/^$name$/d" replicas; done ;;
stop*) shift; echo "$@" > stopped ;;
rm*) shift; for name in "$@"; do sed -i "/^$name$/d" replicas; done ;;
esac
"""

Roll = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def roll(tmp_path: Path) -> Roll:
    """Starts the script with two replicas; new ones have the given state."""
    (tmp_path / "docker").write_text(DOCKER)
    (tmp_path / "docker").chmod(0o755)
    (tmp_path / "replicas").write_text("old1\nold2\n")

    def start(state: str, seconds: float = SECONDS) -> subprocess.Popen[str]:
        environment = os.environ | {
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "STATE": state,
            "ROLL_SECONDS": f"{seconds:g}",
        }
        return subprocess.Popen(
            [ROOT / "docker" / "roll.sh"], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
        )

    return start


def replicas(folder: Path) -> list[str]:
    return (folder / "replicas").read_text().split()


def test_healthy_ones_take_the_place_of_the_old_ones(roll: Roll, tmp_path: Path) -> None:
    process = roll("0 healthy")
    assert (process.communicate(timeout=SECONDS)[1], process.returncode) == ("", 0)
    assert replicas(tmp_path) == ["new1", "new2"]
    assert (tmp_path / "stopped").read_text() == "old1 old2\n"


@pytest.mark.parametrize(("state", "seconds"), [("1 starting", SECONDS), ("0 starting", 1)])
def test_those_that_restart_or_take_too_long_are_removed(
    state: str, seconds: float, roll: Roll, tmp_path: Path
) -> None:
    _, errors = (process := roll(state, seconds)).communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert errors.startswith("error: the new replicas did not become healthy, the old ones stay")
    assert errors.endswith("the log of new1\nthe log of new2\n")
    assert replicas(tmp_path) == ["old1", "old2"]
    assert not (tmp_path / "stopped").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interruption_leaves_the_old_ones(number: signal.Signals, roll: Roll, tmp_path: Path) -> None:
    process = roll("0 starting")
    deadline = time.monotonic() + SECONDS
    while "new2" not in replicas(tmp_path):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    assert replicas(tmp_path) == ["old1", "old2"]


def test_without_replicas_there_is_nothing_to_replace(roll: Roll, tmp_path: Path) -> None:
    (tmp_path / "replicas").write_text("")
    _, errors = (process := roll("0 healthy")).communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert errors.startswith("error: there are no replicas to replace")
