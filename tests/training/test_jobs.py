"""What a fit by name sees of its dataset."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.conftest import small_job, small_table
from training.datasets import DATASETS
from training.datasets.base import protocol_a
from training.jobs import FittedModel, run


def fitted(monkeypatch: pytest.MonkeyPatch, x: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> FittedModel:
    table = replace(small_table(), x=x)
    monkeypatch.setitem(DATASETS, "thyroid", lambda: table)
    return run(small_job(2))


def test_neither_anomalies_nor_the_test_half_reach_the_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    table = small_table()
    expected = fitted(monkeypatch, table.x)
    normal = protocol_a(table.y, 2).normal
    x = np.full_like(table.x, np.nan)
    x[normal] = table.x[normal]
    got = fitted(monkeypatch, x).method.state_dict()
    for name, value in expected.method.state_dict().items():
        assert torch.equal(got[name], value), name
    assert np.array_equal(expected.split.normal, normal)


def test_a_model_knows_its_job(monkeypatch: pytest.MonkeyPatch) -> None:
    model = fitted(monkeypatch, small_table().x)
    assert model.settings == small_job(2).settings
    assert not model.method.training
