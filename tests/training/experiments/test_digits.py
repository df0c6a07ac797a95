"""Digits are judged by each part of the score, beside baselines on the same splits."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from sklearn.metrics import roc_auc_score

from training.baselines import BASELINES, fit
from training.datasets.base import protocol_a
from training.datasets.digits import digits
from training.experiments import digits as module
from training.experiments.base import Request
from training.experiments.digits import Digits, measure, table
from training.experiments.records import Metrics, read_records
from training.experiments.results import lines_file
from training.jobs import FittedImages, ImageJob, run_images
from training.settings import IMAGE_SETTINGS

REQUEST = Request((), None, (), 1, Path())


@pytest.fixture(autouse=True)
def one_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(IMAGE_SETTINGS, "digits", replace(IMAGE_SETTINGS["digits"], epochs=1))


@pytest.fixture(scope="module")
def model() -> FittedImages:
    return run_images(ImageJob(dataset="digits", seed=3, overrides={"epochs": 1}))


def test_a_cost_is_judged_and_its_parts_are(model: FittedImages) -> None:
    found = measure(model)
    x, y = torch.from_numpy(model.dataset.x[model.split.test]).double(), model.dataset.y[model.split.test]
    scaled = x / 16
    with torch.no_grad():
        z = model.method.encoder(scaled)
        rate = model.method.density.rate(z)
        distortion = 50 * (scaled - model.method.decoder(z)).square().sum(dim=1)
    for name, score in (("cost", rate + distortion), ("rate", rate), ("distortion", distortion)):
        assert found[name]["auroc"] == pytest.approx(roc_auc_score(y, score.numpy()), abs=1e-6)
        assert found["nats of normal test rows"][name] == pytest.approx(float(score[~torch.from_numpy(y)].mean()))
    assert found["nats of fitted rows"]["cost"] != found["nats of normal test rows"]["cost"]


def test_runs_are_done_once_and_leave_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SEEDS", range(2))
    monkeypatch.setattr(module, "OTHER_SEEDS", range(0))
    experiment, request = Digits(), replace(REQUEST, docs=tmp_path)
    assert experiment.state(request) == "0/6"
    experiment.reproduce(request, Console(quiet=True))
    assert experiment.state(request) == "6/6"
    records = read_records(lines_file(tmp_path, "digits"))
    assert [(record["method"], record["seed"]) for record in records] == [
        (method, seed) for method in ("RaDOGAGA", "PCA residual", "kNN") for seed in (0, 1)
    ]
    assert not list((tmp_path / "results" / ".unfinished").iterdir())
    dataset = digits()
    split = protocol_a(dataset.y, 1)
    score = fit(BASELINES["kNN"], "none", dataset.x[split.normal], 1)
    expected = roc_auc_score(dataset.y[split.test], score(dataset.x[split.test]))
    assert records[-1]["metrics"]["cost"]["auroc"] == pytest.approx(expected, abs=1e-6)
    lines = experiment.render(tmp_path).splitlines()
    assert len(lines) == 3
    assert lines[2].startswith("| 9 | 2 | 0.")


def test_each_other_digit_is_the_anomaly_once() -> None:
    runs = [run for run in Digits().runs(REQUEST) if run.method == "kNN"]
    assert [(run.settings["anomaly"], run.seed) for run in runs[:5]] == [(9, seed) for seed in range(5)]
    assert [(run.settings["anomaly"], run.seed) for run in runs[5:]] == [(digit, 0) for digit in range(9)]


def test_a_line_has_what_there_is() -> None:
    judged = {part: {"auroc": value} for part, value in (("cost", 0.9), ("rate", 0.5), ("distortion", 0.25))}
    cells: dict[int, dict[str, list[Metrics]]]
    cells = {4: {"kNN": [{"cost": {"auroc": 0.75}}]}, 9: {"RaDOGAGA": [judged, {**judged, "cost": {"auroc": 0.8}}]}}
    assert table(cells).splitlines()[2:] == [
        "| 9 | 2 | 0.850 (0.071) | 0.500 (0.000) | 0.250 (0.000) |  |  |",
        "| 4 | 1 |  |  |  |  | 0.750 |",
    ]
