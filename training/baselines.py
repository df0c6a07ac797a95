"""Simple anomaly detectors to hold a method against, from scikit-learn and SciPy.

A baseline is fitted on scaled normal rows and returns its score. The score is higher for a more anomalous row; its unit
is the baseline's own, so that scores of different baselines can't be compared. Settings are the library's defaults
unless the class says why not: none was chosen by looking at labels.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ecdf
from sklearn import covariance, decomposition, ensemble, mixture, neighbors, svm
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, StandardScaler

from training.datasets.base import Rows

Number = TypeVar("Number", bound=np.floating)
Scaled = NDArray[np.float64]
Scores = NDArray[np.float64]
Score = Callable[[Scaled], Scores]
"""From rows of shape (N, M) to a score for each, of shape (N,)."""

SCALINGS: dict[str, Callable[[], Any]] = {
    "minmax": MinMaxScaler,
    "standard": StandardScaler,
    "none": FunctionTransformer,
}
"""Each feature to [0, 1], each to mean 0 and variance 1, or as they are. Constant features keep their unit."""

LARGE = 1e4
"""Up to this size of values, products of rows err by about 1e-8 in a squared distance."""


class BaselineError(Exception):
    """A baseline can't be fitted to these rows."""


class Baseline(ABC):
    """What every baseline offers.

    Attributes:
        scale_free: Whether its scores don't change when features are shifted and scaled, so that one scaling tells all.
    """

    scale_free: ClassVar[bool] = False

    @abstractmethod
    def fit(self, x: Scaled, seed: int) -> Score:
        """Fits scaled normal rows of shape (N, M) and returns the score.

        Raises:
            BaselineError: It can't be fitted to these rows.
        """

    def settings(self) -> dict[str, Any]:
        """Returns its settings by name, as JSON values."""
        return asdict(self)  # type: ignore[call-overload, no-any-return]  # each of them is a dataclass


@dataclass(frozen=True)
class Gaussians(Baseline):
    r"""A mixture of Gaussians with full covariances.

    .. math:: s(x) = -\log \sum_k \pi_k \, \mathcal{N}(x; \mu_k, \Sigma_k + \epsilon I)

    A score is an energy in nats.

    References:
        Maximum Likelihood from Incomplete Data via the EM Algorithm (Dempster et al., 1977)

    Arguments:
        components: The number of Gaussians.
        reg_covar: What is added to each variance, :math:`\epsilon`, in squared units of the scaled features.
        max_iter: The steps of EM in which it has to converge.
        n_init: The starts, of which the likeliest fit is taken; a single one often ends in a poor optimum.
    """

    components: int
    reg_covar: float = 1e-6
    max_iter: int = 500
    n_init: int = 3

    def fit(self, x: Scaled, seed: int) -> Score:
        """Fits by EM, starting from the clusters that k-means finds."""
        model = mixture.GaussianMixture(
            self.components,
            reg_covar=self.reg_covar,
            max_iter=self.max_iter,
            n_init=self.n_init,
            random_state=seed,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            try:
                model.fit(x)
            except (ValueError, ConvergenceWarning) as error:  # singular covariances are a ValueError
                raise BaselineError(f"{self.components} Gaussians with reg_covar {self.reg_covar}: {error}") from error
        return lambda rows: -model.score_samples(rows)


@dataclass(frozen=True)
class ShrunkGaussian(Baseline):
    r"""A Gaussian whose covariance is shrunk towards a multiple of the identity, for tables wider than long.

    .. math:: s(x) = (x - \mu)^T \left((1 - \rho) S + \rho \frac{\text{tr} S}{M} I\right)^{-1} (x - \mu)

    References:
        A Well-Conditioned Estimator for Large-Dimensional Covariance Matrices (Ledoit and Wolf, 2004)
    """

    def fit(self, x: Scaled, seed: int) -> Score:  # noqa: ARG002 - nothing in it is random
        r"""Fits mean and covariance; the amount of shrinkage :math:`\rho` is estimated from the rows."""
        model = covariance.LedoitWolf().fit(x)
        return lambda rows: np.asarray(model.mahalanobis(rows))


@dataclass(frozen=True)
class PCAResidual(Baseline):
    r"""The squared distance from the plane of the first principal components.

    .. math:: s(x) = \| x - \mu - V V^T (x - \mu) \|^2

    References:
        Control Procedures for Residuals Associated with Principal Component Analysis (Jackson and Mudholkar, 1979)

    Arguments:
        explained: The ratio of the variance that the components explain at least; this decides their number.
    """

    explained: float = 0.95

    def fit(self, x: Scaled, seed: int) -> Score:  # noqa: ARG002 - nothing in it is random
        """Fits the plane by a full singular value decomposition."""
        model = decomposition.PCA(self.explained, svd_solver="full").fit(x)
        return lambda rows: np.sum((rows - model.inverse_transform(model.transform(rows))) ** 2, axis=1)


@dataclass(frozen=True)
class ECOD(Baseline):
    r"""How far out in the tails of its features a row is, as if they were independent.

    .. math:: s(x) = \max\left(\sum_j -\log F_j(x_j), \; \sum_j -\log \bar F_j(x_j), \; \sum_j t_j(x_j)\right)

    with :math:`F_j(x) = P(X_j \leq x)`, :math:`\bar F_j(x) = P(X_j \geq x)` and :math:`t_j` the one of the two terms on
    the side of the feature's longer tail. The distributions are those of the fitted rows and the row itself: no tail is
    empty, and a row scores the same alone and among others. (PyOD's ranks all test rows together with the fitted ones.)
    A score is in nats.

    References:
        ECOD: Unsupervised Outlier Detection Using Empirical Cumulative Distribution Functions (Li et al., 2022),
        algorithm 1
    """

    scale_free: ClassVar[bool] = True

    def fit(self, x: Scaled, seed: int) -> Score:  # noqa: ARG002 - nothing in it is random
        """Fits each feature's two distributions and the side of its longer tail."""
        n = len(x)
        skewness = np.sum((x - x.mean(axis=0)) ** 3, axis=0)
        below = [ecdf(column).cdf for column in x.T]
        above = [ecdf(-column).cdf for column in x.T]

        def score(rows: Scaled) -> Scores:
            left, right, longer = np.zeros((3, len(rows)))
            for j, column in enumerate(rows.T):
                to_the_left = -np.log((n * below[j].evaluate(column) + 1) / (n + 1))
                to_the_right = -np.log((n * above[j].evaluate(-column) + 1) / (n + 1))
                left += to_the_left
                right += to_the_right
                longer += to_the_left if skewness[j] < 0 else to_the_right
            return np.maximum(np.maximum(left, right), longer)

        return score


@dataclass(frozen=True)
class IsolationForest(Baseline):
    r"""How few random cuts isolate a row.

    .. math:: s(x) = 2^{-E[\text{depth}(x)] / c(n)}

    The score lies in (0, 1].

    References:
        Isolation Forest (Liu et al., 2008)

    Arguments:
        trees: The number of trees.
        rows: The rows each tree is grown on, drawn at random.
    """

    scale_free: ClassVar[bool] = True

    trees: int = 100
    rows: int = 256

    def fit(self, x: Scaled, seed: int) -> Score:
        """Grows the trees."""
        model = ensemble.IsolationForest(
            n_estimators=self.trees, max_samples=min(self.rows, len(x)), random_state=seed
        ).fit(x)
        return lambda rows: -model.score_samples(rows)


@dataclass(frozen=True)
class NearestNeighbours(Baseline):
    """The distance to the k-th nearest of the distinct fitted rows.

    Copies count once: of most rows of KDDCup99 there are more than k, whose distance is zero.

    References:
        Efficient Algorithms for Mining Outliers from Large Data Sets (Ramaswamy et al., 2000)

    Arguments:
        k: Which neighbour's distance it is.
    """

    k: int = 5

    def fit(self, x: Scaled, seed: int) -> Score:  # noqa: ARG002 - nothing in it is random
        """Builds the tree."""
        model = neighbors.NearestNeighbors(n_neighbors=self.k, algorithm=search(x)).fit(distinct(x)[0])
        return lambda rows: np.asarray(model.kneighbors(rows)[0][:, -1])


@dataclass(frozen=True)
class LocalOutlierFactor(Baseline):
    """How much sparser a row's neighbourhood is than its neighbours' own, among distinct fitted rows.

    Copies count once, as the paper proposes (k-distinct-distance): a row with k copies would have an infinite density.

    References:
        LOF: Identifying Density-Based Local Outliers (Breunig et al., 2000)

    Arguments:
        k: The number of neighbours.
    """

    k: int = 20

    def fit(self, x: Scaled, seed: int) -> Score:  # noqa: ARG002 - nothing in it is random
        """Finds the neighbourhoods of the fitted rows."""
        model = neighbors.LocalOutlierFactor(n_neighbors=self.k, algorithm=search(x), novelty=True).fit(distinct(x)[0])
        return lambda rows: -model.score_samples(rows)


@dataclass(frozen=True)
class OneClassSVM(Baseline):
    r"""How far inside the origin's side of a plane in feature space a row is, with a Gaussian kernel.

    .. math:: s(x) = -\sum_i \alpha_i \exp(-\gamma \|x - x_i\|^2), \quad \gamma = 1 / (M \, \text{Var}[X])

    References:
        Estimating the Support of a High-Dimensional Distribution (Schölkopf et al., 2001)

    Arguments:
        nu: The ratio of fitted rows that are support vectors at least, and beyond the plane at most.
        at_most: The rows that are fitted, drawn at random if there are more: the cost grows with their square.
    """

    nu: float = 0.5
    at_most: int = 10_000

    def fit(self, x: Scaled, seed: int) -> Score:
        """Finds the support vectors."""
        model = svm.OneClassSVM(nu=self.nu).fit(drawn(x, self.at_most, seed))
        return lambda rows: -model.score_samples(rows)


BASELINES: dict[str, Baseline] = {
    "Gaussian": Gaussians(1, n_init=1),
    "Gaussian, Ledoit-Wolf": ShrunkGaussian(),
    "PCA residual": PCAResidual(),
    "ECOD": ECOD(),
    "isolation forest": IsolationForest(),
    "two Gaussians": Gaussians(2),
    "kNN": NearestNeighbours(),
    "one-class SVM": OneClassSVM(),
    "LOF": LocalOutlierFactor(),
}
"""The baselines by name, those first that take the least time on large tables."""


def fit(baseline: Baseline, scaling: str, x: Rows, seed: int) -> Callable[[Rows], Scores]:
    """Fits a scaler and a baseline on normal rows.

    Arguments:
        baseline: What is fitted.
        scaling: A name of `SCALINGS`.
        x: Raw normal rows of shape (N, M), the only ones that scaler and baseline see.
        seed: Decides everything that is drawn.

    Returns:
        The score of raw rows, from (N, M) to (N,). Copies of a row are scored once, and hence exactly alike.

    Raises:
        BaselineError: The baseline can't be fitted to these rows.
    """
    scaler = SCALINGS[scaling]()
    score = baseline.fit(scaler.fit_transform(x.astype(np.float64)), seed)

    def score_raw(raw: Rows) -> Scores:
        rows, copies = distinct(raw)
        return score(scaler.transform(rows.astype(np.float64)))[copies]

    return score_raw


def distinct(x: NDArray[Number]) -> tuple[NDArray[Number], NDArray[np.intp]]:
    """Returns the rows of x (N, M) without copies, (D, M), and which of them each row is, (N,)."""
    as_bytes = np.ascontiguousarray(x).view(np.dtype((np.void, x.itemsize * x.shape[1]))).ravel()
    _, first, copies = np.unique(as_bytes, return_index=True, return_inverse=True)
    return x[first], copies


def search(x: Scaled) -> Literal["brute", "kd_tree"]:
    """Returns how to search for the neighbours of rows (N, M).

    Products of rows give squared distances fastest, but with a rounding error that grows with the squared values.
    Beyond `LARGE`, as for unscaled numbers of bytes, a k-d tree is searched instead, which computes differences.
    """
    return "kd_tree" if np.abs(x).max() > LARGE else "brute"


def drawn(x: Scaled, at_most: int, seed: int) -> Scaled:
    """Returns rows of x (N, M) drawn at random, or x itself if it has no more than `at_most`."""
    if len(x) <= at_most:
        return x
    return x[np.random.default_rng(seed).choice(len(x), at_most, replace=False)]
