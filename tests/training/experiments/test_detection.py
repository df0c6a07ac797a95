"""The tables of anomaly detection: their runs, their measure and their cells."""

from pathlib import Path

import pytest

from tests.conftest import small_job, small_model
from training.datasets import DATASETS
from training.experiments import EXPERIMENTS
from training.experiments.base import Request
from training.experiments.baselines import Run, unfinished
from training.experiments.detection import Detection, measure, run_group
from training.experiments.published import CITED, OWN, Figure, row
from training.experiments.records import Record, append_record, record_of
from training.experiments.results import lines_file
from training.jobs import Job


def table(name: str) -> Detection:
    experiment = EXPERIMENTS[name]
    assert isinstance(experiment, Detection)
    return experiment


def request(docs: Path = Path(), recipes: list[str] | None = None, seeds: tuple[int, ...] = (0, 1)) -> Request:
    return Request(["thyroid", "arrhythmia"], recipes, seeds, 1, docs)


def test_runs_are_listed_seed_by_seed() -> None:
    listed = table("table1").jobs(request(recipes=["robust"]))
    assert [(job.seed, job.dataset, job.method, job.h) for job in listed[:4]] == [
        (0, "thyroid", "DAGMM", "identity"),
        (0, "thyroid", "RaDOGAGA", "identity"),
        (0, "thyroid", "RaDOGAGA", "log"),
        (0, "arrhythmia", "DAGMM", "identity"),
    ]
    assert len(listed) == 12


def test_each_table_has_its_sizes_protocol_and_recipes() -> None:
    kinds = {
        name: {(job.size, job.protocol, job.recipe) for job in table(name).jobs(request())}
        for name in ("table1", "table4", "protocol_b")
    }
    assert kinds["table1"] == {("table2", "A", recipe) for recipe in ("faithful", "robust", "ensemble")}
    assert kinds["table4"] == {("table3", "A", recipe) for recipe in ("faithful", "robust")}
    assert kinds["protocol_b"] == {("table2", "B", recipe) for recipe in ("robust", "ensemble")}
    assert not [j for j in table("table1").jobs(request()) if (j.method, j.recipe) == ("DAGMM", "ensemble")]
    assert table("table4").jobs(request(recipes=["ensemble"])) == []


def record(seed: int, f1: float, **overrides: object) -> Record:
    metrics = {"precision": f1, "recall": f1, "f1": f1, "auroc": 0.9, "average_precision": 0.5, "flagged": 48}
    job = Job(dataset="thyroid", h="log", recipe="robust", seed=seed, overrides=overrides)
    return record_of("table1", job, job.settings.to_json(), metrics, 10.0)


def rendered(docs: Path, *records: Record) -> str:
    for each in records:
        append_record(lines_file(docs, "table1"), each)
    return table("table1").render(docs)


def test_a_cell_is_mean_and_deviation_over_its_seeds_beside_the_paper(tmp_path: Path) -> None:
    text = rendered(tmp_path, record(0, 0.5), record(1, 0.7))
    assert (
        "| RaDOGAGA(log d) | `robust` | 0 to 1 | 0.6000 (0.1414) | 0.6000 (0.1414) | 0.6000 (0.1414)"
        " | -1.2 std | 0.900 (0.000) | 0.500 (0.000) | 48 | 10 |"
    ) in text.splitlines()
    assert "| RaDOGAGA(log d) | *paper* | | 0.6562 (0.0572) | 0.6848 (0.0597) | 0.6702 (0.0585) | | | | | |" in text
    assert "| GMVAE (cited) | *paper* | | 0.7105 | 0.5745 | 0.6353 | | | | | |" in text


def test_a_single_seed_has_no_deviation_gaps_are_shown_and_failures_counted(tmp_path: Path) -> None:
    assert "| 3 | 0.5000 |" in rendered(tmp_path / "a", record(3, 0.5))
    assert "| 0, 2 |" in rendered(tmp_path / "b", record(0, 0.5), record(2, 0.5))
    failed: Record = {**record(1, 0.0), "metrics": {"failed": "step 1"}}
    assert "| 0 to 1 (1 failed) | 0.5000 |" in rendered(tmp_path / "c", record(0, 0.5), failed)
    assert "| `robust` | 1 (1 failed) |" in rendered(tmp_path / "d", failed)


def test_the_best_baseline_stands_below(tmp_path: Path) -> None:
    metrics = {"precision": 0.5, "recall": 0.5, "f1": 0.25, "auroc": 0.9, "average_precision": 0.5, "flagged": 48}
    for seed in (0, 1):
        for method, f1 in (("kNN", 0.75), ("LOF", 0.5)):
            baseline = unfinished(Run("a", "thyroid", method, "none", seed))
            append_record(lines_file(tmp_path, "baselines"), {**baseline, "metrics": {**metrics, "f1": f1}})
    line = "| kNN, unscaled | *best baseline* | 0 to 1 | | | 0.7500 (0.0000) | | 0.900 | 0.500 | | |"
    assert line in table("table1").render(tmp_path).splitlines()
    assert "best baseline" not in table("protocol_b").render(tmp_path)


def test_runs_with_other_settings_are_left_out(tmp_path: Path) -> None:
    assert "`robust`" not in rendered(tmp_path, record(0, 0.5, variance_floor=0.3))


def test_the_state_counts_what_is_done(tmp_path: Path) -> None:
    rendered(tmp_path, record(0, 0.5), record(1, 0.5, variance_floor=0.3))
    assert table("table1").state(request(tmp_path, recipes=["robust"])) == "1/12"


def test_it_measures_the_papers_percentile_on_the_test_half() -> None:
    metrics = measure(small_model(small_job()))
    assert metrics["flagged"] == 33
    assert metrics["f1"] > 0.7


def test_by_protocol_b_as_many_are_flagged_as_there_are_anomalies() -> None:
    job = small_job()
    model = small_model(Job(dataset="thyroid", h="log", recipe="robust", seed=0, overrides=job.overrides, protocol="B"))
    assert measure(model)["flagged"] == 61
    assert len(model.split.test) == 361


def test_a_group_is_trained_together_and_a_failure_is_a_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_thyroid: object
) -> None:
    assert small_thyroid
    found = run_group([small_job(0), small_job(1)], lambda _: None, tmp_path / "none.pt")
    assert found[0] == measure(small_model(small_job(0)))
    assert found[1]["f1"] > 0.7
    broken = DATASETS["thyroid"]()
    broken.x[:, 2] = float("nan")
    monkeypatch.setitem(DATASETS, "thyroid", lambda: broken)
    assert "step 1 of" in run_group([small_job(0)], lambda _: None, tmp_path / "other.pt")[0]["failed"]


def test_every_cell_of_the_paper_is_there() -> None:
    assert row("x", "0.5(0.1) 0.6(0.2) 0.7") == ("x", Figure(0.5, 0.1), Figure(0.6, 0.2), Figure(0.7))
    for name in ("table1", "table4"):
        assert set(OWN[name]) == set(CITED[name]) == set(DATASETS)
        for rows in OWN[name].values():
            assert len(rows) == 3
            for published in rows.values():
                precision, recall, f1 = (figure.mean for figure in published[1:])
                # a mean of harmonic means lies near the harmonic mean of means
                assert f1 == pytest.approx(2 * precision * recall / (precision + recall), abs=1e-3)
