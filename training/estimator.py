"""RaDOGAGA for Python: an estimator with scikit-learn's conventions of names, signs and labels."""

import hashlib
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, OutlierMixin, TransformerMixin
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from training.datasets.base import Rows
from training.methods.base import Method, by_parts
from training.own_export import export_own
from training.own_tables import DEFAULT_RATE, OwnModel, Rule
from training.table_fits import FEWEST_ROWS, Parts, divide, fit_table
from training.tables.base import ArrowTable
from training.tables.encoding import Encoder, fit_encoder, width_of
from training.tables.errors import TableError
from training.tables.inference import infer_schema
from training.tables.schema import Schema
from training.thresholds import p_values

LARGEST_SEED = 10**9

Scores = NDArray[np.float64]
Labels = NDArray[np.int64]


class RaDOGAGADetector(ClassNamePrefixFeaturesOutMixin, TransformerMixin, OutlierMixin, BaseEstimator):  # type: ignore[misc]
    """Detects what is unlike the rows it was fitted on.

    Arrays are taken as numbers, of which some may be NaN if some were in training. Of data frames with other columns
    than numbers (pandas, Polars, or whatever else gives Arrow columns) the kinds of columns are found out as
    ``python -m training fit`` does, and identifiers and constants are left out. Where a value is missing in a column
    that had all of them in fit, its typical one stands for it, the median or the most frequent, with a warning.

    A part of the rows is held out: some tell when to stop, and the scores of others say what a score means. Fewer than
    50 rows are used for all of it, and nothing is promised then.

    Arguments:
        contamination: The ratio of anomalies among the rows that it is fitted on, in (0, 0.5]; so many of them are
            then called anomalies. None if it is not known.
        false_positive_rate: Of rows that are drawn as those it is fitted on, at most this share is called an anomaly,
            unless `contamination` is given.
        random_state: Of how rows are divided, and of weights, batches and noise.

    Attributes:
        offset_: `decision_function` is `score_samples` less this.
        n_features_in_: The number of columns.
        feature_names_in_: Their names, if they are strings.

    References:
        Rate-Distortion Optimization Guided Autoencoder (Kato et al., 2019)
    """

    _encoder: Encoder
    _schema: Schema | None

    def __init__(
        self,
        *,
        contamination: float | None = None,
        false_positive_rate: float = DEFAULT_RATE,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.contamination = contamination
        self.false_positive_rate = false_positive_rate
        self.random_state = random_state

    def fit(self, X: Any, y: object = None) -> Self:  # noqa: ANN401, ARG002, N803 - scikit-learn's names
        """Fits the model to rows (N, M) that are normal, or nearly all are; `y` is ignored.

        Raises:
            ValueError: A parameter or a value can't be used, or there are fewer than two rows.
        """
        self._check_parameters()
        seed = int(check_random_state(self.random_state).randint(LARGEST_SEED))
        x = self._fit_rows(X)
        self._encoder = replace(self._encoder, stand_ins=stand_ins(self._encoder, x))
        parts = divide(len(x), seed, x.shape[1]) if len(x) >= FEWEST_ROWS else whole(len(x))
        self._fitted = fit_table(x, parts, seed)
        self._x, self._seed = x, seed
        self._calibration = self._energies(x[parts.calibration])
        self.offset_ = -self._threshold(x)
        return self

    def score_samples(self, X: Any) -> Scores:  # noqa: ANN401, N803
        """Returns how normal rows (N, M) are: their energies with the sign turned, so that anomalies are low, (N,)."""
        return -self._energies(self._rows(X))

    def decision_function(self, X: Any) -> Scores:  # noqa: ANN401, N803
        """Returns `score_samples` less the offset, so that anomalies are negative, (N,)."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> Labels:  # noqa: ANN401, N803
        """Returns -1 for anomalies among rows (N, M), and 1 for others, (N,)."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def p_values(self, X: Any) -> Scores:  # noqa: ANN401, N803
        """Returns conformal p-values (N,) of rows (N, M): the share of calibration rows that are no more normal."""
        energies = self._energies(self._rows(X))
        return p_values(self._calibration).of(energies)

    def transform(self, X: Any) -> Scores:  # noqa: ANN401, N803
        """Returns the latents (N, L) of rows (N, M)."""
        x = self._rows(X)
        with torch.no_grad():
            latents: Scores = by_parts(self._method.encode, torch.from_numpy(x)).double().numpy()
        return latents

    def inverse_transform(self, X: ArrayLike) -> Rows:  # noqa: N803
        """Returns what the model makes of latents (N, L): values of its columns, which `columns` names, (N, K)."""
        z = torch.from_numpy(np.asarray(X, dtype=np.float64))
        with torch.no_grad():
            rows: Rows = self._method.decode(z).float().numpy()
        return rows

    def export(self, folder: str | Path) -> Path:
        """Writes the model for the service, as the next version of ``<models>/<name>``, and returns its path.

        Raises:
            ExportError: It can't be written.
            ValueError: The name is none that a model can be served under.
        """
        check_is_fitted(self)
        place = Path(folder)
        model = OwnModel(
            place.name,
            self._schema,
            self._encoder,
            self._x,
            self._x[:0],
            self._fitted,
            self._rule(),
            self._seed,
            digest(self._x),
            None if self.contamination is None else self._x,
        )
        return export_own(model, place.parent)

    def _fit_rows(self, X: Any) -> Rows:  # noqa: ANN401, N803
        """Finds out what the columns are, and encodes the rows."""
        if is_table(X):
            table = ArrowTable(table_of(X), "X")
            self._schema = infer_schema(table)
            self.feature_names_in_ = np.array(table.schema.names, dtype=object)
            self.n_features_in_ = len(table.schema.names)
            self._encoder = fit_encoder(self._schema, table)
            return encoded(self._encoder, table)
        values = validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan", ensure_min_samples=2)
        self._schema = None
        self._encoder = Encoder("X", features_of(values, self._names()))
        return encoded(self._encoder, self._table(values))

    def _rows(self, X: Any) -> Rows:  # noqa: ANN401, N803
        """Encodes rows as those that the model was fitted on."""
        check_is_fitted(self)
        if self._schema is not None:
            if not is_table(X):
                raise ValueError(f"X is a {type(X).__name__}, expected a data frame as in fit")
            return self._encoded(ArrowTable(table_of(X), "X", fewest=1))
        values = validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan", reset=False)
        return self._encoded(self._table(values))

    def _encoded(self, table: ArrowTable) -> Rows:
        """Encodes rows, and warns of gaps that are filled."""
        whole = [feature["name"] for feature in self._encoder.features if not feature.get("missing")]
        gaps = Counter[str]()
        for batch in table.batches(whole):
            for name, cells in zip(whole, batch.columns, strict=True):
                gaps[name] += pc.sum(pc.is_null(cells, nan_is_null=True)).as_py()
        for name, count in gaps.items():
            if count:
                warnings.warn(
                    f"column {name} of X has no value in {count} rows, and had one in all of fit's: "
                    "a typical one stands for it",
                    UserWarning,
                    stacklevel=4,
                )
        return encoded(self._encoder, table)

    def _names(self) -> Sequence[str]:
        names = getattr(self, "feature_names_in_", None)
        return [f"x{i}" for i in range(self.n_features_in_)] if names is None else names.tolist()

    def _table(self, values: NDArray[np.float64]) -> ArrowTable:
        columns = [pa.array(column, from_pandas=True) for column in values.T]  # NaN becomes null
        return ArrowTable(pa.table(columns, names=self._names()), "X", fewest=1)

    @property
    def _n_features_out(self) -> int:
        return self._method.latent

    @property
    def _method(self) -> Method:
        return self._fitted.method

    def _energies(self, x: Rows) -> Scores:
        with torch.no_grad():
            energies: Scores = by_parts(self._method.score, torch.from_numpy(x)).double().numpy()
        return energies

    def _threshold(self, x: Rows) -> float:
        return self._rule().threshold(self._calibration if self.contamination is None else self._energies(x))

    def _rule(self) -> Rule:
        if self.contamination is not None:
            return Rule(contamination=self.contamination)
        return Rule(self.false_positive_rate).possible(len(self._calibration))

    def _check_parameters(self) -> None:
        if self.contamination is not None and not 0 < self.contamination <= 0.5:
            raise ValueError(f"contamination is {self.contamination}, expected None or a ratio above 0 and at most 0.5")
        if not 0 < self.false_positive_rate < 1:
            raise ValueError(f"false_positive_rate is {self.false_positive_rate}, expected a ratio between 0 and 1")

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags


def is_table(X: Any) -> bool:  # noqa: ANN401, N803
    """Tells whether these are columns of which some are no numbers."""
    if not hasattr(X, "__arrow_c_stream__"):
        return False
    types = (pa.schema(X) if hasattr(X, "__arrow_c_schema__") else table_of(X).schema).types
    return not all(pa.types.is_floating(type_) or pa.types.is_integer(type_) for type_ in types)


def table_of(X: Any) -> Any:  # noqa: ANN401, N803 - pyarrow has no types
    """Returns the columns of a data frame, without the index that pandas has beside them."""
    table = pa.table(X)
    if isinstance(X, pa.Table | pa.RecordBatch):
        return table
    index = (table.schema.pandas_metadata or {}).get("index_columns", ())
    return table.drop_columns([name for name in index if isinstance(name, str)])


def features_of(values: NDArray[np.float64], names: Sequence[str]) -> list[dict[str, Any]]:
    """Describes columns of numbers (N, M), as manifests do; what is missing becomes the median."""
    features = []
    for name, column in zip(names, values.T, strict=True):
        present = column[~np.isnan(column)].astype(np.float32)
        if not len(present):
            raise ValueError(f"column {name} of X has no values, expected some")
        feature: dict[str, Any] = {"kind": "numeric", "name": name}
        feature |= {"minimum": float(present.min()), "maximum": float(present.max())}
        if len(present) < len(column):
            feature["missing"] = {"fill": float(np.median(present)), "indicator": True}
        features.append(feature)
    return features


def stand_ins(encoder: Encoder, x: Rows) -> dict[str, Rows]:
    """Returns by feature what its columns are in a typical row, of encoded rows (N, M).

    Numbers have their median, categories and booleans what is most frequent, and moments the mean of their waves.
    """
    found, first = dict[str, Rows](), 0
    for feature in encoder.features:
        width = width_of(feature)
        own = x[:, first : first + width]
        typical = own.mean(axis=0) if feature["kind"] == "timestamp" else np.median(own, axis=0)
        if feature["kind"] == "categorical":
            typical = np.eye(width)[own.sum(axis=0).argmax()]
        found[feature["name"]] = typical.astype(np.float32)
        first += width
    return found


def encoded(encoder: Encoder, table: ArrowTable) -> Rows:
    """Encodes all rows of a table.

    Raises:
        ValueError: A value can't be used; row and column are named.
    """
    try:
        return np.concatenate([x for x, _ in encoder.batches(table)])
    except TableError as error:
        raise ValueError(str(error)) from error


def whole(rows: int) -> Parts:
    """Uses all of the rows for everything, for there are too few to be divided."""
    every = np.arange(rows)
    return Parts(every, every, every)


def digest(x: Rows) -> str:
    """Returns the sha256 of rows."""
    return hashlib.sha256(np.ascontiguousarray(x).tobytes()).hexdigest()
