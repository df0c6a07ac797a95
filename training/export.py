"""The only writer of model folders; `models/README.md` has the contract in words."""

import hashlib
import json
import logging
import platform
import shutil
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import jsonschema
import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from training.datasets.base import Dataset, Rows, Split
from training.densities.factorized import DeepFactorized
from training.densities.mixture import GaussianMixture
from training.jobs import FittedImages, FittedModel
from training.methods.base import Method
from training.methods.ensemble import Ensemble
from training.methods.factorized_radogaga import FactorizedRaDOGAGA
from training.methods.linear_start import CodedEnsemble
from training.metrics import evaluate
from training.nn.exportable import softplus
from training.thresholds import ScoreBins, contamination_threshold, percentile_threshold, score_bins

FORMAT_VERSION, IMAGE_FORMAT_VERSION = 2, 4
"""The least format that has what a table's model has, or an image's."""

UNSEALED = "0" * 64
"""What stands in a manifest in place of its own digest while that is computed."""

SCHEMA = Path(__file__).parents[1] / "models" / "manifest.schema.json"

PARITY = 1e-5
"""How far, relative to 1 or their size, onnxruntime's results may lie from PyTorch's."""

EXAMPLES = 16

LIBRARIES = ("torch", "onnx", "onnxruntime", "numpy", "scikit-learn")


class ExportError(Exception):
    """A model can't be exported; nothing was written."""


class Graph(nn.Module):
    """One function of a fitted method as a module, which is what the exporter takes; float32 in, float32 out.

    In between it computes in float64, as a fitted method does: the variances of the residual features are so small that
    float32's rounding of a reconstruction shows in the fifth digit of a score, and would show in another way on every
    machine.
    """

    def __init__(self, method: Method, function: str) -> None:
        super().__init__()
        self.method = method
        self.function = function

    def forward(self, rows: Tensor) -> Tensor:
        """Applies the method's function of that name to rows of shape (N, *)."""
        result: Tensor = getattr(self.method, self.function)(rows.to(self.method.scaler.offset.dtype))
        return result.float()


def check_place(out: Path, dataset: str) -> None:
    """Checks, before a long fit, that a model could be exported after it.

    Raises:
        ExportError: The folder can't be written, or the manifest's schema is missing.
    """
    if not SCHEMA.exists():
        raise ExportError(f"{SCHEMA} is missing: run from a checkout of the whole project")
    try:
        there = (out / dataset).exists()
        (out / dataset).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out / dataset):
            pass
        if not there:
            (out / dataset).rmdir()
    except OSError as error:
        raise ExportError(
            f"{out / dataset} can't be written ({error.strerror}); choose another folder with --out"
        ) from error


def export(model: FittedModel | FittedImages, out: Path) -> Path:
    """Writes the next version of a dataset's model folder, and returns its path.

    The folder is filled beside its place and renamed, so that it is there as a whole or not at all.

    Arguments:
        model: What to write.
        out: The folder that holds all models.

    Raises:
        ExportError: onnxruntime's results differ from PyTorch's by more than `PARITY`, the manifest breaks its
            schema, the disk is full, or another export took the version meanwhile.
    """
    return export_folder(out / model.dataset.name, lambda number, folder: write(model, number, folder))


def export_folder(parent: Path, fill: Callable[[int, Path], None]) -> Path:
    """Makes the next version's folder beside those of a dataset, and returns its path.

    Arguments:
        parent: The dataset's folder.
        fill: Given the version's number and a folder, writes what belongs into it.

    Raises:
        ExportError: The disk is full, or another export took the version meanwhile.
    """
    parent.mkdir(parents=True, exist_ok=True)
    taken = [int(path.name) for path in parent.iterdir() if path.name.isdecimal()]
    number = max(taken, default=0) + 1
    folder = Path(tempfile.mkdtemp(dir=parent, prefix=".export-"))
    try:
        fill(number, folder)
        folder.chmod(0o755)
        return folder.rename(parent / str(number))
    except OSError as error:
        raise ExportError(f"{parent / str(number)} can't be written ({error.strerror})") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # after the renaming there is nothing left to remove


def write(model: FittedModel | FittedImages, number: int, folder: Path) -> None:
    """Fills a model folder: three graphs, the density, examples and the manifest, in this order."""
    method, dataset, split = model.method, model.dataset, model.split
    graphs, scores = write_graphs(method, dataset.x[split.train], folder)
    density = write_density_of(method, folder)
    examples = example_rows(dataset, split)
    write_examples(method, examples, folder / "examples.json")
    threshold = contamination_threshold(scores, dataset.contamination)
    manifest = {
        "format_version": FORMAT_VERSION if dataset.image is None else IMAGE_FORMAT_VERSION,
        "dataset": dataset.name,
        "version": number,
        "method": model.job.method,
        "features": describe_features(dataset, split),
        **describe_image(dataset),
        "graphs": graphs,
        **describe_latents(model),
        "density": density,
        "examples": {**hashed(folder / "examples.json"), "rows": len(examples)},
        "threshold": threshold,
        "calibration": {
            "rule": "contamination",
            "contamination": dataset.contamination,
            "rows": len(scores),
            "flagged": count_flagged(scores, threshold),
        },
        "score_bins": asdict(score_bins(scores)),
        "provenance": describe_provenance(model, folder / "scorer.onnx", threshold),
        "sha256": UNSEALED,
    }
    write_manifest(manifest, folder / "manifest.json")


def count_flagged(scores: Rows, threshold: float) -> int:
    """Counts the scores (N,) that a threshold calls anomalous."""
    return int(np.count_nonzero(scores.astype(np.float64) >= threshold))


def describe_image(dataset: Dataset) -> dict[str, Any]:
    """Describes the shape of a row that is an image."""
    if dataset.image is None:
        return {}
    return {"image": dict(zip(("channels", "height", "width"), dataset.image, strict=True))}


@torch.no_grad()
def describe_latents(model: FittedModel | FittedImages) -> dict[str, Any]:
    """Describes where the latents of fitted images lie."""
    if model.dataset.image is None:
        return {}
    z = model.method.encode(torch.from_numpy(model.dataset.x[model.split.normal]).double())
    return {"latents": {"means": z.mean(dim=0).tolist(), "deviations": z.std(dim=0, correction=0).tolist()}}


def write_density_of(method: Method, folder: Path) -> dict[str, Any]:
    """Writes the density behind the scores, of whichever kind it is, and describes it."""
    if isinstance(method, FactorizedRaDOGAGA):
        return write_factorized(method, folder / "factorized.npz")
    return write_density(method, folder / "mixture.npz")


@torch.no_grad()
def write_factorized(method: FactorizedRaDOGAGA, path: Path) -> dict[str, Any]:
    """Writes a factorized density as it is computed with, and describes it and the score.

    Raises:
        ExportError: The score has another distortion than a squared error, which the contract can't describe.
    """
    settings, width = method.settings, method.scaler.width
    if (settings.distance, settings.h) != ("squared_error", "identity") or not (width == width[0]).all():
        raise ExportError(
            f"distance is {settings.distance} and h is {settings.h}: expected squared_error, identity and one scale for"
            " all pixels, for manifests can't say more of a score"
        )
    density = cast(DeepFactorized, method.density.density)
    arrays: dict[str, NDArray[np.float64]] = {}
    for i, (matrix, bias) in enumerate(zip(density.matrices, density.biases, strict=True)):
        arrays |= {f"matrices_{i}": softplus(matrix).numpy(), f"biases_{i}": bias.squeeze(-1).numpy()}
    for i, factor in enumerate(density.factors):
        arrays[f"factors_{i}"] = factor.tanh().squeeze(-1).numpy()
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return {
        **hashed(path),
        "kind": "factorized",
        "dimensions": density.dimensions,
        "filters": [matrix.shape[-2] for matrix in density.matrices][:-1],
        "distortion_weight": 0.0 if settings.rate_only else method.lambdas[0] / float(width[0]) ** 2,
    }


def write_density(method: Method, path: Path) -> dict[str, Any]:
    """Writes the mixture behind the scores, an ensemble's with a leading member axis, and centres, and describes it."""
    arrays: dict[str, NDArray[np.float64]] = {}
    described: dict[str, Any] = {"kind": "gaussian_mixture"}
    if isinstance(method, Ensemble):
        mixture = cast(GaussianMixture, method.stacked.density)
        members = len(mixture.means)
        arrays |= {"medians": method.medians.numpy(), "ranges": method.ranges.numpy()}
    else:
        mixture, members = cast(GaussianMixture, method.density), 1
    if isinstance(method, CodedEnsemble):
        codebook = method.codebook
        arrays |= {"centres": codebook.centres.numpy(), "centre_variance": codebook.variance.numpy()}
        described["centres"] = len(codebook.centres)
    arrays |= {"weights": mixture.log_weights.exp().numpy(), "means": mixture.means.numpy()}
    np.savez(path, **arrays, covariances=mixture.covariances.numpy())  # type: ignore[arg-type]
    components, dimensions = mixture.means.shape[-2:]
    return {**hashed(path), **described, "members": members, "components": components, "dimensions": dimensions}


def write_graphs(method: Method, half: Rows, folder: Path) -> tuple[dict[str, Any], Rows]:
    """Writes three graphs and checks them on the training half (N, M); returns their descriptions and its scores."""
    features, latent = half.shape[1], method.latent
    score, encode, decode = (Graph(method, function) for function in ("score", "encode", "decode"))
    graphs = {
        "scorer": write_graph(score, "x", features, folder / "scorer.onnx", "score", ["N"]),
        "encoder": write_graph(encode, "x", features, folder / "encoder.onnx", "z", ["N", latent]),
        "decoder": write_graph(decode, "z", latent, folder / "decoder.onnx", "x_hat", ["N", features]),
    }
    scores = check_parity(score, half, folder / "scorer.onnx")
    z = check_parity(encode, half, folder / "encoder.onnx")
    check_parity(decode, z, folder / "decoder.onnx")
    return graphs, scores


def describe_provenance(model: FittedModel | FittedImages, scorer: Path, threshold: float) -> dict[str, Any]:
    """Says where a model comes from, and what its scorer is worth on the test half."""
    dataset, test = model.dataset, model.split.test
    y, scores = dataset.y[test], run_in_batches(open_session(scorer), dataset.x[test])
    return {
        "recipe": model.job.recipe,
        "settings": model.job.settings.to_json(),
        "seed": model.job.seed,
        "data_sha256": dataset.sha256,
        "protocol": model.job.protocol,
        "libraries": {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
        "metrics": {
            "shipped_threshold": evaluate(y, scores, threshold),
            "test_percentile": evaluate(y, scores, percentile_threshold(scores, dataset.contamination)),
        },
    }


def write_manifest(manifest: dict[str, Any], path: Path) -> None:
    """Writes the manifest, once it satisfies the schema.

    Raises:
        ExportError: It does not; field and value are named.
    """
    text = manifest_text(manifest)
    try:
        jsonschema.validate(json.loads(text), json.loads(SCHEMA.read_text()))
    except jsonschema.ValidationError as error:
        raise ExportError(f"manifest.json: {error.json_path} is {error.instance!r}: {error.message}") from error
    path.write_text(text)


def manifest_text(manifest: dict[str, Any]) -> str:
    """Returns a manifest as it stands in its file, with the digest of that text if it has a field for it.

    It is the last one, and the digest is that of the file's bytes with 64 zeros in its own place.
    """
    if "sha256" not in manifest:
        return _as_json(manifest)
    text = _as_json({name: value for name, value in manifest.items() if name != "sha256"} | {"sha256": UNSEALED})
    before, _, behind = text.rpartition(UNSEALED)
    return before + hashlib.sha256(text.encode()).hexdigest() + behind


def _as_json(manifest: dict[str, Any]) -> str:
    return json.dumps(manifest, indent=1, allow_nan=False) + "\n"


def seal(path: Path) -> bool:
    """Gives a manifest its own digest, and one of `format_version` 1 the first one that has it, and leaves all else.

    Returns:
        Whether there was anything to do.

    Raises:
        ExportError: As `rewrite`.
    """
    manifest = parse_manifest(path)
    if "sha256" in manifest:
        return False
    newer = {"format_version": FORMAT_VERSION} if manifest.get("format_version") == 1 else {}
    rewrite(path, {**manifest, **newer, "sha256": UNSEALED})
    return True


def add_score_bins(path: Path, bins: ScoreBins) -> None:
    """Writes bins into a manifest, in place of others if there are any, and leaves the rest of it as it is.

    Raises:
        ExportError: The manifest is not written as `write_manifest` writes it, so that its bytes could not be kept;
            or it breaks its schema, or can't be written.
    """
    manifest = parse_manifest(path)
    described: dict[str, Any] = {}
    for name, value in manifest.items():
        if name != "score_bins":
            described[name] = value
        if name == "calibration":
            described["score_bins"] = asdict(bins)
    rewrite(path, described)


def parse_manifest(path: Path) -> dict[str, Any]:
    """Reads a manifest that is to be written again.

    Raises:
        ExportError: It can't be read, or is not written as `write_manifest` writes it, so that its bytes could not
            be kept, or was altered since.
    """
    try:
        text = path.read_text()
        manifest: dict[str, Any] = json.loads(text)
    except (OSError, ValueError) as error:
        raise ExportError(f"{path} can't be read ({error})") from error
    if not isinstance(manifest, dict) or manifest_text(manifest) != text:
        raise ExportError(
            f"{path}: is not written as the exporter writes it, or was altered since, so that more of it would change"
        )
    return manifest


def rewrite(path: Path, manifest: dict[str, Any]) -> None:
    """Replaces a manifest by another, as a whole or not at all.

    Raises:
        ExportError: It breaks its schema, or can't be written.
    """
    beside = path.with_name(f".{path.name}")
    try:
        write_manifest(manifest, beside)
        beside.replace(path)
    except OSError as error:
        raise ExportError(f"{path} can't be written ({error.strerror})") from error
    finally:
        beside.unlink(missing_ok=True)


def write_graph(
    graph: Graph, input_name: str, width: int, path: Path, output_name: str, output_shape: list[str | int]
) -> dict[str, Any]:
    """Exports a graph that takes rows of `width` values, and describes it for the manifest."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns that torchvision, which nobody needs, is missing
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        program = torch.onnx.export(
            graph,
            (torch.zeros(2, width),),
            input_names=[input_name],
            output_names=[output_name],
            dynamic_shapes=({0: torch.export.Dim("N", min=1)},),
            dynamo=True,
            verbose=False,
        )
    path.write_bytes(
        without_traces(cast("torch.onnx.ONNXProgram", program).model_proto).SerializeToString(deterministic=True)
    )
    return {
        **hashed(path),
        "input": {"name": input_name, "dtype": "float32", "shape": ["N", width]},
        "output": {"name": output_name, "dtype": "float32", "shape": output_shape},
    }


def without_traces(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns the model without what the exporter notes down of this machine: stack traces with paths and sources."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    return model


def open_session(path: Path) -> onnxruntime.InferenceSession:
    """Opens a graph on one thread of the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run_in_batches(session: onnxruntime.InferenceSession, rows: Rows) -> Rows:
    """Returns a graph's results for rows of shape (N, *)."""
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: part})[0] for part in batches_of(rows)])


def check_parity(graph: nn.Module, rows: Rows, path: Path) -> Rows:
    """Compares a file in onnxruntime with the module it was exported from, and returns onnxruntime's results.

    Raises:
        ExportError: A result differs by more than `PARITY`, relative to 1 or its size.
    """
    with torch.no_grad():
        expected = np.concatenate([graph(torch.from_numpy(part)).numpy() for part in batches_of(rows)])
    got = run_in_batches(open_session(path), rows)
    difference = np.abs(got - expected) / np.maximum(1, np.abs(expected))
    if not (difference <= PARITY).all():
        raise ExportError(
            f"{path.name}: onnxruntime differs from PyTorch by {difference.max():.1e}, allowed is {PARITY}"
        )
    return got


def batches_of(rows: Rows, size: int = 4096) -> list[Rows]:
    """Cuts rows (N, M) into parts of at most `size`, the first of a single row."""
    return [rows[:1], *(rows[start : start + size] for start in range(1, len(rows), size))]


def example_rows(dataset: Dataset, split: Split) -> Rows:
    """Picks rows of the training half, as many normal ones as anomalies where there are enough of both."""
    y = dataset.y[split.train]
    normal, anomalous = split.train[~y], split.train[y]
    half = min(EXAMPLES // 2, len(anomalous))
    rows: Rows = dataset.x[np.concatenate([normal[: EXAMPLES - half], anomalous[:half]])]
    return rows


def write_examples(method: Method, x: Rows, path: Path) -> None:
    """Writes rows with the results that PyTorch has for them."""
    with torch.no_grad():
        rows = torch.from_numpy(x)
        z = Graph(method, "encode")(rows)
        results = {"x": rows, "score": Graph(method, "score")(rows), "z": z, "x_hat": Graph(method, "decode")(z)}
    path.write_text(json.dumps({name: tensor.tolist() for name, tensor in results.items()}) + "\n")


def describe_features(dataset: Dataset, split: Split) -> list[dict[str, Any]]:
    """Describes the features for the manifest, numbers with their range in the fitted rows."""
    fitted = dataset.x[split.normal]
    described: list[dict[str, Any]] = []
    column = 0
    for feature in dataset.features:
        if feature.categories is None:
            values = fitted[:, column]
            span = {"minimum": float(values.min()), "maximum": float(values.max())}
            described.append({"kind": "numeric", "name": feature.name, **span})
        else:
            described.append({"kind": "categorical", "name": feature.name, "categories": list(feature.categories)})
        column += feature.columns
    return described


def hashed(path: Path) -> dict[str, str]:
    """Names a file and its digest for the manifest."""
    return {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
