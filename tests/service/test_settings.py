"""Settings come from the environment, are checked, and stand in the README."""

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from service.settings import Settings

README = Path(__file__).parents[2] / "README.md"

TRAINING = ("DATA", "CHECKPOINTS")
"""What only the training reads."""


def test_defaults() -> None:
    settings = Settings()
    assert (settings.host, settings.port, settings.models, settings.provider) == (
        "127.0.0.1",
        8000,
        Path("models"),
        "auto",
    )


def test_the_environment_sets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RADOGAGA_PORT", "9000")
    monkeypatch.setenv("RADOGAGA_PROVIDER", "cpu")
    monkeypatch.setenv("RADOGAGA_MAX_ROWS", "5")
    settings = Settings()
    assert (settings.port, settings.provider, settings.max_rows) == (9000, "cpu", 5)


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = Settings()
    for name in Settings.model_fields:
        monkeypatch.setenv(f"RADOGAGA_{name.upper()}", "")
    assert Settings() == defaults


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "70000"),
        ("PORT", "http"),
        ("PROVIDER", "tpu"),
        ("THREADS", "0"),
        ("THREADS", "1000000000000"),
        ("BODY_SECONDS", "0"),
        ("BODY_SECONDS", "inf"),
        ("MAX_ROWS", "0"),
        ("MAX_BODY_BYTES", "-1"),
        ("LOG_LEVEL", "loud"),
        ("SHUTDOWN_SECONDS", "-1"),
        ("DRAIN_SECONDS", "-1"),
        ("MAX_CONNECTIONS", "0"),
        ("HEADER_SECONDS", "0"),
        ("WRITE_SECONDS", "inf"),
    ],
)
def test_wrong_values_are_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"RADOGAGA_{name}", value)
    with pytest.raises(ValidationError, match=name.lower()):
        Settings()


def written(default: object) -> str:
    """Writes a default as a variable has it."""
    if default is None:
        return ""
    return str(default).lower() if isinstance(default, bool) else str(default)


def test_the_readme_lists_every_setting_with_its_default() -> None:
    rows = re.findall(r"^\| `RADOGAGA_(\w+)` \| (?:`([^`]*)` )?\|", README.read_text(), re.MULTILINE)
    listed = {name.lower(): default for name, default in rows if name not in TRAINING}
    assert listed == {name: written(field.default) for name, field in Settings.model_fields.items()}
