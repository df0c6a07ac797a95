"""What the protocol calls models: one for each thing that is done with a dataset's rows, and its tensors."""

from collections.abc import Iterator
from dataclasses import dataclass

from service.detector import Detector
from service.errors import ModelNotFound, VersionNotFound
from service.exchange import DECODE, ENCODE, SCORE, Operation
from service.folders import VERSION
from service.repository import ModelRepository

OPERATIONS = {"": SCORE, ".encoder": ENCODE, ".decoder": DECODE}
"""What is done with rows, by what a model's name has behind the dataset's."""

ROWS = -1
"""The size of a dimension that a request chooses."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor that a model takes or answers.

    Attributes:
        name: Its name.
        datatype: Its datatype, as the protocol calls it.
        shape: Its shape, with `ROWS` for the number of rows.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Model:
    """One version of a model.

    Attributes:
        name: The dataset's name, and behind it what is done.
        operation: What is done with rows.
        detector: Who does it.
    """

    name: str
    operation: Operation
    detector: Detector

    @property
    def version(self) -> str:
        """The version, which the protocol has as a string."""
        return str(self.detector.manifest.version)

    @property
    def input(self) -> Tensor:
        """The one tensor it takes."""
        return Tensor(self.operation.field, "FP32", (ROWS, len(self.operation.columns(self.detector))))

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        """The tensors it answers."""
        if self.operation is ENCODE:
            return (Tensor("latents", "FP32", (ROWS, len(self.detector.latent_columns))),)
        if self.operation is DECODE:
            return (Tensor("vectors", "FP32", (ROWS, len(self.detector.columns))),)
        scores = (Tensor("scores", "FP64", (ROWS,)), Tensor("anomalies", "BOOL", (ROWS,)))
        return scores if self.detector.p_values is None else (*scores, Tensor("p_values", "FP64", (ROWS,)))


def find_model(models: ModelRepository, name: str, version: str | None) -> Model:
    """Returns one version of a model, the newest unless it is named.

    Raises:
        ModelNotFound: No model has that name.
        VersionNotFound: It has no such version.
    """
    dataset, dot, rest = name.partition(".")
    operation = OPERATIONS.get(dot + rest)
    if operation is None or dataset not in models.datasets():
        raise ModelNotFound(name, model_names(models))
    if version is not None and not VERSION.fullmatch(version):
        raise VersionNotFound(dataset, version, models.versions(dataset))
    return Model(name, operation, models.find(dataset, None if version is None else int(version)))


def model_names(models: ModelRepository) -> Iterator[str]:
    """Returns the names of all models."""
    for dataset in models.datasets():
        for suffix in OPERATIONS:
            yield dataset + suffix


def all_models(models: ModelRepository) -> Iterator[Model]:
    """Returns every version of every model, the oldest first."""
    for name in model_names(models):
        for version in versions_of(models, name):
            yield find_model(models, name, version)


def versions_of(models: ModelRepository, name: str) -> list[str]:
    """Returns the versions of a model, the oldest first."""
    return [str(version) for version in sorted(models.versions(name.partition(".")[0]))]
