"""Moments as microseconds since 1970, and the parts of them that come again.

The service computes the same, and to the bit: a moment is so many whole microseconds, and of a part the share is the
microseconds that have passed of its period over those that the period has; the angle is 2 pi times the share.
"""

import numpy as np
from numpy.typing import NDArray

DAY = 86_400_000_000
"""Microseconds."""

PERIODS = {"time_of_day": DAY, "day_of_week": 7 * DAY, "day_of_year": 366 * DAY}

THURSDAY = 3
"""The weekday of January 1st 1970, Monday being 0."""

Days = NDArray[np.int64]


def weekdays(days: Days) -> Days:
    """Returns the weekday (N,), 0 for Monday, of days since 1970."""
    return (days + THURSDAY) % 7


def days_of_the_year(days: Days) -> Days:
    """Returns how many days (N,) have passed between January 1st and each of the days since 1970."""
    date = days.astype("datetime64[D]")
    first: NDArray[np.int64] = date.astype("datetime64[Y]").astype("datetime64[D]").astype(np.int64)
    return days - first


def shares(microseconds: NDArray[np.int64], part: str) -> NDArray[np.float64]:
    """Returns the share (N,) of a period that has passed at each moment: of the day, the week or a year of 366 days."""
    days, passed = np.divmod(microseconds, DAY)
    if part == "day_of_week":
        passed = passed + weekdays(days) * DAY
    elif part == "day_of_year":
        passed = passed + days_of_the_year(days) * DAY
    return passed / PERIODS[part]


def iso(microseconds: int) -> str:
    """Writes a moment in ISO 8601, as short as it can be to the second or the microsecond."""
    text = str(np.datetime64(microseconds, "us"))
    return f"{text.removesuffix('.000000')}Z"
