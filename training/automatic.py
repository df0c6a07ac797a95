"""What a fit needs to know, from the data: sizes, the number of components, batches and how long."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from training.densities.em import fit_mixture
from training.fitting import SMALLEST_BATCH, Stopping
from training.methods.linear_start import latent_unit, principal
from training.methods.mixture_autoencoder import NOISE_VARIANCE
from training.preprocessing import Scaler, TailScaler
from training.settings import Settings

LAMBDA = 25.0
"""The weight of the distortion of features of variance 1.

The latent's noise is then noise of variance 1 / (2 lambda), 0.02, in a feature: finer structure is not told from it.
"""

SMALLEST_VARIANCE = 0.25
"""Directions with less variance than this share of 1 / lambda are left to the distortion."""

LEAST_GAIN = 0.25
"""By so many nats per row a feature's tails have to be likelier when they are drawn in."""

SMALLEST_BINARY = 0.3
"""The least standard deviation that 0 and 1 are given, that of a one in each ten rows."""

MOST_LATENT = 64
MOST_COMPONENTS = 32
ROWS_PER_COMPONENT = 20
"""A component has so many rows on average, at least."""

MOST_MIXTURE = 2**16
"""K L^2, which a row costs in multiplications."""

ROWS_TO_COUNT = 20_000
"""Rows that the number of components is chosen by, and that centres are found of, at most."""

MOST_CENTRES, ROWS_PER_CENTRE = 128, 4

BATCH, MOST_STEPS, FEWEST_STEPS = 512, 3000, 200
WORK = 5.0e11
"""Multiplications of a fit, at most, unless that is less than `FEWEST_STEPS`."""

WIDTH = 64
"""Of both hidden layers."""

LOOKS, PATIENCE = 100, 10
"""How often a fit looks at the held-out rows, and for how many of these it waits for better."""

STANDARD_ERRORS = 2.0
"""By so many the fit has to be better than the linear start, or that is kept."""


@dataclass(frozen=True)
class Plan:
    """What is fitted to a table.

    Attributes:
        scaler: What rows go through first.
        settings: Of each member, which differ in their number of components.
        stopping: When they are done.
    """

    scaler: Scaler
    settings: Sequence[Settings]
    stopping: Stopping


def plan(x: Tensor, held_out: Tensor, seed: int) -> Plan:
    """Plans a fit for training rows (N, M) and held-out rows (H, M), all raw feature values.

    The latent has the principal components that stand out of the noise. The number of mixture components is that with
    the least rate of held-out latents in the linear case; members have half as many, as many and twice as many, because
    a mean over them is better than any one of them.
    """
    scaler = TailScaler.fitted(x, held_out, LEAST_GAIN, SMALLEST_BINARY)
    centre, variances, directions = principal(scaler(x), MOST_LATENT)
    latent = int((variances > SMALLEST_VARIANCE / LAMBDA).sum().clamp(1, MOST_LATENT))
    z, z_held_out = (
        (scaler(rows).double() - centre) @ directions[:, :latent] * latent_unit(LAMBDA) for rows in (x, held_out)
    )
    best = count_components(z, z_held_out, seed)
    counts = sorted({max(1, best // 2), best, min(2 * best, most_components(len(x), latent))})
    batch = max(SMALLEST_BATCH, min(BATCH, len(x) // 8))
    settings = []
    for components in counts:
        layers = x.shape[1] * WIDTH + WIDTH**2 + WIDTH * latent + x.shape[1] * latent
        work = 3 * batch * (6 * layers + 2 * components * latent**2)
        steps = min(MOST_STEPS, max(FEWEST_STEPS, int(WORK / work)))
        settings.append(
            Settings(
                hidden=(WIDTH, WIDTH),
                latent=latent,
                components=components,
                h="identity",
                lambda1=LAMBDA,
                lambda2=LAMBDA,
                scaling="standard",
                batch_size=batch,
                epochs=-(-steps // max(1, len(x) // batch)),
                learning_rate=1e-3,
                rate_at="noisy",
                reshuffle=True,
                gradient_norm=100.0,
                dropout=0.0,
                residuals=False,
            )
        )
    return Plan(scaler, settings, Stopping(every=max(5, steps // LOOKS), patience=PATIENCE, errors=STANDARD_ERRORS))


def most_components(rows: int, latent: int) -> int:
    """Returns the most components that so many rows and so wide a latent allow."""
    return max(1, min(MOST_COMPONENTS, rows // ROWS_PER_COMPONENT, MOST_MIXTURE // latent**2))


def most_centres(rows: int) -> int:
    """Returns the number of centres that so many rows allow."""
    return max(1, min(MOST_CENTRES, rows // ROWS_PER_CENTRE))


def count_components(z: Tensor, held_out: Tensor, seed: int) -> int:
    """Returns the power of two that held-out latents (H, L) cost least with, in a mixture fitted to latents (N, L)."""
    z, rates = z[:ROWS_TO_COUNT], dict[int, float]()
    components = 1
    while components <= most_components(len(z), z.shape[1]):
        rates[components] = -float(fit_mixture(z, components, NOISE_VARIANCE, seed).score(held_out.double().numpy()))
        components *= 2
    return min(rates, key=lambda count: rates[count])
