"""Logs as one JSON object per line on standard output."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

EXTRA = "fields"
"""The attribute of a log record that holds further fields, given as ``extra={"fields": {...}}``."""


class JsonFormatter(logging.Formatter):
    """Formats a record as JSON: time, level, logger, message, further fields and, if there is one, the traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line without its end."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, EXTRA, {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure_logging(level: str) -> None:
    """Sends every logger's records, uvicorn's among them, to standard output as JSON lines."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    logging.captureWarnings(True)
