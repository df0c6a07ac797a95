"""How far the scoring is, as lines on standard error."""

import sys
import time
from collections.abc import Callable

SECONDS_BETWEEN_LINES = 5.0

SECONDS_BETWEEN_BARS = 0.2

WIDTH = 20
"""Characters of a bar."""

CLEAR = "\r\x1b[K"
"""Takes a terminal back to the beginning of an empty line."""


class Progress:
    """Says now and then how far the scoring is: in lines, or on a terminal in one line that changes.

    Arguments:
        parts: The number of files to write.
        quiet: Whether nothing is said.
        terminal: Whether it is said on a terminal.
        total: The number of rows there are, if that is known; there is no bar without it.
        clock: Tells the time in seconds.

    Attributes:
        rows: Rows scored so far.
    """

    def __init__(
        self,
        parts: int,
        quiet: bool = False,
        terminal: bool = False,
        total: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.rows = 0
        self._parts, self._quiet, self._terminal, self._total, self._clock = parts, quiet, terminal, total, clock
        self._pause = SECONDS_BETWEEN_BARS if terminal else SECONDS_BETWEEN_LINES
        self._written = 0
        self._started = self._said = clock()

    def add(self, rows: int) -> None:
        """Counts rows."""
        self.rows += rows
        if self._clock() - self._said >= self._pause:
            self._say(self._line(), end="" if self._terminal else "\n")

    def finish(self, out: str) -> None:
        """Counts a file that was written."""
        self._written += 1
        self._say(f"{self._line()}, {out}")

    def clear(self) -> None:
        """Leaves the terminal's line empty."""
        self._say("", end="")

    @property
    def seconds(self) -> float:
        """The time that has passed since the beginning."""
        return self._clock() - self._started

    def _line(self) -> str:
        speed = self.rows / max(self.seconds, 1e-9)
        line = f"{self.rows:,} rows, {speed:,.0f}/s, {self._written} of {self._parts} files"
        return f"{self._bar()}{line}" if self._terminal else line

    def _bar(self) -> str:
        if not self._total:
            return ""
        share = min(1.0, self.rows / self._total)
        return f"[{'#' * round(WIDTH * share):.<{WIDTH}}] {share:4.0%} "

    def _say(self, line: str, end: str = "\n") -> None:
        self._said = self._clock()
        if not self._quiet and (line or self._terminal):
            print(f"{CLEAR if self._terminal else ''}{line}", end=end, file=sys.stderr, flush=True)
