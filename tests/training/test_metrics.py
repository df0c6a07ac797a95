"""Metrics by hand."""

import numpy as np
import pytest

from training.metrics import evaluate


def test_metrics_by_hand() -> None:
    y = np.array([False, False, False, True, True])
    metrics = evaluate(y, np.array([-2.0, -1.0, 3.0, 2.0, 4.0]), 2.5)
    assert (metrics["precision"], metrics["recall"], metrics["f1"], metrics["flagged"]) == (0.5, 0.5, 0.5, 2)
    assert metrics["auroc"] == pytest.approx(5 / 6)
    assert metrics["average_precision"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)


def test_nothing_flagged_is_worth_nothing() -> None:
    metrics = evaluate(np.array([False, True]), np.array([0.0, 1.0]), 2.0)
    assert (metrics["precision"], metrics["recall"], metrics["f1"], metrics["flagged"]) == (0.0, 0.0, 0.0, 0)


def test_a_score_on_the_threshold_is_flagged() -> None:
    scores = np.array([0.0, 1.1], dtype=np.float32)
    assert evaluate(np.array([False, True]), scores, float(scores[1]))["flagged"] == 1
    assert evaluate(np.array([False, True]), scores, float(np.nextafter(float(scores[1]), 2)))["flagged"] == 0
