"""A fit is shown as a bar on a terminal, and as lines elsewhere."""

import io
import re
import time
from dataclasses import replace

import pytest
from rich.console import Console

from training.fitting import Progress
from training.progress import swept, throttled, watched


def at(step: int, steps: int = 100) -> Progress:
    terms = {"rate": -1.5, "distortion": 20.25, "perturbation": 3e-4}
    return Progress(step, steps, step // 10, steps // 10, terms)


def test_lines_tell_epoch_terms_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    out = io.StringIO()
    with watched("thyroid", Console(file=out)) as observer:
        for step in (1, 51, 100):
            now[0] = 1000.0 + step
            observer(at(step))
    first, middle, last = out.getvalue().splitlines()
    assert first == "thyroid  epoch 0/10  rate -1.5  distortion 20.25  perturbation 0.0003  ETA ?"
    assert middle.startswith("thyroid  epoch 5/10  rate")
    assert middle.endswith("ETA 49 s")
    assert last.endswith("ETA 0 s")


def test_steps_between_two_updates_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    shown: list[int] = []
    observe = throttled(lambda seen: shown.append(seen.step), 10.0)
    for step in range(1, 101):
        now[0] = float(step)
        observe(at(step))
    assert shown == [1, 11, 21, 31, 41, 51, 61, 71, 81, 91, 100]


def test_a_bar_fits_a_terminal_of_80_columns() -> None:
    out = io.StringIO()
    with watched("kddcup-rev identity faithful", Console(file=out, force_terminal=True, width=80)) as observer:
        for step in range(1, 101):
            terms = {"rate": -123.4567, "distortion": -1234567.0, "perturbation": 3e-4}
            observer(replace(at(step), terms=terms))
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())
    last = text.replace("\r", "\n").strip().splitlines()[-1]
    assert last.strip().endswith("100% ETA 0:00:00 rate -123.5  distortion -1.235e+06  perturbation 0.0003")


def test_a_terminal_gets_a_bar() -> None:
    out = io.StringIO()
    with watched("thyroid", Console(file=out, force_terminal=True, width=160)) as observer:
        for step in range(1, 101):
            observer(at(step))
    text = out.getvalue()
    assert "100%" in text
    assert "rate -1.5  distortion 20.25  perturbation 0.0003" in text
    assert "ETA" in text


def test_a_sweep_tells_the_share_of_all_its_parts_and_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    out = io.StringIO()
    with swept("table1", {"small": 1.0, "large": 3.0}, Console(file=out)) as report:
        now[0] = 100.0
        report("small", 1.0)
        now[0] = 120.0
        report("large", 0.1)  # too soon for another line
        now[0] = 200.0
        report("large", 1 / 3)
    assert out.getvalue().splitlines() == ["table1 25.0%, ETA 0:05:00", "table1 50.0%, ETA 0:03:20"]


def test_a_sweep_has_a_bar_on_a_terminal() -> None:
    out = io.StringIO()
    with swept("table1", {"small": 1.0, "large": 3.0}, Console(file=out, force_terminal=True, width=80)) as report:
        report("large", 0.5)
        report("large", 1.0)
    assert re.search(r"table1 .*75.0%, ETA \d", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue()))
