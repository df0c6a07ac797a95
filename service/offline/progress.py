"""How far the scoring is, as lines on standard error."""

import sys
import time
from dataclasses import dataclass, field

SECONDS_BETWEEN_LINES = 5.0


@dataclass
class Progress:
    """Says now and then how far the scoring is.

    Attributes:
        parts: The number of files to write.
        quiet: Whether nothing is said.
        rows: Rows scored so far.
    """

    parts: int
    quiet: bool = False
    rows: int = 0
    _written: int = 0
    _started: float = field(default_factory=time.monotonic)
    _said: float = field(default_factory=time.monotonic)

    def add(self, rows: int) -> None:
        """Counts rows."""
        self.rows += rows
        if time.monotonic() - self._said >= SECONDS_BETWEEN_LINES:
            self.say()

    def finish(self, out: str) -> None:
        """Counts a file that was written."""
        self._written += 1
        self.say(f", {out}")

    def say(self, more: str = "") -> None:
        """Writes a line."""
        self._said = time.monotonic()
        if not self.quiet:
            speed = self.rows / max(self.seconds, 1e-9)
            print(f"{self.rows:,} rows, {speed:,.0f}/s, {self._written} of {self.parts} files{more}", file=sys.stderr)

    @property
    def seconds(self) -> float:
        """The time that has passed since the beginning."""
        return time.monotonic() - self._started
