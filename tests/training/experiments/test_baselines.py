"""The baselines' sweep: its runs, its measure, its tables, and that it goes on where it was left."""

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from training.baselines import BASELINES, Gaussians
from training.datasets import DATASETS
from training.datasets.base import Dataset
from training.experiments import baselines
from training.experiments.baselines import Run, best, measure, render, unfinished, wanted
from training.experiments.records import Record, read_records

QUICK = ("Gaussian", "ECOD")


def record(method: str, scaling: str, seed: int, f1: float, experiment: str = "baselines", **other: object) -> Record:
    blank = unfinished(Run("a", "thyroid", method, scaling, seed))
    metrics = {"f1": f1, "auroc": f1 + 0.1, "average_precision": f1 - 0.1}
    return {**blank, "experiment": experiment, "metrics": metrics, "settings": {**blank["settings"], **other}}


def sweep(docs: Path, seeds: Sequence[int]) -> str:
    out = io.StringIO()
    baselines.run(["thyroid"], seeds, ["a", "b"], docs, Console(file=out), QUICK)
    return out.getvalue()


def test_a_seed_is_finished_before_the_next_and_a_protocol_before_the_other() -> None:
    runs = wanted(["thyroid", "arrhythmia"], [0, 1], ["a", "b"])
    assert [(run.protocol, run.seed, run.dataset) for run in runs[:: len(runs) // 8]] == [
        (protocol, seed, dataset) for protocol in "ab" for seed in (0, 1) for dataset in ("thyroid", "arrhythmia")
    ]
    assert {run.method for run in runs} == set(BASELINES)
    assert {run.scaling for run in runs if run.method == "kNN"} == {"minmax", "standard", "none"}
    assert {run.scaling for run in runs if run.method == "ECOD"} == {"none"}
    assert len(runs) == len(set(runs))


def test_protocol_a_flags_the_datasets_ratio_of_the_test_half(small_thyroid: Dataset) -> None:
    metrics = measure(Run("a", "thyroid", "PCA residual", "none", 0), small_thyroid)
    assert metrics["flagged"] == 33  # 10 % of 300 normal rows and 30 anomalies
    assert metrics["f1"] > 0.8


def test_protocol_b_flags_as_many_rows_as_there_are_anomalies(small_thyroid: Dataset) -> None:
    metrics = measure(Run("b", "thyroid", "PCA residual", "none", 0), small_thyroid)
    assert metrics["flagged"] == 61
    assert metrics["precision"] == metrics["recall"] > 0.8


def test_anomalies_are_not_fitted(small_thyroid: Dataset) -> None:
    run = Run("a", "thyroid", "Gaussian", "standard", 0)
    split = baselines.SPLITS["a"](small_thyroid.y, 0)
    x = small_thyroid.x.copy()
    x[np.setdiff1d(split.train, split.normal)] = np.nan
    assert measure(run, replace(small_thyroid, x=x)) == measure(run, small_thyroid)


def test_a_fit_that_fails_is_a_result(small_thyroid: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BASELINES, "Gaussian", Gaussians(2, max_iter=1))
    metrics = measure(Run("a", "thyroid", "Gaussian", "none", 0), small_thyroid)
    assert "did not converge" in metrics["failed"]


@pytest.mark.usefixtures("small_thyroid")
def test_a_sweep_writes_a_line_per_run_and_does_none_twice(tmp_path: Path) -> None:
    said = sweep(tmp_path, [0])
    path = tmp_path / "results" / "baselines.jsonl"
    first = read_records(path)
    assert [(r["experiment"], r["method"], r["recipe"]) for r in first] == [
        (experiment, method, scaling)
        for experiment in ("baselines", "baselines_b")
        for method, scaling in [
            ("Gaussian", "minmax"),
            ("Gaussian", "standard"),
            ("Gaussian", "none"),
            ("ECOD", "none"),
        ]
    ]
    assert set(first[0]) == set(Record.__annotations__)
    assert first[0]["settings"] == {"components": 1, "reg_covar": 1e-6, "max_iter": 500, "n_init": 1}
    assert f"thyroid, protocol A, seed 0: ECOD, none: F1 {first[3]['metrics']['f1']:.4f}" in said

    assert "seed 0" not in sweep(tmp_path, [0, 1])
    assert read_records(path)[:8] == first
    assert [r["seed"] for r in read_records(path)] == [0] * 8 + [1] * 8


@pytest.mark.usefixtures("small_thyroid")
def test_an_interrupted_sweep_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep(tmp_path / "whole", [0])
    calls = []

    def interrupted(run: Run, dataset: Dataset) -> dict[str, Any]:
        calls.append(run)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return measure(run, dataset)

    monkeypatch.setattr(baselines, "measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sweep(tmp_path / "parts", [0])
    assert len(read_records(tmp_path / "parts" / "results" / "baselines.jsonl")) == 2
    sweep(tmp_path / "parts", [0])
    whole, parts = (read_records(tmp_path / name / "results" / "baselines.jsonl") for name in ("whole", "parts"))
    assert [{**r, "seconds": 0} for r in parts] == [{**r, "seconds": 0} for r in whole]


@pytest.mark.usefixtures("small_thyroid")
def test_other_settings_are_another_run_and_a_failure_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep(tmp_path, [0])
    monkeypatch.setitem(BASELINES, "Gaussian", Gaussians(2, max_iter=1))
    said = sweep(tmp_path, [0])
    assert "thyroid, protocol A, seed 0: Gaussian, none: failed, 2 Gaussians" in said
    assert "ECOD" not in said


def test_a_cell_is_mean_and_deviation_and_the_best_are_bold() -> None:
    records = [record("kNN", "none", 0, 0.5), record("kNN", "none", 1, 0.7), record("ECOD", "none", 0, 0.4)]
    records += [record("kNN", "minmax", seed, 0.55) for seed in (0, 1)]
    assert render(records) == (
        "### thyroid, protocol A\n\n"
        "| baseline | min-max | standardised | unscaled | seeds |\n"
        "|---|---|---|---|---|\n"
        "| ECOD | | | 0.400 / 0.500 / 0.300 | 1 |\n"
        "| kNN | 0.550 (0.000) / 0.650 / 0.450 | | **0.600 (0.141)** / **0.700** / **0.500** | 2 |\n"
    )


def test_protocols_stand_apart() -> None:
    records = [record("kNN", "none", 0, 0.5), record("kNN", "none", 0, 0.8, experiment="baselines_b")]
    protocol_a, protocol_b = render(records).split("### thyroid, protocol B")
    assert "0.500" in protocol_a
    assert "0.800" not in protocol_a
    assert "0.800" in protocol_b


def test_failures_are_counted_and_other_settings_left_out() -> None:
    failed: Record = {**record("kNN", "none", 1, 0.5), "metrics": {"failed": "for a reason"}}
    records = [record("kNN", "none", 0, 0.5), failed, record("kNN", "none", 2, 0.9, k=7)]
    line = render(records).splitlines()[-1]
    assert line == "| kNN | | | **0.500** / **0.600** / **0.400**, 1 failed | 1 |"
    assert render([failed]).splitlines()[-1] == "| kNN | | | 1 failed | 0 |"


def test_the_best_baseline_has_as_many_seeds_as_any() -> None:
    records = [record("kNN", "none", seed, 0.5) for seed in (0, 1)]
    records += [record("ECOD", "none", 0, 0.9), record("LOF", "standard", 0, 0.4), record("LOF", "standard", 1, 0.7)]
    (name, cell), *others = best(records, "a").items()
    assert not others
    assert (name, cell.method, cell.scaling, cell.seeds) == ("thyroid", "LOF", "standard", (0, 1))
    assert cell.f1 == pytest.approx(0.55)
    assert cell.auroc == pytest.approx(0.65)
    assert best(records, "b") == {}


def test_the_records_are_json() -> None:
    runs = wanted(list(DATASETS), [0], ["a", "b"])
    assert all(json.loads(json.dumps(unfinished(run))) == unfinished(run) for run in runs)
