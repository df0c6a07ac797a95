"""A model of 2 x 2 images with a factorized density: two latents, linear both ways, and logistic distributions."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from service.seals import UNSEALED
from tests.manifests import write_manifest
from tests.service.kinds import hashed

DATASET = "squares"

Json = dict[str, Any]
Array = NDArray[np.float64]

COLUMNS, LATENT, WEIGHT = 4, 2, 0.25

ENCODING: Array = np.array([[1.0, 0.5], [1.0, -0.5], [1.0, 0.5], [1.0, -0.5]])
DECODING: Array = np.array([[0.25, 0.25, 0.25, 0.25], [0.5, -0.5, 0.5, -0.5]])

SLOPES: Array = np.array([0.5, 2.0])
CENTRES: Array = np.array([1.0, -1.0])
"""Of the latents' logistic distributions: the rate is that of the unit box, and what is out of it in x is squared."""


def arrays() -> dict[str, Array]:
    """Returns the density's arrays."""
    return {"matrices_0": SLOPES[:, None, None], "biases_0": -(SLOPES * CENTRES)[:, None]}


def answers(x: Array) -> Json:
    """Returns what the graphs make of rows (N, 4), by other means."""
    z = x @ ENCODING
    x_hat = z @ DECODING
    upper, lower = (1 / (1 + np.exp(-SLOPES * (z + half - CENTRES))) for half in (0.5, -0.5))
    score = -np.log(upper - lower).sum(axis=1) + WEIGHT * ((x - x_hat) ** 2).sum(axis=1)
    return {"x": x.tolist(), "score": score.tolist(), "z": z.tolist(), "x_hat": x_hat.tolist()}


def make(models: Path) -> Path:
    """Makes a model folder under `models`."""
    folder = models / DATASET / "1"
    folder.mkdir(parents=True)
    np.savez(folder / "factorized.npz", **arrays())  # type: ignore[arg-type]
    x = np.random.default_rng(0).integers(0, 9, (6, COLUMNS)).astype(np.float64)
    known = answers(x)
    (folder / "examples.json").write_text(json.dumps(known))
    z = np.array(known["z"])
    features = [{"kind": "numeric", "name": f"p{i}", "minimum": 0.0, "maximum": 8.0} for i in range(COLUMNS)]
    manifest = {
        "format_version": 4,
        "dataset": DATASET,
        "version": 1,
        "method": "RaDOGAGA",
        "features": features,
        "image": {"channels": 1, "height": 2, "width": 2},
        "graphs": {
            "scorer": graph(folder, "scorer", "x", COLUMNS, "score", []),
            "encoder": graph(folder, "encoder", "x", COLUMNS, "z", [LATENT]),
            "decoder": graph(folder, "decoder", "z", LATENT, "x_hat", [COLUMNS]),
        },
        "latents": {"means": z.mean(axis=0).tolist(), "deviations": z.std(axis=0).tolist()},
        "density": {
            **hashed(folder / "factorized.npz"),
            "kind": "factorized",
            "dimensions": LATENT,
            "filters": [],
            "distortion_weight": WEIGHT,
        },
        "examples": {**hashed(folder / "examples.json"), "rows": len(x)},
        "threshold": 6.0,
        "calibration": {"rule": "contamination", "contamination": 0.2, "rows": 10, "flagged": 2},
        "provenance": {
            "recipe": "images",
            "settings": {},
            "seed": 0,
            "data_sha256": "0" * 64,
            "protocol": "A",
            "libraries": {},
        },
        "sha256": UNSEALED,
    }
    write_manifest(folder / "manifest.json", manifest)
    return folder


def graph(folder: Path, name: str, source: str, inputs: int, target: str, outputs: list[int]) -> Json:
    """Writes one of the three graphs."""
    constants = {"encoding": ENCODING, "decoding": DECODING, "slopes": SLOPES, "centres": CENTRES}
    constants |= {"half": np.array(0.5), "weight": np.array(WEIGHT)}
    nodes = [helper.make_node("Cast", [source], ["wide"], to=TensorProto.DOUBLE)]

    def add(operator: str, *names: str) -> None:
        nodes.append(helper.make_node(operator, list(names[:-1]), [names[-1]]))

    if name == "decoder":
        add("MatMul", "wide", "decoding", "found")
    else:
        add("MatMul", "wide", "encoding", "code")
    if name == "encoder":
        add("Identity", "code", "found")
    if name == "scorer":
        add("MatMul", "code", "decoding", "x_hat")
        add("Sub", "wide", "x_hat", "off")
        add("Mul", "off", "off", "squared")
        add("Sub", "code", "centres", "centred")
        for side, operator in (("above", "Add"), ("below", "Sub")):
            add(operator, "centred", "half", f"{side}_edge")
            add("Mul", f"{side}_edge", "slopes", f"{side}_logit")
            add("Sigmoid", f"{side}_logit", side)
        add("Sub", "above", "below", "box")
        add("Log", "box", "log_box")
        constants["columns"] = np.array([1])
        for summand in ("log_box", "squared"):
            nodes.append(helper.make_node("ReduceSum", [summand, "columns"], [f"{summand}_sum"], keepdims=0))
        add("Mul", "squared_sum", "weight", "distortion")
        add("Sub", "distortion", "log_box_sum", "found")
    nodes.append(helper.make_node("Cast", ["found"], [target], to=TensorProto.FLOAT))
    shapes: list[list[str | int]] = [["N", inputs], ["N", *outputs]]
    ends = [
        helper.make_tensor_value_info(end, TensorProto.FLOAT, shape)
        for end, shape in zip((source, target), shapes, strict=True)
    ]
    used = {part for node in nodes for part in node.input}
    kept = [numpy_helper.from_array(value, part) for part, value in constants.items() if part in used]
    made = helper.make_graph(nodes, name, ends[:1], ends[1:], kept)
    path = folder / f"{name}.onnx"
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    described = {
        side: {"name": end, "dtype": "float32", "shape": shape}
        for side, end, shape in zip(("input", "output"), (source, target), shapes, strict=True)
    }
    return {**hashed(path), **described}
