"""Parts of moments, beside Python's own calendar."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from training.tables.moments import DAY, days_of_the_year, iso, shares, weekdays

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@pytest.fixture
def drawn() -> list[datetime]:
    generator = np.random.default_rng(0)
    whole = int((datetime(9999, 12, 31, tzinfo=UTC) - datetime(1, 1, 1, tzinfo=UTC)).total_seconds())
    seconds = generator.integers(whole, size=500)
    micro = generator.integers(10**6, size=500)
    first = datetime(1, 1, 1, tzinfo=UTC)
    edges = [EPOCH, EPOCH - timedelta(microseconds=1), datetime(2024, 12, 31, 23, 59, 59, 999_999, UTC)]
    return edges + [first + timedelta(seconds=int(s), microseconds=int(m)) for s, m in zip(seconds, micro, strict=True)]


def test_parts_are_the_calendar_s(drawn: list[datetime]) -> None:
    moments = np.array([(moment - EPOCH) // timedelta(microseconds=1) for moment in drawn])
    day = [timedelta(hours=m.hour, minutes=m.minute, seconds=m.second, microseconds=m.microsecond) for m in drawn]
    week = [timedelta(days=m.weekday()) + time for m, time in zip(drawn, day, strict=True)]
    year = [timedelta(days=m.timetuple().tm_yday - 1) + time for m, time in zip(drawn, day, strict=True)]
    for part, passed, days in (("time_of_day", day, 1), ("day_of_week", week, 7), ("day_of_year", year, 366)):
        expected = [time / timedelta(days=days) for time in passed]
        assert shares(moments, part).tolist() == expected
        assert all(0 <= share < 1 for share in expected)
    dates = moments // DAY
    assert weekdays(dates).tolist() == [m.weekday() for m in drawn]
    assert days_of_the_year(dates).tolist() == [m.timetuple().tm_yday - 1 for m in drawn]


def test_moments_are_written_as_they_are_read() -> None:
    assert iso(0) == "1970-01-01T00:00:00Z"
    assert iso(-1) == "1969-12-31T23:59:59.999999Z"
    assert datetime.fromisoformat(iso(DAY * 365)) == datetime(1971, 1, 1, tzinfo=UTC)
