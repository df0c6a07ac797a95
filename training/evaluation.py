"""What an exported model folder is worth: its own scorer, run in onnxruntime over the test half it never saw."""

import hashlib
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
        name, seed, digest = manifest["dataset"], manifest["provenance"]["seed"], manifest["provenance"]["data_sha256"]
        scorer, threshold = manifest["graphs"]["scorer"], manifest["threshold"]
        path = folder / scorer["file"]
        if hashlib.sha256(path.read_bytes()).hexdigest() != scorer["sha256"]:
            raise EvaluationError(f"{path}: its sha256 is not the manifest's {scorer['sha256']}")
    except FileNotFoundError as error:
        raise EvaluationError(
            f"{folder} is no model folder like models/thyroid/1: {error.filename} is missing"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EvaluationError(f"{folder} is no model folder like models/thyroid/1 ({error!r})") from error
    if name not in DATASETS:
        raise EvaluationError(f"{folder}: dataset is '{name}', expected one of {', '.join(DATASETS)}")
    dataset = DATASETS[name]()
    if dataset.sha256 != digest:
        raise EvaluationError(f"{folder}: provenance.data_sha256 is {digest}, the data has {dataset.sha256}")
    test = protocol_a(dataset.y, seed).test
    y, scores = dataset.y[test], run_in_batches(open_session(path), dataset.x[test])
    return Evaluation(
        rows=len(test),
        anomalies=int(np.count_nonzero(y)),
        shipped_threshold=evaluate(y, scores, threshold),
        test_percentile=evaluate(y, scores, percentile_threshold(scores, dataset.contamination)),
    )
