"""What an exported model folder is worth: its own scorer, run in onnxruntime over the test half it never saw."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.datasets import DATASETS
from training.datasets.base import protocol_a
from training.export import open_session, run_in_batches
from training.metrics import Metrics, evaluate
from training.thresholds import percentile_threshold


class EvaluationError(Exception):
    """A folder can't be evaluated; the text says why."""


@dataclass(frozen=True)
class Evaluation:
    """The test half judged by two thresholds.

    Attributes:
        rows: The number of rows in the test half.
        anomalies: The number of anomalies among them.
        shipped_threshold: Judged by the threshold of the manifest.
        test_percentile: Judged by the paper's, a percentile of the test scores.
    """

    rows: int
    anomalies: int
    shipped_threshold: Metrics
    test_percentile: Metrics


def evaluate_folder(folder: Path) -> Evaluation:
    """Scores the test half of the dataset that a model folder was fitted on.

    Raises:
        EvaluationError: The folder is not one that `export` wrote, or its data has changed.
        DatasetFileError: The dataset can't be had.
    """
    try:
        manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
        name, provenance = manifest["dataset"], manifest["provenance"]
        scorer = open_session(folder / manifest["graphs"]["scorer"]["file"])
    except (OSError, ValueError, KeyError) as error:
        raise EvaluationError(f"{folder} is not a model folder ({error!r})") from error
    if name not in DATASETS:
        raise EvaluationError(f"{folder}: dataset is '{name}', expected one of {', '.join(DATASETS)}")
    dataset = DATASETS[name]()
    if dataset.sha256 != provenance["data_sha256"]:
        raise EvaluationError(
            f"{folder}: provenance.data_sha256 is {provenance['data_sha256']}, the data has {dataset.sha256}"
        )
    test = protocol_a(dataset.y, provenance["seed"]).test
    y, scores = dataset.y[test], run_in_batches(scorer, dataset.x[test])
    return Evaluation(
        rows=len(test),
        anomalies=int(np.count_nonzero(y)),
        shipped_threshold=evaluate(y, scores, manifest["threshold"]),
        test_percentile=evaluate(y, scores, percentile_threshold(scores, dataset.contamination)),
    )
