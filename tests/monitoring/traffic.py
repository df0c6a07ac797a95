"""Requests of many kinds: good ones, bad ones, rows that drift, categories that nobody knows, and too many at once."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from service.detector import Detector
from service.manifest import read_manifest
from service.runtime import Runtime
from tests.docker.configurations import parsed
from tests.server import MODELS

DATASETS = ("arrhythmia", "kddcup-rev", "kddcup99", "thyroid")
VERSION = 2
POOL = 20_000
"""Rows that typical ones are chosen from."""

Rows = NDArray[np.float64]


def examples(dataset: str) -> Rows:
    """Returns the rows (16, M) that the newest model of a dataset carries."""
    return np.asarray(parsed(MODELS / dataset / str(VERSION) / "examples.json")["x"], dtype=np.float64)


class Typical:
    """Rows of a dataset without categories, whose scores are spread over the bins as in training.

    They are examples and what lies between two of them, a little noisy, chosen by their scores.

    Arguments:
        dataset: Whose.
    """

    def __init__(self, dataset: str) -> None:
        rng, x = np.random.default_rng(0), examples(dataset)
        detector = Detector.load(MODELS / dataset / str(VERSION), Runtime("cpu"))
        bins = detector.manifest.score_bins
        assert bins is not None
        way = rng.random((POOL, 1))
        mixed = way * x[rng.integers(len(x), size=POOL)] + (1 - way) * x[rng.integers(len(x), size=POOL)]
        self._pool = (mixed * rng.normal(1, 0.02, mixed.shape)).astype(np.float32)
        number = np.searchsorted(bins.upper_bounds, detector.score(self._pool).scores)
        counts = np.bincount(number, minlength=len(bins.rows))
        assert counts.all(), f"no row of '{dataset}' for each bin: {counts}"
        self._chances = np.asarray(bins.rows)[number] / counts[number] / sum(bins.rows)

    def draw(self, rows: int, rng: np.random.Generator) -> Rows:
        """Draws rows (N, M)."""
        chosen: Rows = self._pool[rng.choice(POOL, rows, p=self._chances)].astype(np.float64)
        return chosen


def known(dataset: str, rows: int, rng: np.random.Generator) -> Rows:
    """Draws rows (N, M) from a dataset's examples."""
    given = examples(dataset)
    drawn: Rows = given[rng.integers(len(given), size=rows)]
    return drawn


def drifted(dataset: str, rows: int, rng: np.random.Generator) -> Rows:
    """Draws rows (N, M) with uniform values up to twice the training's range."""
    features = read_manifest(MODELS / dataset / str(VERSION)).features
    highest = np.asarray([getattr(feature, "maximum", 1.0) for feature in features])
    drawn: Rows = rng.uniform(0, 2, (rows, len(features))) * highest
    return drawn


def unseen(rows: int) -> Rows:
    """Returns rows of KDDCup99 (N, 121) without any category."""
    return np.zeros((rows, examples("kddcup99").shape[1]))


def score(client: httpx.Client, dataset: str, rows: Rows) -> list[float]:
    """Returns the scores (N,) of rows (N, M)."""
    answer = client.post("/score", json={"dataset": dataset, "vectors": rows.tolist()})
    assert answer.status_code == httpx.codes.OK, answer.text
    scores: list[float] = answer.json()["scores"]
    return scores


def refused(client: httpx.Client) -> set[str]:
    """Sends what is refused, and returns the kinds of the errors."""
    bad: list[dict[str, Any]] = [
        {"json": {"dataset": "made-up", "vectors": [[1.0]]}},
        {"json": {"dataset": "thyroid", "vectors": [[1.0]]}},
        {"json": {"dataset": "thyroid", "vectors": [[None] * 6]}},
        {"content": b"{", "headers": {"content-type": "application/json"}},
        {"content": b"", "headers": {"content-type": "text/html"}},
    ]
    return {client.post("/score", **body).json()["kind"] for body in bad}


def others(client: httpx.Client) -> list[float]:
    """Asks the other routes with rows, and returns the scores (N,) of Thyroid's rows that one of them gives."""
    x = examples("thyroid")
    latents = client.post("/encode", json={"dataset": "thyroid", "vectors": x.tolist()}).json()["latents"]
    assert client.post("/decode", json={"dataset": "thyroid", "latents": latents}).status_code == httpx.codes.OK
    tensor = {"name": "vectors", "datatype": "FP32", "shape": x.shape, "data": x.ravel().tolist()}
    scores: list[float] = client.post("/v2/models/thyroid/infer", json={"inputs": [tensor]}).json()["outputs"][0][
        "data"
    ]
    return scores


def crowd(client: httpx.Client, requests: int = 24) -> list[int]:
    """Sends many requests at once, half of them too long to be answered in one go, and returns their statuses."""
    rows = known("kddcup99", 1500, np.random.default_rng(0)).tolist()
    long = json.dumps({"dataset": "kddcup99", "vectors": rows}).encode()
    short = json.dumps({"dataset": "kddcup99", "vectors": rows[:1]}).encode()
    header = {"content-type": "application/json"}

    def send(number: int) -> int:
        return client.post("/score", content=short if number % 2 else long, headers=header).status_code

    with ThreadPoolExecutor(requests) as pool:
        return list(pool.map(send, range(requests)))
