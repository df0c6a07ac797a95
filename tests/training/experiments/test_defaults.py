"""Fits without settings beside simple detectors: the runs, what each fits on, and the table."""

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from tests.conftest import small_table
from training.datasets import DATASETS
from training.experiments import defaults
from training.experiments.base import Request
from training.experiments.defaults import OURS, RIVALS, TABLES, Defaults, digit, measure, render, wanted
from training.experiments.records import read_records
from training.experiments.runs import Run


def request_of(docs: Path, seeds: int) -> Request:
    return Request([], None, range(seeds), 1, docs)


@pytest.fixture
def one_table(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    x = np.concatenate([draw.normal(size=(160, 3)), draw.normal(size=(20, 3)) + 4]).astype(np.float32)
    monkeypatch.setattr(defaults, "TABLES", {"made": lambda: (x, np.arange(180) >= 160)})
    monkeypatch.setattr(defaults, "table_of", lambda name: defaults.TABLES[name]())


def test_every_table_is_fitted_by_every_method_with_every_seed() -> None:
    runs = wanted(range(5))
    assert len(runs) == len({(run.dataset, run.method, run.seed) for run in runs}) == len(TABLES) * 3 * 5
    assert {run.method for run in runs} == {OURS, *RIVALS}
    assert {run.recipe for run in runs if run.method == "kNN"} == {"standard"}


def test_one_digit_is_normal() -> None:
    x, y = digit(3)
    assert x.shape == (1797, 64)
    assert (~y).sum() == 183


@pytest.mark.usefixtures("one_table")
@pytest.mark.parametrize("method", [OURS, *RIVALS])
def test_a_method_is_judged_on_rows_it_has_not_seen(method: str) -> None:
    run = next(run for run in wanted([1]) if run.method == method)
    metrics = measure(run)
    assert metrics["rows"] == 80
    assert metrics["auroc"] > 0.95
    assert metrics == measure(run)


@pytest.mark.usefixtures("one_table")
def test_runs_are_done_once_and_become_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Run] = []

    def noting(run: Run) -> dict[str, float]:
        seen.append(run)
        return {"rows": 80, "auroc": 0.5 + 0.1 * run.seed + 0.01 * len(run.method), "average_precision": 0.5}

    monkeypatch.setattr(defaults, "measure", noting)
    experiment, console = Defaults(), Console(quiet=True)
    assert experiment.state(request_of(tmp_path, 2)) == "0/6"
    experiment.reproduce(request_of(tmp_path, 2), console)
    experiment.reproduce(request_of(tmp_path, 9), console)
    assert len(seen) == 15  # 5 seeds at most
    assert experiment.state(request_of(tmp_path, 9)) == "15/15"
    assert len(read_records(tmp_path / "results" / "defaults.jsonl")) == 15
    assert experiment.render(tmp_path).splitlines() == [
        "| table | fitted rows | RaDOGAGA | isolation forest | kNN |",
        "|---|---|---|---|---|",
        "| made | 80 | 0.780 (0.158) | **0.860** (0.158) | 0.730 (0.158) |",
        "| **mean** | | 0.780 | 0.860 | 0.730 |",
    ]


def test_without_runs_there_are_no_lines(tmp_path: Path) -> None:
    assert len(Defaults().render(tmp_path).splitlines()) == 2
    assert render({}).startswith("| table |")


def test_large_tables_are_drawn_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATASETS, "thyroid", small_table)
    monkeypatch.setattr(defaults, "MOST_ROWS", 100)
    x, y = TABLES["thyroid"]()
    assert len(x) == len(y) == 100
