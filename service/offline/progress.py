"""How far the scoring is, as lines on standard error."""

import sys
import time
from collections.abc import Callable

SECONDS_BETWEEN_LINES = 5.0


class Progress:
    """Says now and then how far the scoring is.

    Arguments:
        parts: The number of files to write.
        quiet: Whether nothing is said.
        clock: Tells the time in seconds.

    Attributes:
        rows: Rows scored so far.
    """

    def __init__(self, parts: int, quiet: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self.rows = 0
        self._parts, self._quiet, self._clock = parts, quiet, clock
        self._written = 0
        self._started = self._said = clock()

    def add(self, rows: int) -> None:
        """Counts rows."""
        self.rows += rows
        if self._clock() - self._said >= SECONDS_BETWEEN_LINES:
            self._say()

    def finish(self, out: str) -> None:
        """Counts a file that was written."""
        self._written += 1
        self._say(f", {out}")

    @property
    def seconds(self) -> float:
        """The time that has passed since the beginning."""
        return self._clock() - self._started

    def _say(self, more: str = "") -> None:
        self._said = self._clock()
        if not self._quiet:
            speed = self.rows / max(self.seconds, 1e-9)
            print(f"{self.rows:,} rows, {speed:,.0f}/s, {self._written} of {self._parts} files{more}", file=sys.stderr)
