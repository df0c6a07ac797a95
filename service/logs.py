"""Logs as one JSON object per line on standard output."""

import logging
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import orjson

EXTRA = "fields"
"""The attribute of a log record that holds further fields, given as ``extra={"fields": {...}}``."""


def as_line(fields: dict[str, Any]) -> bytes:
    """Writes fields as a line of JSON; what JSON can't hold becomes text."""
    try:
        return orjson.dumps(fields, default=str, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z)
    except TypeError:  # a lone surrogate of a client's, an integer beyond 64 bits: rare, so looked for only now
        safe = {name: _as_text(value) for name, value in fields.items()}
        return orjson.dumps(safe, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z)


class JsonFormatter(logging.Formatter):
    """Formats a record as JSON: time, level, logger, message, further fields and, if there is one, the traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line without its end."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, EXTRA, {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return as_line(line).decode().rstrip("\n")


class AccessLog:
    """The log's lines about requests: a record of the logging module for each would cost as much as scoring a row."""

    def write(self, lines: Iterable[dict[str, Any]]) -> None:
        """Writes lines, all at once."""
        written = b"".join(map(as_line, lines))
        sys.stdout.flush()
        sys.stdout.buffer.write(written)
        sys.stdout.buffer.flush()


def configure_logging(level: str) -> None:
    """Sends every logger's records, uvicorn's among them, to standard output as JSON lines."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    logging.captureWarnings(True)


def _as_text(value: object) -> object:
    if value is None or isinstance(value, bool | float | datetime):
        return value
    return str(value).encode(errors="backslashreplace").decode()
