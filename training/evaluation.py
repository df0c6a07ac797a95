"""What an exported model folder is worth: its own scorer, run in onnxruntime over the test half it never saw.

And what its scores were in training, for folders that were exported before manifests said so.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.datasets import DATASETS, IMAGES
from training.datasets.base import Dataset, Rows, Split, protocol_a
from training.export import add_score_bins, count_flagged, open_session, run_in_batches
from training.metrics import Metrics, evaluate
from training.thresholds import ScoreBins, percentile_threshold, score_bins


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


@dataclass(frozen=True)
class Exported:
    """A model folder that `export` wrote, with the data it was fitted on.

    Attributes:
        manifest: What the manifest says.
        dataset: The data.
        split: Its two halves.
        scorer: The graph that scores.
    """

    manifest: dict[str, Any]
    dataset: Dataset
    split: Split
    scorer: Path

    def scores(self, rows: NDArray[np.intp]) -> Rows:
        """Returns the scores (N,) of rows of the dataset, of which the indices (N,) are given."""
        return run_in_batches(open_session(self.scorer), self.dataset.x[rows])


def open_folder(folder: Path) -> Exported:
    """Opens a model folder, and loads the dataset it was fitted on.

    Raises:
        EvaluationError: The folder is not one that `export` wrote, or its data has changed.
        DatasetFileError: The dataset can't be had.
    """
    try:
        manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
        name, seed, digest = manifest["dataset"], manifest["provenance"]["seed"], manifest["provenance"]["data_sha256"]
        scorer = manifest["graphs"]["scorer"]
        for needed in ("threshold", "calibration"):
            manifest[needed]
        path = folder / scorer["file"]
        if hashlib.sha256(path.read_bytes()).hexdigest() != scorer["sha256"]:
            raise EvaluationError(f"{path}: its sha256 is not the manifest's {scorer['sha256']}")
    except FileNotFoundError as error:
        raise EvaluationError(
            f"{folder} is no model folder like models/thyroid/1: {error.filename} is missing"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EvaluationError(f"{folder} is no model folder like models/thyroid/1 ({error!r})") from error
    loaders: dict[str, Callable[[], Dataset]] = {**DATASETS, **IMAGES}
    if name not in loaders:
        raise EvaluationError(f"{folder}: dataset is '{name}', expected one of {', '.join(loaders)}")
    dataset = loaders[name]()
    if dataset.sha256 != digest:
        raise EvaluationError(f"{folder}: provenance.data_sha256 is {digest}, the data has {dataset.sha256}")
    return Exported(manifest, dataset, protocol_a(dataset.y, seed), path)


def evaluate_folder(folder: Path) -> Evaluation:
    """Scores the test half of the dataset that a model folder was fitted on.

    Raises:
        EvaluationError: The folder is not one that `export` wrote, or its data has changed.
        DatasetFileError: The dataset can't be had.
    """
    exported = open_folder(folder)
    dataset, test = exported.dataset, exported.split.test
    y, scores = dataset.y[test], exported.scores(test)
    return Evaluation(
        rows=len(test),
        anomalies=int(np.count_nonzero(y)),
        shipped_threshold=evaluate(y, scores, exported.manifest["threshold"]),
        test_percentile=evaluate(y, scores, percentile_threshold(scores, dataset.contamination)),
    )


def describe_scores(folder: Path) -> bool:
    """Scores the training half of the dataset that a model folder was fitted on, and writes the bins into its manifest.

    Bins that are there and that the scores fall into as the manifest says are left alone: on another machine scores
    round otherwise, and so would the bounds.

    Returns:
        Whether the manifest was written.

    Raises:
        EvaluationError: The folder is not one that `export` wrote, its data has changed, or its threshold does not
            flag as many rows as it did.
        DatasetFileError: The dataset can't be had.
        ExportError: The manifest can't be written.
    """
    exported = open_folder(folder)
    scores, calibration = exported.scores(exported.split.train), exported.manifest["calibration"]
    found = {"rows": len(scores), "flagged": count_flagged(scores, exported.manifest["threshold"])}
    for name, count in found.items():
        if count != calibration[name]:
            raise EvaluationError(f"{folder}: calibration.{name} is {calibration[name]}, the training half has {count}")
    if _describe(exported.manifest.get("score_bins"), scores):
        return False
    add_score_bins(folder / "manifest.json", score_bins(scores))
    return True


def _describe(bins: Any, scores: Rows) -> bool:  # noqa: ANN401 - whatever the manifest holds
    try:
        return ScoreBins(**bins).describe(scores)
    except (TypeError, ValueError):  # none, or something else
        return False
