"""A model of a table with every kind of feature: its latents are its rows, and its score is a weighted sum of them."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from service.graphs import Matrix
from service.seals import UNSEALED
from tests.manifests import write_manifest

DATASET = "transactions"

Json = dict[str, Any]

FEATURES: list[Json] = [
    {"kind": "numeric", "name": "amount", "minimum": -10.0, "maximum": 1000.0},
    {"kind": "numeric", "name": "age", "minimum": 18.0, "maximum": 90.0, "missing": {"fill": 40.5, "indicator": True}},
    {"kind": "numeric", "name": "fee", "minimum": 0.0, "maximum": 5.0, "missing": {"fill": 0.1, "indicator": False}},
    {"kind": "boolean", "name": "member"},
    {"kind": "boolean", "name": "abroad", "missing": True},
    {"kind": "categorical", "name": "city", "categories": ["Bern", "Genève"], "other": True, "missing": True},
    {"kind": "categorical", "name": "card", "categories": ["gold", "plain"]},
    {"kind": "categorical", "name": "branch", "categories": ["7", "12", "-3.5"], "other": True},
    {"kind": "timestamp", "name": "at", "parts": ["time_of_day", "day_of_week", "day_of_year"], "missing": True},
    {"kind": "timestamp", "name": "opened", "parts": ["day_of_week"]},
]

IGNORED = ["id", "label"]

COLUMNS = (
    "amount age age=<missing> fee member abroad abroad=<missing> city=Bern city=Genève city=<other> city=<missing>"
    " card=gold card=plain branch=7 branch=12 branch=-3.5 branch=<other> at=sin(time_of_day) at=cos(time_of_day)"
    " at=sin(day_of_week) at=cos(day_of_week) at=sin(day_of_year) at=cos(day_of_year) at=<missing>"
    " opened=sin(day_of_week) opened=cos(day_of_week)"
).split()

P_VALUES: Json = {"rows": 9, "scores": [-50.0, 0.0, 1.0, 40.0], "above": [9, 6, 5, 1]}

RECORDS: list[Json] = [
    {
        "amount": 12.5,
        "age": 33,
        "fee": 0.25,
        "member": True,
        "abroad": False,
        "city": "Bern",
        "card": "gold",
        "branch": "7",
        "at": "2026-01-05T06:00:00Z",
        "opened": "1969-12-31",
    },
    {
        "amount": -3,
        "age": None,
        "fee": None,
        "member": 0,
        "abroad": None,
        "city": None,
        "card": "plain",
        "branch": 12,
        "at": None,
        "opened": "2024-02-29T23:59:59.999999+02:00",
    },
    {
        "amount": 1e5,
        "age": 91.5,
        "fee": 0,
        "member": False,
        "abroad": 1,
        "city": "Zürich: West",
        "card": "black",
        "branch": -3.5,
        "at": "2024-12-31 12:00",
        "opened": "2000-01-01T00:00:00-11:30",
    },
]
"""Records with what is usual, with what may be missing, and with what was never seen."""


def weights(width: int) -> NDArray[np.float64]:
    """What a row's values count in its score (M,)."""
    return np.random.default_rng(0).normal(scale=10, size=width).round(3)


def score_of(x: Matrix) -> NDArray[np.float32]:
    """Scores rows (N, M) without a graph."""
    scores: NDArray[np.float32] = (x.astype(np.float64) * weights(x.shape[1])).sum(axis=1).astype(np.float32)
    return scores


def make(
    models: Path,
    features: Sequence[Json] = FEATURES,
    columns: Sequence[str] = COLUMNS,
    version: int = 1,
    **changes: object,
) -> Path:
    """Makes a model folder under `models`.

    Arguments:
        models: The folder of models.
        features: The manifest's features.
        columns: The columns that they have.
        version: The model's version.
        changes: What else its manifest has; None takes a field away.
    """
    folder, width = models / DATASET / str(version), len(columns)
    folder.mkdir(parents=True)
    graphs = {
        "scorer": graph(folder, "scorer", "x", "score", width),
        "encoder": graph(folder, "encoder", "x", "z", width),
        "decoder": graph(folder, "decoder", "z", "x_hat", width),
    }
    np.savez(folder / "mixture.npz", weights=np.ones(1), means=np.zeros((1, 1)), covariances=np.ones((1, 1, 1)))
    x = np.random.default_rng(1).random((4, width)).round(2).astype(np.float32)
    rows = {"x": x.tolist(), "score": score_of(x).tolist(), "z": x.tolist(), "x_hat": x.tolist()}
    (folder / "examples.json").write_text(json.dumps(rows))
    density = {"kind": "gaussian_mixture", "members": 1, "components": 1, "dimensions": 1}
    manifest = {
        "format_version": 3,
        "dataset": DATASET,
        "version": version,
        "method": "RaDOGAGA",
        "features": list(features),
        "ignored": IGNORED,
        "graphs": graphs,
        "density": {**hashed(folder / "mixture.npz"), **density},
        "examples": {**hashed(folder / "examples.json"), "rows": len(x)},
        "threshold": 40.0,
        "calibration": {"rule": "false_positive_rate", "false_positive_rate": 0.1, "rows": 9, "flagged": 1},
        "p_values": P_VALUES,
        "provenance": {
            "recipe": "robust",
            "settings": {},
            "seed": 0,
            "data_sha256": "0" * 64,
            "protocol": "unlabelled",
            "libraries": {},
        },
        "sha256": UNSEALED,
    }
    manifest |= changes
    write_manifest(folder / "manifest.json", {name: value for name, value in manifest.items() if value is not None})
    return folder


def hashed(path: Path) -> Json:
    """Describes a file."""
    return {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def graph(folder: Path, name: str, source: str, target: str, width: int) -> Json:
    """Writes a graph that scores rows or leaves them as they are."""
    shape: list[str | int] = ["N", width]
    outputs: list[str | int] = ["N"] if name == "scorer" else shape
    nodes, constants = [helper.make_node("Identity", [source], [target])], []
    if name == "scorer":
        constants = [
            numpy_helper.from_array(weights(width), "w"),
            numpy_helper.from_array(np.array([1], dtype=np.int64), "axes"),
        ]
        nodes = [
            helper.make_node("Cast", [source], ["wide"], to=TensorProto.DOUBLE),
            helper.make_node("Mul", ["wide", "w"], ["weighed"]),
            helper.make_node("ReduceSum", ["weighed", "axes"], ["sum"], keepdims=0),
            helper.make_node("Cast", ["sum"], [target], to=TensorProto.FLOAT),
        ]
    made = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info(source, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(target, TensorProto.FLOAT, outputs)],
        constants,
    )
    path = folder / f"{name}.onnx"
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    tensor = {"dtype": "float32"}
    return {
        **hashed(path),
        "input": {**tensor, "name": source, "shape": shape},
        "output": {**tensor, "name": target, "shape": outputs},
    }
