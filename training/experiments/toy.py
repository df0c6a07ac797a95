"""Section 4.1: on data whose density is known, is P(z) proportional to it? With Figures 2 and 3."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from training.datasets.toy import ToyData
from training.experiments.base import Request
from training.experiments.figures import COLOURS, panels, save
from training.experiments.records import Metrics, read_records
from training.experiments.results import lines_file
from training.experiments.runs import Listed, Run, metrics_by_seed
from training.experiments.toy_fits import DATA, RECIPES_OF, SEEDS, VARIANTS, Variant, fit_toy, plan_of
from training.fitting import FitError
from training.methods.mixture_autoencoder import MixtureAutoencoder


class Proportionality(TypedDict):
    """How far P(z) is from being proportional to P(x).

    With P(z) scaled to [0, 1] by its smallest and largest value over the rows, `gradient` and `intercept` are those of
    its linear regression on P(x), `residual` the mean of the squared residuals, `mean_absolute` that of their absolute
    values. `slope` is that of the regression of log P(z) on log P(x), 1 in theory, and `r2` the share of the variance
    of log P(z) that it explains.
    """

    residual: float
    mean_absolute: float
    gradient: float
    intercept: float
    slope: float
    r2: float


def unit_range(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scales values (N,) to [0, 1] by the smallest and the largest."""
    scaled: NDArray[np.float64] = (p - p.min()) / (p.max() - p.min())
    return scaled


def proportionality(density: NDArray[np.float64], scores: NDArray[np.float64]) -> Proportionality:
    """Compares densities with scores, as section 4.1.2 does and by their logarithms.

    The paper says "residual" and no more; read as the mean squared residual it does not depend on the unit of P(x).

    Arguments:
        density: The true density P(x) of each row, of shape (N,).
        scores: Energies -log P(z), of shape (N,).

    References:
        Rate-Distortion Optimization Guided Autoencoder (Kato et al., 2019), section 4.1.2
    """
    pz = unit_range(np.exp(scores.min() - scores))
    gradient, intercept = np.polyfit(density, pz, 1)
    left = pz - gradient * density - intercept
    slope, offset = np.polyfit(np.log(density), -scores, 1)
    unexplained = -scores - slope * np.log(density) - offset
    return Proportionality(
        residual=float(np.mean(left**2)),
        mean_absolute=float(np.abs(left).mean()),
        gradient=float(gradient),
        intercept=float(intercept),
        slope=float(slope),
        r2=float(1 - unexplained.var() / scores.var()),
    )


@torch.no_grad()
def measure(method: MixtureAutoencoder, data: ToyData) -> Metrics:
    """Returns proportionality, mixture weights in rising order, and the loss terms over all rows, the rate frozen."""
    x = torch.from_numpy(data.x)
    return {
        **proportionality(data.density, method.score(x).numpy()),
        "weights": method.density.log_weights.exp().sort().values.tolist(),
        "terms": method.frozen_terms(x),
    }


SHOWN_EVERY = 20
"""One in so many rows is drawn."""


def points_file(docs: Path, run: Run) -> Path:
    """Returns where the points are kept that the figures show of a run."""
    name = "-".join([run.dataset.removesuffix(".csv"), run.method, run.h, run.recipe]).replace(" ", "-").lower()
    return docs / "results" / "toy" / f"{name}.npz"


@torch.no_grad()
def save_points(path: Path, method: MixtureAutoencoder, data: ToyData) -> None:
    """Keeps latents z (n, 3), P(x), P(z) scaled to [0, 1] over all rows, and components of one row in twenty."""
    x = torch.from_numpy(data.x)
    scores = method.score(x).numpy()
    shown = slice(None, None, SHOWN_EVERY)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        path,
        z=method.encode(x)[shown].float().numpy(),
        px=data.density[shown].astype(np.float32),
        pz=unit_range(np.exp(scores.min() - scores))[shown].astype(np.float32),
        component=data.component[shown].astype(np.uint8),
    )


class Toy(Listed):
    """Three methods on two tables; five fits of each, which differ by their seeds."""

    name = "toy"
    summary = "section 4.1: P(z) against the true density of toy data, Figures 2 and 3"

    def runs(self, request: Request) -> list[Run]:
        return [
            Run(variant.method, variant.h, recipe, data, seed, plan_of(variant, recipe).to_json())
            for data in DATA
            for recipe in RECIPES_OF[data]
            if request.recipes is None or recipe in request.recipes
            for variant in VARIANTS
            for seed in SEEDS
        ]

    def do(self, runs: Sequence[Run], docs: Path, console: Console) -> list[Metrics]:
        data, plan = DATA[runs[0].dataset](), plan_of(variant_of(runs[0]), runs[0].recipe)
        folder = lines_file(docs, self.name).parent / ".unfinished"
        fits = fit_toy(plan, data, [run.seed for run in runs], folder, console)
        found: list[Metrics] = []
        for run, fitted in zip(runs, fits, strict=True):
            if isinstance(fitted, FitError):
                found.append({"failed": str(fitted)})
                continue
            found.append(measure(fitted, data))
            if run.seed == SEEDS[0]:
                save_points(points_file(docs, run), fitted, data)
        return found

    def render(self, docs: Path) -> str:
        records = read_records(lines_file(docs, self.name))
        first = [run for run in self.runs(Request((), None, (), 1, docs)) if run.seed == SEEDS[0]]
        cells = [(run, metrics_by_seed(records, run)) for run in first]
        text = render([(run, list(found.values())) for run, found in cells if found])
        for data in DATA:
            shown = [(run, found[run.seed]) for run, found in cells if run.dataset == data and run.seed in found]
            shown = [(run, metrics) for run, metrics in shown if points_file(docs, run).exists()]
            if shown:
                name = data.removesuffix(".csv")
                draw(shown, docs, f"{name}-latents", draw_latents)
                draw(shown, docs, f"{name}-densities", draw_densities)
                text += (
                    f"\n![latents on {data}](figures/{name}-latents.png)\n\n{LATENTS.format(data=data)}\n"
                    f"\n![P(x) against P(z) on {data}](figures/{name}-densities.png)\n\n{DENSITIES.format(data=data)}\n"
                )
        return text


LATENTS = (
    "Figure 2 on {data}: latents of seed 0, one row in twenty, in the plane of their first two principal axes, which"
    " share one scale. Colours are the components that the rows were drawn from. In the corner: the standard deviations"
    " along all three axes, in units of the latent. By Eq. (9) they should be in the proportion of the rows' own, which"
    " on toy.csv are 7.4, 4.0 and 1.5."
)

DENSITIES = (
    "Figure 3 on {data}: the true density P(x) against P(z), scaled to [0, 1], for the same rows, with its linear"
    " regression over all rows. In theory all points lie on a line through the origin."
)


def variant_of(run: Run) -> Variant:
    """Returns the variant that a run is of."""
    return next(variant for variant in VARIANTS if (variant.method, variant.h) == (run.method, run.h))


COLUMNS = {"residual": ".5f", "mean_absolute": ".4f", "slope": ".3f", "r2": ".3f"}


def render(cells: Sequence[tuple[Run, Sequence[Metrics]]]) -> str:
    """Writes the table in Markdown: mean and standard deviation over the seeds of a run's setting."""
    lines = [
        "| data | method | recipe | seeds | failed | residual | paper's | largest | mean absolute residual"
        " | slope of log P(z) on log P(x) | its R2 | smallest mixture weight |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for run, cell in cells:
        variant = variant_of(run)
        done = [metrics for metrics in cell if "failed" not in metrics]
        published = "" if variant.published is None else f"{variant.published:.4f}"
        fields = [run.dataset, variant.name, f"`{run.recipe}`", str(len(cell)), str(len(cell) - len(done))]
        figures = [spread(done, name, form) for name, form in COLUMNS.items()]
        largest = f"{max(metrics['residual'] for metrics in done):.5f}" if done else ""
        smallest = f"{min(metrics['weights'][0] for metrics in done):.3f}" if done else ""
        lines.append(f"| {' | '.join([*fields, figures[0], published, largest, *figures[1:], smallest])} |")
    return "\n".join(lines) + "\n"


def spread(cell: Sequence[Mapping[str, Any]], name: str, form: str) -> str:
    """Writes a metric's mean and, in brackets, its sample standard deviation."""
    values = [metrics[name] for metrics in cell]
    if not values:
        return ""
    return f"{mean(values):{form}}" + (f" ({stdev(values):{form}})" if len(values) > 1 else "")


Painter = Callable[[Any, Mapping[str, NDArray[Any]], Metrics], None]


def draw(shown: Sequence[tuple[Run, Metrics]], docs: Path, name: str, painter: Painter) -> None:
    """Draws a panel for every run: a row for each recipe, a column for each variant."""
    recipes = list(dict.fromkeys(run.recipe for run, _ in shown))
    figure, axes = panels(len(recipes), len(VARIANTS), 2.9, 2.5)
    for row in axes:
        for panel in row:
            panel.set_axis_off()
    for run, metrics in shown:
        variant = variant_of(run)
        panel = axes[recipes.index(run.recipe)][VARIANTS.index(variant)]
        panel.set_axis_on()
        with np.load(points_file(docs, run)) as points:
            painter(panel, points, metrics)
        panel.set_title(f"{variant.name}, {run.recipe}", fontsize=9)
        panel.tick_params(labelsize=7)
    drawn = next(panel for row in axes for panel in row if panel.axison)
    figure.legend(*drawn.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8, markerscale=3)
    save(figure, docs, name)


def draw_latents(panel: Any, points: Mapping[str, NDArray[Any]], _: Metrics) -> None:  # noqa: ANN401
    """Draws latents in the plane of their first two principal axes."""
    z = points["z"] - points["z"].mean(axis=0)
    _left, singular, axes = np.linalg.svd(z, full_matrices=False)
    plane = z @ axes[:2].T
    for component, colour in enumerate(COLOURS):
        own = plane[points["component"] == component]
        panel.scatter(own[:, 0], own[:, 1], s=3, color=colour, label=f"component {component + 1}", linewidths=0)
    panel.set_aspect("equal", adjustable="datalim")
    panel.set_xlabel("first axis of z", fontsize=8)
    panel.set_ylabel("second axis of z", fontsize=8)
    deviations = ", ".join(f"{value:.3g}" for value in singular / np.sqrt(len(z)))
    panel.text(0.03, 0.04, f"deviations {deviations}", transform=panel.transAxes, fontsize=7)


def draw_densities(panel: Any, points: Mapping[str, NDArray[Any]], metrics: Metrics) -> None:  # noqa: ANN401
    """Draws P(z) over P(x) and the regression over all rows."""
    for component, colour in enumerate(COLOURS):
        own = points["component"] == component
        label = f"component {component + 1}"
        panel.scatter(points["px"][own], points["pz"][own], s=3, color=colour, label=label, linewidths=0)
    ends = np.array([0.0, points["px"].max()])
    panel.plot(ends, metrics["intercept"] + metrics["gradient"] * ends, color="black", linewidth=0.8)
    panel.set_xlabel("P(x)", fontsize=8)
    panel.set_ylabel("P(z), scaled to [0, 1]", fontsize=8)
    panel.set_ylim(-0.05, 1.1)
    panel.text(0.97, 0.04, f"residual {metrics['residual']:.4f}", transform=panel.transAxes, ha="right", fontsize=7)
