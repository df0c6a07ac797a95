"""The command, run in this process on the shipped models."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from service.__main__ import main
from tests.server import MODELS


@dataclass
class Done:
    """What a run of the command came to."""

    status: int
    output: str
    errors: str

    @property
    def summary(self) -> dict[str, Any]:
        """What stands on standard output."""
        assert self.status == 0, self.errors
        found: dict[str, Any] = json.loads(self.output)
        return found

    @property
    def error(self) -> str:
        """The last line on standard error."""
        assert (self.status, self.output) == (1, "")
        return self.errors.splitlines()[-1].removeprefix("error: ")


Score = Callable[..., Done]


@pytest.fixture
def score(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Score:
    """Runs `python -m service score` with the shipped models; scores go to `tmp_path / "out"` unless said otherwise."""
    monkeypatch.setenv("RADOGAGA_MODELS", str(MODELS))
    monkeypatch.setenv("RADOGAGA_PROVIDER", "cpu")

    def run(*arguments: object, dataset: str = "thyroid", out: Path = tmp_path / "out") -> Done:
        words = [*map(str, arguments), "--dataset", dataset, "--out", str(out)]
        monkeypatch.setattr(sys, "argv", ["service", "score", *words])
        try:
            status = main()
        except SystemExit as error:
            status = int(error.code or 0)
        return Done(status, *capsys.readouterr())

    return run
