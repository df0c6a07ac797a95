"""Settings are judged by the training half; neither the test half nor an anomaly's label is looked at."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from training.experiments.selection import CANDIDATES, Judgement, jobs, measure, render

from tests.conftest import record_of, small_job, small_table
from training.datasets import DATASETS
from training.datasets.base import Dataset, Split, protocol_a
from training.experiments import selection
from training.experiments.records import Record
from training.fitting import Observer, fit
from training.jobs import FittedModel
from training.methods.radogaga import RaDOGAGA
from training.settings import Settings


def test_candidates_for_every_seed() -> None:
    listed = jobs(["thyroid", "arrhythmia"], [0, 1])
    assert len(listed) == 2 * (len(CANDIDATES["thyroid"]) + len(CANDIDATES["arrhythmia"]))
    assert {job.settings.scaling for job in listed if job.dataset == "arrhythmia"} == {"feature", "table"}


@pytest.mark.usefixtures("small_thyroid")
def test_a_simple_table_is_learned_well() -> None:
    metrics = measure(small_job(), lambda _: None)
    assert metrics["agreement"] > 0.7
    assert metrics["above"] == pytest.approx(0.05, abs=0.07)
    assert abs(metrics["fitted_loss"] - metrics["held_out_loss"]) < 0.2 * abs(metrics["fitted_loss"])


def test_the_test_half_and_the_order_of_labels_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    table = small_table()
    monkeypatch.setitem(DATASETS, "thyroid", lambda: table)
    expected = measure(small_job(), lambda _: None)
    x = table.x.copy()
    x[protocol_a(table.y, 0).test] = np.nan
    monkeypatch.setitem(DATASETS, "thyroid", lambda: replace(table, x=x))
    assert measure(small_job(), lambda _: None) == expected


def test_the_two_fits_start_apart_and_do_not_see_the_held_out_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    table = small_table()
    monkeypatch.setitem(DATASETS, "thyroid", lambda: table)
    seen: list[tuple[int, set[bytes]]] = []
    judged: list[set[bytes]] = []
    judge = selection.judge

    def noting_fit(method: RaDOGAGA, x: Tensor, settings: Settings, seed: int, *, observer: Observer) -> None:
        seen.append((seed, rows_of(x)))
        fit(method, x, settings, seed, observer=observer)

    def noting_judge(methods: list[RaDOGAGA], of: Dataset, split: Split, fitted: Tensor, held_out: Tensor) -> Judgement:
        judged.extend([rows_of(fitted), rows_of(held_out)])
        assert not torch.equal(methods[0].score(fitted), methods[1].score(fitted))
        return judge(methods, of, split, fitted, held_out)

    monkeypatch.setattr(selection, "fit", noting_fit)
    monkeypatch.setattr(selection, "judge", noting_judge)
    measure(small_job(), lambda _: None)
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
    judgement = selection.judge(methods, fitted.dataset, fitted.split, x, x + 100)
    assert judgement.agreement == 1.0
    assert judgement.above == 1.0
    assert judgement.held_out_loss > judgement.fitted_loss
    assert selection.judge(methods, fitted.dataset, fitted.split, x, x).above == pytest.approx(0.05, abs=0.005)


def rows_of(x: Tensor) -> set[bytes]:
    return {row.numpy().tobytes() for row in x}


def test_a_fit_that_fails_is_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    table = small_table()
    monkeypatch.setitem(DATASETS, "thyroid", lambda: replace(table, x=np.full_like(table.x, np.nan)))
    assert "step 1 of" in measure(small_job(), lambda _: None)["failed"]


def record(seed: int, metrics: Mapping[str, object]) -> Record:
    return record_of("selection", jobs(["thyroid"], [seed])[2], metrics)


def test_the_table_counts_failures() -> None:
    done = {"agreement": 0.75, "above": 0.06, "fitted_loss": -10.0, "held_out_loss": -8.0}
    line = render([record(0, done), record(1, {"failed": "step 1"})]).splitlines()[2]
    expected = "| thyroid | 0.001 | cosine | 0.5 | 0.0001 | feature | 2 | 1 | 0.750 | 0.060 | -10.0 | -8.0 |"
    assert line == expected
    assert render([record(0, {"failed": "step 1"})]).splitlines()[2].endswith("| 1 | 1 |  |  |  |  |")
