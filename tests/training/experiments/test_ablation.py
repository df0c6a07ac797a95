"""Settings are judged by the training half; neither an anomaly's label nor the test half decides."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.conftest import fit_alone, small_job, small_rows, small_table
from training.datasets import DATASETS
from training.datasets.base import Dataset, Split, protocol_a
from training.draws import Draws
from training.experiments import ablation
from training.experiments.ablation import (
    CANDIDATES,
    Ablation,
    Judgement,
    candidates,
    contrast,
    render,
    run_group,
)
from training.experiments.base import Request
from training.experiments.records import Metrics, Record, record_of
from training.fitting import Member, Observer, fit
from training.jobs import FittedModel, Job
from training.methods.base import Method
from training.methods.mixture_autoencoder import MixtureAutoencoder
from training.settings import DEFAULT_H, Settings


def measured(tmp_path: Path, job: Job | None = None) -> Metrics:
    (metrics,) = run_group([job or small_job()], lambda _: None, tmp_path / "fit.pt")
    (tmp_path / "fit.pt").unlink(missing_ok=True)
    return metrics


def test_each_setting_is_listed_once_for_every_seed() -> None:
    request = Request(["thyroid", "arrhythmia"], None, [0, 1], 1, Path())
    listed = Ablation().jobs(request)
    settings = {(job.dataset, job.seed, str(job.settings)) for job in listed}
    assert len(settings) == len(listed)
    assert {job.settings.scaling for job in listed} == {"feature", "table", "standard"}
    assert {job.settings.rate_at for job in listed} == {"z", "noisy"}
    for name in CANDIDATES:
        robust = Job(dataset=name, h=DEFAULT_H[name], recipe="robust", seed=0)
        assert robust.settings in [job.settings for job in candidates(name, 0) if job.method == "RaDOGAGA"]


@pytest.mark.usefixtures("small_thyroid")
def test_a_simple_table_is_learned_well(tmp_path: Path) -> None:
    metrics = measured(tmp_path)
    assert metrics["agreement"] > 0.7
    assert metrics["above"] == pytest.approx(0.05, abs=0.07)
    assert metrics["contrast"] > 0.8
    assert metrics["f1"] > 0.7
    assert abs(metrics["fitted_loss"] - metrics["held_out_loss"]) < 0.2 * abs(metrics["fitted_loss"])


def test_the_test_half_changes_nothing_but_f1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = small_table()
    monkeypatch.setitem(DATASETS, "thyroid", lambda: table)
    expected = measured(tmp_path)
    x = table.x.copy()
    x[protocol_a(table.y, 0).test] = 3.0
    monkeypatch.setitem(DATASETS, "thyroid", lambda: replace(table, x=x))
    changed = measured(tmp_path)
    assert changed["f1"] != expected["f1"]
    assert {**changed, "f1": 0} == {**expected, "f1": 0}


def test_the_two_fits_start_apart_and_do_not_see_the_held_out_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = small_table()
    monkeypatch.setitem(DATASETS, "thyroid", lambda: table)
    seen: list[tuple[int, set[bytes]]] = []
    judged: list[set[bytes]] = []
    judge = ablation.judge

    def noting_fit(
        members: list[Member[MixtureAutoencoder]],
        x: Tensor,
        settings: Settings,
        *,
        observer: Observer,
        checkpoint: Path,
        resume: bool,
    ) -> object:
        seen.extend((member.seed, rows_of(x[member.rows])) for member in members)
        return fit(members, x, settings, observer=observer, checkpoint=checkpoint, resume=resume)

    def noting_judge(
        job: Job, methods: Sequence[Method], of: Dataset, split: Split, fitted: Tensor, held_out: Tensor
    ) -> Judgement:
        judged.extend([rows_of(fitted), rows_of(held_out)])
        assert not torch.equal(methods[0].score(fitted), methods[1].score(fitted))
        return judge(job, methods, of, split, fitted, held_out)

    monkeypatch.setattr(ablation, "fit", noting_fit)
    monkeypatch.setattr(ablation, "judge", noting_judge)
    measured(tmp_path)
    (first, rows), (second, same_rows) = seen
    fitted, held_out = judged
    assert first != second
    assert rows == same_rows == fitted
    assert not fitted & held_out
    assert fitted | held_out == rows_of(torch.from_numpy(table.x[protocol_a(table.y, 0).normal]))
    assert len(held_out) == 60


def test_losses_and_shares_go_where_they_belong(fitted: FittedModel) -> None:
    x = torch.from_numpy(fitted.dataset.x[fitted.split.normal])
    methods = [fitted.method, fitted.method]
    judgement = ablation.judge(fitted.job, methods, fitted.dataset, fitted.split, x, x + 100)
    assert judgement.agreement == 1.0
    assert judgement.above == 1.0
    assert judgement.held_out_loss is not None
    assert judgement.fitted_loss is not None
    assert judgement.held_out_loss > judgement.fitted_loss
    same = ablation.judge(fitted.job, methods, fitted.dataset, fitted.split, x, x)
    assert same.above == pytest.approx(0.05, abs=0.005)


def test_the_contrast_is_of_rows_whose_columns_belong_together(fitted: FittedModel) -> None:
    x = torch.from_numpy(fitted.dataset.x[fitted.split.normal])
    with torch.no_grad():
        assert contrast(fitted.method, x, 0) > 0.8
        assert contrast(fitted.method, x[torch.zeros(100, dtype=torch.int64)], 0) == 0.5  # there is nothing to shuffle


def rows_of(x: Tensor) -> set[bytes]:
    return {row.numpy().tobytes() for row in x}


def test_two_ensembles_are_judged_like_two_models(small_thyroid: Dataset, tmp_path: Path) -> None:
    assert small_thyroid.name == "thyroid"
    metrics = measured(tmp_path, small_job(members=2))
    assert metrics["agreement"] > 0.7
    assert metrics["fitted_loss"] is metrics["held_out_loss"] is None


def test_the_frozen_loss_weighs_the_rate_as_the_method_does() -> None:
    method = fit_alone(small_rows(), small_job(method="DAGMM").settings, method="DAGMM")
    x = small_rows()[:50]
    with torch.no_grad():
        losses = method.losses(x, Draws([0]))
        expected = (0.1 * method.score(x) + losses["distortion"] + losses["penalty"]).mean()
        assert sum(method.frozen_terms(x).values()) == pytest.approx(float(expected))


def test_a_fit_that_fails_is_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = small_table()
    monkeypatch.setitem(DATASETS, "thyroid", lambda: replace(table, x=np.full_like(table.x, np.nan)))
    assert "step 1 of" in str(measured(tmp_path)["failed"])


def record(seed: int, metrics: Mapping[str, object], number: int = 0) -> Record:
    own = [job for job in candidates("thyroid", seed) if (job.method, job.h) == ("RaDOGAGA", "log")]
    return record_of("ablation", own[number], own[number].settings.to_json(), metrics, 1.0)


def test_the_table_names_what_differs_and_counts_failures() -> None:
    done = {"agreement": 0.75, "above": 0.06, "contrast": 0.8, "fitted_loss": -10.0, "held_out_loss": -8.0, "f1": 0.6}
    lines = render([record(0, done), record(1, {"failed": "step 1"}), record(0, done, 1)]).splitlines()
    assert (
        lines[2]
        == "| thyroid | RaDOGAGA(log d) | **`robust`** | 2 | 1 | 0.750 | 0.060 | 0.800 | -10.0 | -8.0 | 0.600 |"
    )
    assert lines[3].startswith("| thyroid | RaDOGAGA(log d) | averaging 0.0 | 1 | 0 | 0.750 |")
    assert render([record(0, {"failed": "step 1"})]).splitlines()[2].endswith("| 1 | 1 |  |  |  |  |  |  |")
