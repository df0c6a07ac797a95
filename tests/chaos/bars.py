"""What the service promises to withstand, and what one try found."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Figure = float | int | str


@dataclass(frozen=True)
class Outcome:
    """What one try of a bar found.

    Attributes:
        figures: What was measured, by a name that says its unit.
        failures: What was promised and not held, a sentence each with the figure; none if the bar is met.
    """

    figures: Mapping[str, Figure]
    failures: list[str] = field(default_factory=list)

    @property
    def met(self) -> bool:
        """Whether everything that was promised was held."""
        return not self.failures


@dataclass(frozen=True)
class Bar:
    """One promise.

    Attributes:
        number: Its number in docs/reliability.md.
        promise: What is done to the service and what it has to hold, in a sentence.
        run: Tries it and returns what was found. Its argument is the share of the full length and number that is
            tried, 1.0 for all of it; tests try a small share.
    """

    number: int
    promise: str
    run: Callable[[float], Outcome]
