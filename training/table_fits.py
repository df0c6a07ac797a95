"""From rows that nobody has labelled, or that are known to be normal, to a fitted model."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from training.automatic import ROWS_TO_COUNT, Plan, most_centres, plan
from training.datasets.base import Rows
from training.densities.codebook import Codebook
from training.fitting import SMALLEST_BATCH, FitError, Member, Progress, fit
from training.methods.base import Method, by_parts
from training.methods.linear_start import CodedEnsemble, LinearStartRaDOGAGA
from training.methods.mixture_autoencoder import NOISE_VARIANCE

FEWEST_ROWS = 50
"""With fewer there is nothing left to fit once some are held out and some are kept for the calibration."""

FEWEST_TRAINED = SMALLEST_BATCH
"""Of fewer rows the linear start is all there is."""

CALIBRATION, MOST_CALIBRATION = 0.1, 10_000
SMALL_CALIBRATION, ENOUGH_CALIBRATION = 0.125, 99
"""Of few rows a larger share is kept for the calibration, until there are enough to promise one in a hundred."""

HELD_OUT, FEWEST_HELD_OUT, MOST_HELD_OUT = 0.1, 10, 5_000
MOST_FITTED = 200_000
"""More rows than these hardly change a fit, and would only make it longer."""

MOST_CELLS = 2**26
"""Values that are fitted, at most: half a GiB in float64."""

Indices = NDArray[np.intp]

Observe = Callable[[int, int, Progress], None]


@dataclass(frozen=True)
class Parts:
    """Rows of a table by what they are for; no row is for two things.

    Attributes:
        fitted: The model is fitted to these.
        held_out: They tell when to stop.
        calibration: Their scores say what a score means.
    """

    fitted: Indices
    held_out: Indices
    calibration: Indices


@dataclass(frozen=True)
class TableFit:
    """A model fitted to a table.

    Attributes:
        method: The model.
        parts: Which rows it was fitted on.
        plan: What was fitted.
        curves: The held-out loss of each member, in nats per row, by the step it was seen at.
    """

    method: Method
    parts: Parts
    plan: Plan
    curves: Sequence[Sequence[tuple[int, float]]]


def divide(rows: int, seed: int, columns: int = 1) -> Parts:
    """Divides the rows of a table at random.

    Arguments:
        rows: How many there are.
        seed: Of the draw.
        columns: How many columns they will have: of many, fewer rows are fitted.

    Raises:
        FitError: There are too few.
    """
    if rows < FEWEST_ROWS:
        raise FitError(f"{rows} rows to fit, expected at least {FEWEST_ROWS}")
    order = np.random.default_rng(seed).permutation(rows)
    small = min(ENOUGH_CALIBRATION, round(SMALL_CALIBRATION * rows))
    calibration = min(MOST_CALIBRATION, max(small, round(CALIBRATION * rows)))
    held_out = min(MOST_HELD_OUT, max(FEWEST_HELD_OUT, round(HELD_OUT * rows)))
    first, second = calibration, calibration + held_out
    most = min(MOST_FITTED, max(FEWEST_ROWS, MOST_CELLS // columns))
    return Parts(order[second : second + most], order[first:second], order[:first])


def fit_table(x: Rows, parts: Parts, seed: int = 0, observe: Observe | None = None) -> TableFit:
    """Fits a model to rows that are normal, or nearly all are.

    Arguments:
        x: Raw rows (N, M), missing values filled in.
        parts: Which of them are for what.
        seed: Of weights, batches and noise.
        observe: Called after each step with the member's index, the number of members, and the progress.

    Raises:
        FitError: A fit went wrong.
        FitInterrupted: A signal asked it to stop.
    """
    rows, held_out = (torch.from_numpy(part) for part in (parts.fitted, parts.held_out))
    table = torch.from_numpy(x)
    planned = plan(table[rows], table[held_out], seed)
    methods, curves = [], []
    for number, settings in enumerate(planned.settings):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + number)
            method = LinearStartRaDOGAGA(copy.deepcopy(planned.scaler), settings)
        method.start(table[rows], seed)
        if len(rows) < FEWEST_TRAINED:
            method.double().fit_density(table[rows])
            return TableFit(method, parts, planned, [[]])
        curve: list[tuple[int, float]] = []
        failures = fit(
            [Member(method, rows, seed + number, held_out)],
            table,
            settings,
            stopping=planned.stopping,
            observer=partial(_note, curve, observe, number, len(planned.settings)),
        )
        if failures:
            raise failures[0]
        methods.append(method)
        curves.append(curve)
    for method in methods:
        method.widen(max(settings.components for settings in planned.settings))
    with torch.no_grad():
        z = by_parts(methods[0].encode, table[rows[:ROWS_TO_COUNT]])
    codebook = Codebook.fitted(z, most_centres(len(z)), NOISE_VARIANCE, seed)
    ensemble = CodedEnsemble(methods, codebook)
    ensemble.fit_density(table[held_out])
    return TableFit(ensemble, parts, planned, curves)


def _note(curve: list[tuple[int, float]], observe: Observe | None, number: int, count: int, progress: Progress) -> None:
    if progress.held_out is not None:
        curve.append((progress.step, progress.held_out))
    if observe is not None:
        observe(number, count, progress)
