"""How the tests with real parts say what they miss."""

from pathlib import Path

import pytest

from tests.monitoring.parts import program, run


@pytest.mark.parametrize("name", ["prometheus", "promtool", "amtool", "alertmanager"])
def test_a_program_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(pytest.fail.Exception, match=f"^{name} is not on PATH; on Debian: apt-get install prometheus"):
        program(name)


def test_what_a_failing_program_prints_is_shown() -> None:
    with pytest.raises(AssertionError, match="no-such-file"):
        run("ls", "no-such-file")
