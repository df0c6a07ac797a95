"""Every log line is a JSON object."""

import json
import logging
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from service.logs import AccessLog, configure_logging


@pytest.fixture(autouse=True)
def restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_fields_stand_beside_the_message(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info")
    logging.getLogger("a.b").info("hello %s", "there", extra={"fields": {"rows": 3}})
    (line,) = lines(capsys)
    assert line.pop("time")
    assert line == {"level": "info", "logger": "a.b", "message": "hello there", "rows": 3}


def test_the_level_is_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("warning")
    logging.getLogger("a").info("quiet")
    assert lines(capsys) == []


def test_a_traceback_stays_on_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info")
    try:
        raise ValueError("multi\nline")
    except ValueError:
        logging.getLogger("a").exception("oh")
    (line,) = lines(capsys)
    assert "ValueError: multi\nline" in str(line["traceback"])


def test_warnings_are_logged(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("careful", stacklevel=1)
    (line,) = lines(capsys)
    assert "careful" in str(line["message"])
    assert line["logger"] == "py.warnings"


def test_what_json_can_not_hold_is_written_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info")
    logging.getLogger("a").info("x", extra={"fields": {"path": "\ud800", "thing": object}})
    (line,) = lines(capsys)
    assert line["thing"] == "<class 'object'>"


def test_lines_about_requests_have_the_form_of_all_others(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    AccessLog().write([{"time": datetime.now(UTC), "rows": 1}, {"path": "/\ud800"}])
    first, second = (json.loads(line) for line in capsysbinary.readouterr().out.splitlines())
    assert first.pop("time").endswith("Z")
    assert first == {"rows": 1}
    assert second["path"] == "/\\ud800"
