"""A loaded model: arrays in, arrays out. It has never heard of HTTP."""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from service.density import check_density, check_scores, most_bytes
from service.encoding import Encoder
from service.errors import StartError
from service.files import Folder
from service.graphs import Graph, Matrix
from service.inspection import check_graph
from service.manifest import Float32, HashedFile, Manifest, manifest_of, open_model, sentences
from service.manifest import Graph as GraphFile
from service.p_values import PValueTable
from service.reference import Reference
from service.runtime import Runtime
from service.signatures import Signers
from service.thresholds import Change, threshold_in_force

GraphName = Literal["scorer", "encoder", "decoder"]

TOLERANCE = 1e-4
"""How far, relative to 1 or their size, replayed examples may lie from what the exporter saw: other processors and
GPUs round otherwise. On one machine the exporter itself holds PyTorch and onnxruntime to 1e-5."""


MOST_GRAPH_BYTES = 64 * 2**20
"""The largest shipped graph has 0.2 MiB."""

BYTES_PER_EXAMPLE_VALUE, SPARE_EXAMPLE_BYTES = 64, 65_536
"""What examples may take in JSON: for each number twice what its digits are, and for all that is around them."""


class ExampleRows(BaseModel):
    """Rows with the results the exporter had for them."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    x: list[list[Float32]]
    score: list[Float32]
    z: list[list[Float32]]
    x_hat: list[list[Float32]]


@dataclass(frozen=True)
class Scores:
    """Scores (N,), each an energy, -log p: higher is more anomalous; and whether each row is called an anomaly.

    Scores are widened to float64, as the threshold is: numpy would round the threshold to float32 to compare the two,
    and a client who compares what it was answered would find another decision.
    """

    scores: NDArray[np.float64]
    anomalies: NDArray[np.bool_]


class Detector:
    """The three graphs of one model folder, with its manifest.

    All arrays are float32; rows x are raw feature values of shape (N, M), latents z have shape (N, L).

    Attributes:
        manifest: What the folder holds.
        reference: What it was fitted on.
        threshold: The score from which a row is called an anomaly.
        change: The change that is in force of the manifest's threshold, if there is one.
        columns: The names of the M values of a row.
        encoder: Turns raw values into rows, and rows into records.
        p_values: Looks up p-values, if the manifest has scores for that.
        latent_columns: The names of the L values of a latent.
    """

    def __init__(self, manifest: Manifest, graphs: dict[str, Graph]) -> None:
        self.manifest = manifest
        self._graphs = graphs
        self.reference = Reference(manifest)
        self.threshold = manifest.threshold
        self.change: Change | None = None
        self.columns = manifest.columns
        self.encoder = Encoder.of(manifest)
        self.p_values = PValueTable(manifest.p_values) if manifest.p_values else None
        self.latent_columns = tuple(f"z{i}" for i in range(manifest.latent_width))

    @classmethod
    def load(cls, folder: Path, runtime: Runtime, signers: Signers | None = None) -> "Detector":
        """Loads a model folder and replays its examples.

        Every file is read once, with a bound, and checked against the manifest before anything is made of its bytes.

        Arguments:
            folder: ``<models>/<dataset>/<version>``; links in it may not lead out of ``<models>``.
            runtime: What makes the sessions.
            signers: Who has to have signed the manifest, if signatures are demanded.

        Raises:
            StartError: The folder breaks the contract in any way; the text names file, field and value.
        """
        with open_model(folder) as opened:
            manifest = manifest_of(opened, signers)
            contents = read_files(opened, manifest)
        graphs = {
            name: _load_graph(contents[graph.file], folder / graph.file, name, graph, runtime)
            for name, graph in graphs_of(manifest).items()
        }
        detector = cls(manifest, graphs)
        rows = detector.replay(contents[manifest.examples.file], folder / manifest.examples.file)
        if manifest.density.kind == "factorized":
            file, known = manifest.density.file, {name: np.asarray(values) for name, values in rows}
            check_scores(contents[file], manifest.density, folder / file, known, TOLERANCE)
        return detector

    def changed(self, change: Change | None) -> "Detector":
        """Returns the same model with its threshold changed, or with that of the manifest."""
        other = copy.copy(self)
        other.change = change
        other.threshold = threshold_in_force(self.manifest, change)
        return other

    @property
    def provider(self) -> str:
        """The execution provider that the sessions really got."""
        return self._graphs["scorer"].provider

    def score(self, x: Matrix) -> Scores:
        """Scores rows (N, M), and decides."""
        return self.decide(self.run("scorer", x))

    def decide(self, scores: Matrix) -> Scores:
        """Calls rows an anomaly or not, by their scores (N,) as the scorer gives them."""
        widened = scores.astype(np.float64)
        return Scores(widened, widened >= self.threshold)

    def decide_few(self, scores: Matrix) -> tuple[list[float], list[bool]]:
        """The same for a few rows, which are dealt with one by one before numpy would have begun."""
        widened: list[float] = scores.tolist()
        threshold = self.threshold
        return widened, [score >= threshold for score in widened]

    def encode(self, x: Matrix) -> Matrix:
        """Returns latents (N, L) of rows (N, M)."""
        return self.run("encoder", x)

    def decode(self, z: Matrix) -> Matrix:
        """Returns rows (N, M), in raw feature values, for latents (N, L)."""
        return self.run("decoder", z)

    def replay(self, examples: bytes, path: Path) -> ExampleRows:
        """Checks that the examples still have the results they were exported with, and returns them.

        Raises:
            StartError: The examples can't be read, a graph fails on them, or a result differs by more than `TOLERANCE`.
        """
        try:
            rows = ExampleRows.model_validate_json(examples)
            count, manifest = self.manifest.examples.rows, self.manifest
            x = _example_matrix("x", rows.x, (count, manifest.width))
            z = _example_matrix("z", rows.z, (count, manifest.latent_width))
            for name, got in self._results(x, z, path).items():
                _compare(name, got, np.asarray(getattr(rows, name), dtype=np.float64), path)
            return rows
        except ValidationError as error:
            raise StartError(f"{path}: {sentences(error)}") from error
        except ValueError as error:
            raise StartError(f"{path}: {error}") from error

    def _results(self, x: Matrix, z: Matrix, path: Path) -> dict[str, NDArray[Any]]:
        try:
            return {"score": self.score(x).scores, "z": self.encode(x), "x_hat": self.decode(z)}
        except Exception as error:  # onnxruntime's exceptions have no common base but this
            raise StartError(f"{path}: onnxruntime can't run the graphs on them ({error})") from error

    def run(self, graph: GraphName, rows: Matrix) -> Matrix:
        """Returns what a graph makes of rows; each row's result is the same whatever the others are."""
        return self._graphs[graph].run(rows)


def graphs_of(manifest: Manifest) -> dict[str, GraphFile]:
    """Returns the graphs' files by what they are for."""
    graphs = manifest.graphs
    return {"scorer": graphs.scorer, "encoder": graphs.encoder, "decoder": graphs.decoder}


def read_files(folder: Folder, manifest: Manifest) -> dict[str, bytes]:
    """Returns the bytes of every file that a manifest names.

    Raises:
        StartError: A file is missing, is no regular file, is larger than the manifest explains, or has another
            digest; a graph holds what `check_graph` refuses; or the density's arrays are not the manifest's.
    """
    limits: list[tuple[HashedFile, int]] = [(graph, MOST_GRAPH_BYTES) for graph in graphs_of(manifest).values()]
    limits += [(manifest.density, most_bytes(manifest.density)), (manifest.examples, most_example_bytes(manifest))]
    contents = {file.file: folder.read_hashed(file.file, file.sha256, limit) for file, limit in limits}
    for graph in graphs_of(manifest).values():
        try:
            check_graph(contents[graph.file])
        except StartError as error:
            raise StartError(f"{folder.path / graph.file}: {error}") from error
    density = manifest.density
    check_density(contents[density.file], density, folder.path / density.file)
    return contents


def most_example_bytes(manifest: Manifest) -> int:
    """Returns the most bytes that the file of the examples has."""
    values = manifest.examples.rows * (2 * manifest.width + manifest.latent_width + 1)
    return BYTES_PER_EXAMPLE_VALUE * values + SPARE_EXAMPLE_BYTES


def _example_matrix(name: str, rows: list[list[float]], shape: tuple[int, int]) -> Matrix:
    try:
        matrix = np.asarray(rows, dtype=np.float32)
    except ValueError:
        raise ValueError(f"{name} has rows of different lengths, expected {shape[1]} values in each") from None
    if matrix.shape != shape:
        raise ValueError(f"{name} has shape {matrix.shape}, the manifest has {shape}")
    return matrix


def _load_graph(content: bytes, path: Path, name: str, graph: GraphFile, runtime: Runtime) -> Graph:
    try:
        session = runtime.session(content)
    except StartError as error:
        raise StartError(f"{path}: {error}") from error
    for side, nodes, tensor in (
        ("input", session.get_inputs(), graph.input),
        ("output", session.get_outputs(), graph.output),
    ):
        found = [(node.name, node.type, _shape(node.shape)) for node in nodes]
        expected = [(tensor.name, "tensor(float)", tensor.shape)]
        if found != expected:
            raise StartError(f"{path}: {side} of the {name} is {found}, the manifest has {expected}")
    return Graph(session, graph.input.name, graph.output.name, recorded=runtime.cuda_graphs)


def _shape(shape: list[int | str]) -> list[int | str]:
    """Writes a graph's shape as a manifest does: a dimension without a fixed size is the number of rows."""
    return [size if isinstance(size, int) else "N" for size in shape]


def _compare(name: str, got: NDArray[Any], expected: NDArray[np.float64], path: Path) -> None:
    if got.shape != expected.shape:
        raise StartError(f"{path}: {name} has shape {got.shape}, the examples have {expected.shape}")
    difference = np.abs(got - expected) / np.maximum(1.0, np.abs(expected))
    worst = np.unravel_index(np.argmax(~(difference <= TOLERANCE) * (1 + difference)), difference.shape)
    if not difference[worst] <= TOLERANCE:
        index = "".join(f"[{i}]" for i in worst)
        raise StartError(f"{path}: {name}{index} is {got[worst]}, the examples have {expected[worst]}")
