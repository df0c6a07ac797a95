"""The only reader of a model folder's contract; `models/README.md` has it in words.

``python -m service.manifest`` prints it as a JSON schema, which is kept in `models/manifest.schema.json`.
"""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from service.errors import StartError
from service.files import Folder, open_folder
from service.seals import check_seal
from service.signatures import SUFFIX, Signers

MANIFEST = "manifest.json"

MOST_BYTES = 4 * 2**20
"""Of a manifest; the longest shipped one has 30 kB."""

MOST_COLUMNS, MOST_EXAMPLES, MOST_MEMBERS, MOST_COMPONENTS = 65_536, 10_000, 1000, 10_000

MOST_DENSITY_VALUES = 2**23
"""Numbers in a density's covariances or matrices, 64 MiB of float64."""

MOST_LAYERS, WIDEST_LAYER = 16, 256
"""Hidden layers of the networks of a factorized density, and filters in one."""

LARGEST_FLOAT32 = 3.4028234663852886e38

MOST_BINS = 100
"""Bins that scores may be sorted into; each is several time series of the service's metrics."""

MOST_PROBLEMS = 10
"""Wrong fields that an error names."""

LONGEST_QUOTE = 200
"""Characters of a wrong value that an error repeats."""

MOST_KEPT_SCORES = 4096
"""Scores that p-values are looked up among."""

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
FileName = Annotated[str, Field(pattern=r"^[a-z0-9_]+\.[a-z]+$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=1)]
Columns = Annotated[int, Field(ge=1, le=MOST_COLUMNS)]
Label = Annotated[str, Field(min_length=1)]
Float32 = Annotated[float, Field(ge=-LARGEST_FLOAT32, le=LARGEST_FLOAT32)]
Ratio = Annotated[float, Field(ge=0, le=1)]

Part = Literal["time_of_day", "day_of_week", "day_of_year"]
PARTS: tuple[Part, ...] = get_args(Part)
"""What can be told of a moment, in the order in which its columns stand."""

MISSING, OTHER = "<missing>", "<other>"
"""How columns of x are called that say that a value was missing, or that a category was none of those listed."""

NEW_KINDS = ("boolean", "timestamp")
"""Kinds of features that manifests before `format_version` 3 don't have."""

SINCE = {"ignored": 3, "p_values": 3, "image": 4, "latents": 4}
"""The `format_version` from which on a manifest may have a field."""

UNIONS = ("calibration", "density")
"""Fields whose kinds pydantic writes into the path of an error, where they are no part of the manifest."""


def _without_repetition(names: list[str]) -> list[str]:
    for name, count in Counter(names).items():
        if count > 1:
            raise ValueError(f"'{name}' is there {count} times")
    return names


def _if(there: bool, name: str) -> list[str]:
    return [name] if there else []


def _check_flagged(flagged: int, rows: int) -> None:
    if flagged > rows:
        raise ValueError(f"flagged {flagged} is above rows {rows}")


def _finite(values: dict[str, JsonValue]) -> dict[str, JsonValue]:
    json.dumps(values, allow_nan=False)
    return values


class Strict(BaseModel):
    """Refuses unknown fields, other types and numbers that are not finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class MissingNumber(Strict):
    """What stands for a number that is missing, and whether a column of its own says that it was."""

    fill: Float32
    indicator: bool


class NumericFeature(Strict):
    """A number, and the range it had in the rows the model was fitted on."""

    kind: Literal["numeric"]
    name: Label
    minimum: Float32
    maximum: Float32
    missing: MissingNumber | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.minimum > self.maximum:
            raise ValueError(f"minimum {self.minimum} is above maximum {self.maximum}")
        return self

    @property
    def columns(self) -> list[str]:
        """The names of its columns of x."""
        return [self.name, *_if(self.missing is not None and self.missing.indicator, f"{self.name}={MISSING}")]


class BooleanFeature(Strict):
    """True or false, as 1 or 0."""

    kind: Literal["boolean"]
    name: Label
    missing: bool = False

    @property
    def columns(self) -> list[str]:
        """The names of its columns of x."""
        return [self.name, *_if(self.missing, f"{self.name}={MISSING}")]


class CategoricalFeature(Strict):
    """A category, one-hot over the listed ones in their order, and behind them any other and a missing one."""

    kind: Literal["categorical"]
    name: Label
    categories: Annotated[list[str], Field(min_length=1)]
    other: bool = False
    missing: bool = False

    @field_validator("categories")
    @classmethod
    def _different(cls, categories: list[str]) -> list[str]:
        return _without_repetition(categories)

    @property
    def columns(self) -> list[str]:
        """The names of its columns of x."""
        values = [*self.categories, *_if(self.other, OTHER), *_if(self.missing, MISSING)]
        return [f"{self.name}={value}" for value in values]


class TimestampFeature(Strict):
    """A moment, as the sine and the cosine of how much of the day, week or year has passed, in UTC."""

    kind: Literal["timestamp"]
    name: Label
    parts: Annotated[list[Part], Field(min_length=1)]
    missing: bool = False

    @field_validator("parts")
    @classmethod
    def _in_order(cls, parts: list[Part]) -> list[Part]:
        if parts != [part for part in PARTS if part in parts]:
            raise ValueError(f"expected some of {', '.join(PARTS)}, each once and in this order")
        return parts

    @property
    def columns(self) -> list[str]:
        """The names of its columns of x."""
        names = [f"{self.name}={function}({part})" for part in self.parts for function in ("sin", "cos")]
        return [*names, *_if(self.missing, f"{self.name}={MISSING}")]


Feature = Annotated[
    NumericFeature | BooleanFeature | CategoricalFeature | TimestampFeature, Field(discriminator="kind")
]


class Tensor(Strict):
    """An input or output of a graph; N stands for any number of rows."""

    name: str
    dtype: Literal["float32"]
    shape: Annotated[list[Literal["N"] | Columns], Field(min_length=1, max_length=2)]


class HashedFile(Strict):
    """A file of the folder and the digest of its bytes."""

    file: FileName
    sha256: Sha256


class Graph(HashedFile):
    """An ONNX graph with one input and one output."""

    input: Tensor
    output: Tensor


class Graphs(Strict):
    """One graph per endpoint."""

    scorer: Graph
    encoder: Graph
    decoder: Graph


class Mixture(HashedFile):
    """The density that the scorer holds, in float64, for whoever wants to check a score; one per member.

    If there are centres, the distance to the nearest has a voice in the score, as if it were one more member.
    """

    kind: Literal["gaussian_mixture"]
    members: Annotated[int, Field(ge=1, le=MOST_MEMBERS)] = 1
    components: Annotated[int, Field(ge=1, le=MOST_COMPONENTS)]
    dimensions: Columns
    centres: Annotated[int, Field(ge=0, le=MOST_COMPONENTS)] = 0

    @model_validator(mode="after")
    def _of_bounded_size(self) -> Self:
        values = self.members * self.components * self.dimensions**2
        if values > MOST_DENSITY_VALUES:
            raise ValueError(f"the covariances have {values} values, expected at most {MOST_DENSITY_VALUES}")
        if (values := self.centres * self.dimensions) > MOST_DENSITY_VALUES:
            raise ValueError(f"the centres have {values} values, expected at most {MOST_DENSITY_VALUES}")
        return self


class Factorized(HashedFile):
    """The density that the scorer holds, in float64, for whoever wants to check a score: one network per dimension.

    The score of a row is its rate under this density, convolved with the unit box, plus `distortion_weight` times the
    squared error of the decoded row, in squared units of the features.

    Attributes:
        dimensions: The number of latent features L, each with a distribution of its own.
        filters: The widths of a network's hidden layers.
        distortion_weight: What a squared error of 1 counts in the score, in nats; 0 if the score is the rate alone.

    References:
        Variational Image Compression with a Scale Hyperprior (Balle et al., 2018), appendix 6.1
    """

    kind: Literal["factorized"]
    dimensions: Columns
    filters: Annotated[list[Annotated[int, Field(ge=1, le=WIDEST_LAYER)]], Field(max_length=MOST_LAYERS)]
    distortion_weight: Annotated[float, Field(ge=0)]

    @model_validator(mode="after")
    def _of_bounded_size(self) -> Self:
        values = self.dimensions * sum(inputs * outputs for inputs, outputs in pairwise([1, *self.filters, 1]))
        if values > MOST_DENSITY_VALUES:
            raise ValueError(f"the matrices have {values} values, expected at most {MOST_DENSITY_VALUES}")
        return self


Density = Annotated[Mixture | Factorized, Field(discriminator="kind")]


class Image(Strict):
    """The shape of a row that is an image: its values are those of the first channel, row by row, then of the next."""

    channels: Columns
    height: Columns
    width: Columns

    @property
    def size(self) -> int:
        """The number of values."""
        return self.channels * self.height * self.width


class LatentStatistics(Strict):
    """Where the latents of the fitted rows lie: mean and standard deviation of each latent feature, in their order."""

    means: Annotated[list[Float32], Field(min_length=1, max_length=MOST_COLUMNS)]
    deviations: Annotated[
        list[Annotated[float, Field(ge=0, le=LARGEST_FLOAT32)]], Field(min_length=1, max_length=MOST_COLUMNS)
    ]


class Examples(HashedFile):
    """Rows with their expected results, replayed before the service is ready."""

    rows: Annotated[int, Field(ge=1, le=MOST_EXAMPLES)]


class CalibrationByContamination(Strict):
    """How the threshold was chosen: the highest scores of these rows, as many as the contamination says."""

    rule: Literal["contamination"]
    contamination: Annotated[float, Field(gt=0, lt=1)]
    rows: Count
    flagged: Count

    @model_validator(mode="after")
    def _some_are_not_flagged(self) -> Self:
        _check_flagged(self.flagged, self.rows)
        return self


class CalibrationByRate(Strict):
    """How the threshold was chosen: of rows like these, which the fit did not see, it flags at most a share."""

    rule: Literal["false_positive_rate"]
    false_positive_rate: Annotated[float, Field(gt=0, lt=1)]
    rows: Count
    flagged: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _some_are_not_flagged(self) -> Self:
        _check_flagged(self.flagged, self.rows)
        return self


Calibration = Annotated[CalibrationByContamination | CalibrationByRate, Field(discriminator="rule")]


class PValues(Strict):
    """Scores of a calibration split, as far as they are kept, and how many of its rows have a higher one than each.

    The conformal p-value of a score s is ``(1 + above[i]) / (rows + 1)`` with the last i for which
    ``scores[i] < s``, or 1 if there is none.

    References:
        Algorithmic Learning in a Random World (Vovk et al., 2005), section 2.2
    """

    rows: Count
    scores: Annotated[list[float], Field(min_length=1, max_length=MOST_KEPT_SCORES)]
    above: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1, max_length=MOST_KEPT_SCORES)]

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if len(self.scores) != len(self.above):
            raise ValueError(f"above has {len(self.above)} entries, expected {len(self.scores)} as scores has")
        for lower, upper in pairwise(self.scores):
            if not lower < upper:
                raise ValueError(f"scores has {upper} behind {lower}, expected rising scores")
        for before, behind in pairwise([self.rows, *self.above]):
            if behind > before:
                raise ValueError(f"above has {behind} behind {before}, expected falling numbers of {self.rows} rows")
        return self


class ScoreBins(Strict):
    """How the scores of the rows behind the calibration are distributed, so that others can be held against them.

    A score belongs to the first bin whose upper bound is not below it, and to one more bin beyond all bounds.
    """

    upper_bounds: Annotated[list[float], Field(max_length=MOST_BINS - 1)]
    rows: Annotated[list[Count], Field(min_length=1, max_length=MOST_BINS)]

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if len(self.rows) != len(self.upper_bounds) + 1:
            raise ValueError(
                f"rows has {len(self.rows)} entries, expected one more than the {len(self.upper_bounds)} bounds"
            )
        for lower, upper in pairwise(self.upper_bounds):
            if not lower < upper:
                raise ValueError(f"upper_bounds has {upper} behind {lower}, expected rising bounds")
        return self


class Metrics(Strict):
    """What the model was worth on rows it was not fitted on."""

    precision: Ratio
    recall: Ratio
    f1: Ratio
    auroc: Ratio
    average_precision: Ratio
    flagged: Annotated[int, Field(ge=0)]


class Evaluation(Strict):
    """The test half judged by the shipped threshold, and by the paper's: a percentile of the test scores."""

    shipped_threshold: Metrics
    test_percentile: Metrics


class Provenance(Strict):
    """Where the model comes from."""

    recipe: str
    settings: Annotated[dict[str, JsonValue], AfterValidator(_finite)]
    seed: int
    data_sha256: Sha256
    protocol: str
    libraries: dict[str, str]
    metrics: Evaluation | None = None


class Manifest(Strict):
    """What a model folder holds."""

    format_version: Literal[1, 2, 3, 4]
    dataset: Name
    version: Count
    method: str
    features: Annotated[list[Feature], Field(min_length=1, max_length=MOST_COLUMNS)]
    ignored: Annotated[list[Label], AfterValidator(_without_repetition)] = []
    image: Image | None = None
    graphs: Graphs
    latents: LatentStatistics | None = None
    density: Density
    examples: Examples
    threshold: float
    calibration: Calibration
    score_bins: ScoreBins | None = None
    p_values: PValues | None = None
    provenance: Provenance
    sha256: Sha256 | None = None

    @model_validator(mode="after")
    def _sealed(self) -> Self:
        if self.format_version > 1 and self.sha256 is None:
            raise ValueError(f"sha256 is missing, format_version {self.format_version} has it")
        return self

    @field_validator("features")
    @classmethod
    def _names_differ(cls, features: list[Feature]) -> list[Feature]:
        _without_repetition([feature.name for feature in features])
        return features

    @model_validator(mode="after")
    def _has_what_its_format_has(self) -> Self:
        for since, found in _news_of(self):
            if self.format_version < since:
                raise ValueError(f"{found}, format_version {self.format_version} has no such thing")
        if self.format_version < 3:
            if self.provenance.metrics is None:
                raise ValueError(f"provenance.metrics is missing, format_version {self.format_version} has them")
        else:
            _without_repetition(list(self.columns))
        return self

    @model_validator(mode="after")
    def _ignores_no_feature(self) -> Self:
        names = {feature.name for feature in self.features}
        for i, name in enumerate(self.ignored):
            if name in names:
                raise ValueError(f"ignored.{i} is '{name}', which is a feature's name")
        return self

    @model_validator(mode="after")
    def _bins_agree(self) -> Self:
        expected = self.calibration.rows
        if self.score_bins and sum(self.score_bins.rows) != expected:
            raise ValueError(
                f"score_bins.rows add up to {sum(self.score_bins.rows)}, expected calibration.rows, {expected}"
            )
        return self

    @model_validator(mode="after")
    def _image_is_the_row(self) -> Self:
        if self.image is not None:
            for i, feature in enumerate(self.features):
                if feature.kind != "numeric":
                    raise ValueError(f"features.{i}.kind is '{feature.kind}', expected 'numeric' as this is an image")
                if len(feature.columns) > 1:
                    raise ValueError(f"features.{i}.missing.indicator is True, expected False as this is an image")
            if self.image.size != self.width:
                raise ValueError(f"image has {self.image.size} values, expected {self.width} as features have columns")
        return self

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The names of the M values of a row; those of a category are ``feature=category``."""
        return tuple(name for feature in self.features for name in feature.columns)

    @property
    def width(self) -> int:
        """The number of values in a row, M."""
        return len(self.columns)

    @property
    def latent_width(self) -> int:
        """The number of values in a latent, L."""
        return int(self.graphs.encoder.output.shape[-1])

    @model_validator(mode="after")
    def _tensors_agree(self) -> Self:
        latent = self.graphs.encoder.output.shape
        if len(latent) != 2 or not isinstance(latent[1], int):
            raise ValueError(f"graphs.encoder.output.shape is {latent}, expected ['N', L] with a number L")
        x, z = ["N", self.width], ["N", self.latent_width]
        expected = {"scorer": (x, ["N"]), "encoder": (x, z), "decoder": (z, x)}
        for name, shapes in expected.items():
            graph: Graph = getattr(self.graphs, name)
            for side, tensor, shape in zip(("input", "output"), (graph.input, graph.output), shapes, strict=True):
                if tensor.shape != shape:
                    raise ValueError(
                        f"graphs.{name}.{side}.shape is {tensor.shape}, expected {shape} for {self.width} columns"
                        f" of features and {self.latent_width} latent features"
                    )
        return self

    @model_validator(mode="after")
    def _latents_agree(self) -> Self:
        expected = self.latent_width
        for name in ("means", "deviations") if self.latents else ():
            if (found := len(getattr(self.latents, name))) != expected:
                raise ValueError(
                    f"latents.{name} has {found} entries, expected {expected} as there are latent features"
                )
        if self.density.kind == "factorized" and self.density.dimensions != expected:
            raise ValueError(
                f"density.dimensions is {self.density.dimensions}, expected {expected} as there are latent features"
            )
        return self


def _news_of(manifest: Manifest) -> Iterator[tuple[int, str]]:
    """Names what a manifest has that not every `format_version` has, each with the first one that has it."""
    for name, since in SINCE.items():
        if name in manifest.model_fields_set:
            yield since, f"{name} is there"
    if manifest.density.kind != "gaussian_mixture":
        yield 4, f"density.kind is '{manifest.density.kind}'"
    if "centres" in manifest.density.model_fields_set:
        yield 3, "density.centres is there"
    for i, feature in enumerate(manifest.features):
        if feature.kind in NEW_KINDS:
            yield 3, f"features.{i}.kind is '{feature.kind}'"
        for name in ("missing", "other"):
            if name in feature.model_fields_set:
                yield 3, f"features.{i}.{name} is there"
    if manifest.calibration.rule != "contamination":
        yield 3, f"calibration.rule is '{manifest.calibration.rule}'"


def _refuse_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    _without_repetition([name for name, _ in pairs])
    return dict(pairs)


def read_manifest(folder: Path, signers: Signers | None = None) -> Manifest:
    """Reads and checks the manifest of a model folder ``<models>/<dataset>/<version>``.

    Arguments:
        folder: Its path; links in it may not lead out of ``<models>``.
        signers: Who has to have signed it, if signatures are demanded.

    Raises:
        StartError: The file is missing, is not JSON, breaks the contract, was altered since it was written, has no
            valid signature, or belongs to another folder; the text names the folder, the field and the value it had.
    """
    with open_model(folder) as opened:
        return manifest_of(opened, signers)


def open_model(folder: Path) -> AbstractContextManager[Folder]:
    """Opens a model folder ``<models>/<dataset>/<version>``.

    Raises:
        StartError: It is missing, or its links lead out of ``<models>``.
    """
    folder = folder.absolute() if len(folder.parts) < len(("models", "dataset", "version")) else folder
    return open_folder(folder, inside=folder.parent.parent)


def manifest_of(folder: Folder, signers: Signers | None = None) -> Manifest:
    """Reads and checks the manifest of an open model folder.

    Raises:
        StartError: As `read_manifest`.
    """
    path = folder.path / MANIFEST
    content = folder.read(MANIFEST, MOST_BYTES)
    if signers is not None:
        signers.check(content, path.with_name(MANIFEST + SUFFIX))
    try:
        manifest = Manifest.model_validate_json(content)
        json.loads(content, object_pairs_hook=_refuse_duplicates)
        if manifest.sha256 is not None:
            check_seal(content, manifest.sha256)
    except ValidationError as error:
        raise StartError(f"{path}: {sentences(error)}") from error
    except (ValueError, RecursionError) as error:
        raise StartError(f"{path}: {error}") from error
    for field, value, expected in (
        ("dataset", manifest.dataset, path.parent.parent.name),
        ("version", str(manifest.version), path.parent.name),
    ):
        if value != expected:
            raise StartError(f"{path}: {field} is '{value}', expected '{expected}' as the folder is called")
    return manifest


def sentences(error: ValidationError) -> str:
    """Says of the first fields that are wrong what is, with the value each had, and how many more there are."""
    problems = error.errors(include_url=False, include_context=False)
    found = [_sentence(problem) for problem in problems[:MOST_PROBLEMS]]
    more = len(problems) - len(found)
    return "; ".join(found + ([f"and {more} more"] if more else []))


def _sentence(problem: ErrorDetails) -> str:
    first, *inner = problem["loc"] or ("",)
    field = ".".join(map(str, (first, *(inner[1:] if first in UNIONS else inner))))
    if problem["type"] == "missing":
        return f"{field} is missing"
    if problem["type"] == "extra_forbidden":
        return f"{field} is unknown"
    if not field:
        return str(problem["msg"])
    value = repr(problem["input"])
    if len(value) > LONGEST_QUOTE:
        value = f"{value[:LONGEST_QUOTE]}..."
    return f"{field} is {value}: {problem['msg']}"


def schema() -> str:
    """Returns the contract as a JSON schema."""
    return json.dumps(Manifest.model_json_schema(), indent=2) + "\n"


if __name__ == "__main__":
    print(schema(), end="")
