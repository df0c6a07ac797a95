"""Bars compare the figures they say, and nothing is met that was not measured."""

import json
import math
import operator
from pathlib import Path

import pytest

from tests.load.bars import BARS, FILLED, Bar, Comparison, Term, alone, judge
from tests.load.bodies import ROW, ROWS
from tests.load.measuring import Case, Figures, medians
from tests.load.serving_report import TABLES, Run, bars_table, markdown, record, servers_table, traffic_table
from tests.load.serving_speed import CASES, NAMES

OURS, THEIRS = Case("ours", ROW), Case("theirs", ROW)
FOUND = {str(OURS): [{"cpu": 0.3, "p50": 2.0, "p99": 7.0}], str(THEIRS): [{"cpu": 0.2}]}
FIGURES = {"cpu": 1.0, "requests": 10.0, "rows": 20.0, "p50": 2.0, "p90": 3.0, "p99": 4.0, "max": 5.0, "client": 0.1}


@pytest.mark.parametrize(
    ("holds", "limit", "outcome"),
    [
        (operator.le, 1.51, "met"),
        (operator.le, 1.49, "not met"),
        (operator.ge, 1.49, "met"),
        (operator.ge, 1.51, "not met"),
        (None, math.nan, "stated"),
    ],
)
def test_a_ratio_is_held_against_its_limit(holds: Comparison | None, limit: float, outcome: str) -> None:
    verdict = judge(Bar("CPU", Term(OURS, "cpu"), Term(THEIRS, "cpu"), holds, limit), FOUND)
    assert verdict.value == pytest.approx(1.5)
    assert verdict.outcome == outcome


def test_two_figures_of_a_case_may_be_compared_and_one_may_stand_alone() -> None:
    assert judge(Bar("tail", Term(OURS, "p99"), Term(OURS, "p50"), operator.le, 3), FOUND).outcome == "not met"
    assert judge(Bar("p99", Term(OURS, "p99"), None, operator.le, 7), FOUND).outcome == "met"


def test_what_was_not_measured_is_not_met() -> None:
    bar = Bar("CPU", Term(OURS, "cpu"), Term(Case("missing", ROWS), "cpu"), operator.le, 10)
    verdict = judge(bar, FOUND)
    assert (verdict.value, verdict.outcome) == (None, "not measured: missing: 256 rows JSON, 16 connections")


def test_rounds_are_compared_one_by_one() -> None:
    """In the second everything took twice as long, and in the third something disturbed one of the two."""
    found = {
        str(OURS): [{"cpu": cpu} for cpu in (2.9, 3.1, 5.9, 6.1, 3.0, 3.0)],
        str(THEIRS): [{"cpu": cpu} for cpu in (2.0, 4.0, 0.1)],
    }
    verdict = judge(Bar("CPU", Term(OURS, "cpu"), Term(THEIRS, "cpu"), operator.le, 1.51), found)
    assert verdict.value == pytest.approx(1.5)
    alone_ = judge(Bar("CPU", Term(THEIRS, "cpu"), None, operator.le, 2), found)
    assert (alone_.value, alone_.outcome) == (2.0, "met")


def test_of_each_figure_the_median_counts() -> None:
    rounds = [{"cpu": 1.0, "p50": 9.0}, {"cpu": 5.0, "p50": 8.0}, {"cpu": 2.0, "p50": 7.0}]
    assert medians(rounds) == {"cpu": 2.0, "p50": 8.0}


def run_of(names: list[str], missing: dict[str, str]) -> Run:
    """Makes a run in which every measurement found the same."""
    figures: dict[str, list[Figures]] = {alone(name): [{"start": 1.0, "memory": 50.0}] for name in names}
    figures[FILLED] = [{"memory": 60.0, "growth": 0.5}]
    figures |= {str(case): [FIGURES, FIGURES] for case in CASES if case.server in names}
    return Run(figures, missing, 2, 4.0, 60.0, "processor", 2, {"python": "3"}, "abc")


def test_every_bar_is_measured_by_a_full_run() -> None:
    outcomes = [cells[-1] for cells in bars_table(run_of(NAMES, {}))[1:]]
    assert len(outcomes) == sum(len(bars) for bars in BARS.values())
    assert set(outcomes) == {"met", "not met", "stated"}


def test_a_missing_peer_is_named_in_the_tables() -> None:
    run = run_of([name for name in NAMES if name != "MLServer"], {"MLServer": "not installed"})
    assert ["MLServer", "missing", "not installed"] in servers_table(run)
    assert [cells[-1] for cells in bars_table(run) if "MLServer" in cells[1]] == [
        "not measured: MLServer: 256 rows JSON, 16 connections"
    ]


def test_a_run_is_recorded_as_a_line_and_as_tables(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "performance.md").write_text("words\n<!-- serving -->\n<!-- end of serving -->\nmore words\n")
    for _ in range(2):
        record(tmp_path, run_of(NAMES, {}))
    lines = (tmp_path / "results" / "serving.jsonl").read_text().splitlines()
    assert [json.loads(line)["figures"][FILLED] for line in lines] == 2 * [[{"memory": 60.0, "growth": 0.5}]]
    page = (tmp_path / "performance.md").read_text()
    assert page.startswith("words\n")
    assert page.endswith("more words\n")
    assert all(page.count(f"### {title}\n") == 1 for title in TABLES)


def test_tables_have_cells_for_every_column() -> None:
    for make in (bars_table, traffic_table, servers_table):
        rows = make(run_of(NAMES, {}))
        assert {len(cells) for cells in rows} == {len(rows[0])}
        assert len(markdown(rows).splitlines()) == len(rows) + 1
