"""Table 1: its runs, its measure and its cells."""

import pytest
from training.experiments.table1 import jobs, measure, render

from tests.conftest import record_of, small_job
from training.experiments.records import Record


def record(seed: int, f1: float, **other_settings: object) -> Record:
    metrics = {"precision": f1, "recall": f1, "f1": f1, "auroc": 0.9, "average_precision": 0.5, "flagged": 48}
    (job,) = jobs(["thyroid"], None, ["robust"], [seed])
    return record_of("table1", job, metrics, **other_settings)


def test_runs_are_listed_seed_by_seed_with_the_papers_better_h() -> None:
    listed = jobs(["thyroid", "arrhythmia"], None, ["faithful", "robust"], [0, 1])
    assert [(job.seed, job.dataset, job.h, job.recipe) for job in listed[:4]] == [
        (0, "thyroid", "log", "faithful"),
        (0, "thyroid", "log", "robust"),
        (0, "arrhythmia", "identity", "faithful"),
        (0, "arrhythmia", "identity", "robust"),
    ]
    assert len(listed) == 8
    assert {job.h for job in jobs(["thyroid"], ["identity", "log"], ["robust"], [0])} == {"identity", "log"}


def test_a_cell_is_mean_and_deviation_over_its_seeds() -> None:
    table = render([record(0, 0.5), record(1, 0.7)]).splitlines()
    assert len(table) == 3
    assert table[2] == (
        "| thyroid | log d | robust | 0 to 1 | 0.6000 (0.1414) | 0.6000 (0.1414) | 0.6000 (0.1414)"
        " | 0.6702 (0.0585) | 0.9000 (0.0000) | 0.5000 (0.0000) | 48 | 10 |"
    )


def test_a_single_seed_has_no_deviation_and_gaps_are_shown() -> None:
    assert "| 3 | 0.5000 |" in render([record(3, 0.5)])
    assert "| 0, 2 |" in render([record(0, 0.5), record(2, 0.5)])


def test_runs_with_other_settings_are_left_out() -> None:
    assert "0.5000" not in render([record(0, 0.5, variance_floor=0.3)])


@pytest.mark.usefixtures("small_thyroid")
def test_it_measures_the_papers_percentile_on_the_test_half() -> None:
    metrics = measure(small_job(), lambda _: None)
    assert metrics["flagged"] == 33
    assert metrics["f1"] > 0.7
