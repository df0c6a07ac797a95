"""What a ranking by scores is worth, measured on rows whose labels are known."""

from typing import TypedDict

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, precision_recall_fscore_support, roc_auc_score


class Metrics(TypedDict):
    """Ratios in [0, 1] and the number of flagged rows."""

    precision: float
    recall: float
    f1: float
    auroc: float
    average_precision: float
    flagged: int


def evaluate(y: NDArray[np.bool_], scores: NDArray[np.floating], threshold: float) -> Metrics:
    """Compares the decision `score >= threshold`, and the ranking behind it, with labels.

    AUROC and average precision don't depend on the threshold. The flagged count is told because scores tie:
    many rows of KDDCup99 are copies of each other.

    Arguments:
        y: Labels of shape (N,), True for an anomaly.
        scores: Scores of shape (N,); higher is more anomalous.
        threshold: The score from which a row is called an anomaly.
    """
    flagged = scores.astype(np.float64) >= threshold  # as wide as the threshold, which numpy would round otherwise
    precision, recall, f1, _ = precision_recall_fscore_support(y, flagged, average="binary", zero_division=0.0)
    return Metrics(
        precision=float(precision),
        recall=float(recall),
        f1=float(f1),
        auroc=float(roc_auc_score(y, scores)),
        average_precision=min(1.0, float(average_precision_score(y, scores))),  # a sum of shares may round above 1
        flagged=int(flagged.sum()),
    )
