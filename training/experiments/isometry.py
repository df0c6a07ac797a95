r"""Eq. (9) on trained models: are the decoder's columns orthogonal, and of the length that lambda2 says?"""

from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any, TypedDict, cast

import torch
from rich.console import Console
from torch import Tensor

from training.experiments.base import Request
from training.experiments.figures import panels, save
from training.experiments.records import Metrics, read_records
from training.experiments.results import lines_file
from training.experiments.runs import Listed, Run, metrics_by_seed
from training.experiments.toy import spread, variant_of
from training.experiments.toy_fits import DATA, SEEDS, VARIANTS, fit_toy, plan_of
from training.fitting import FitError
from training.jobs import Job, run_together
from training.methods.mixture_autoencoder import NOISE_VARIANCE, MixtureAutoencoder
from training.nn.mlp import MLP
from training.progress import watched
from training.settings import H, MethodName

ROWS = 500
"""The Jacobian is averaged over so many rows, evenly spaced in the table."""

THYROID: tuple[tuple[MethodName, H], ...] = (("DAGMM", "identity"), ("RaDOGAGA", "log"))
"""What is measured on Thyroid, by its robust recipe."""


class Isometry(TypedDict):
    """How a decoder compares with Eq. (9).

    `matrix` is the mean over rows of the ratio matrix, in theory the identity. `diagonal` is the mean of its diagonal,
    `diagonal_deviation` the standard deviation of the diagonal's entries over rows and dimensions, `largest_off` the
    largest magnitude off its diagonal, and `mean_off` the mean magnitude off the diagonal, over rows as well.
    """

    matrix: list[list[float]]
    diagonal: float
    diagonal_deviation: float
    largest_off: float
    mean_off: float


def gram(decoder: MLP, z: Tensor) -> Tensor:
    r"""Returns the products :math:`(\partial x_D / \partial z_i)^T (\partial x_D / \partial z_j)` at latents.

    D is the squared error of scaled rows, which are what the decoder returns; so x_D is its output.

    Arguments:
        decoder: The decoder, in float64.
        z: Latents (N, L).

    Returns:
        Matrices (N, L, L).
    """

    def decode(point: Tensor) -> Tensor:
        row: Tensor = decoder(point[None]).squeeze(0)
        return row

    jacobian: Tensor = torch.func.vmap(torch.func.jacrev(decode))(z)
    return jacobian.mT @ jacobian


def isometry(products: Tensor, unit: float | None) -> Isometry:
    r"""Measures Eq. (9), whose two sides are divided by the right one's :math:`1 / (2 \lambda_2 \sigma^2)`.

    Arguments:
        products: Products of the decoder's columns (N, L, L), with L of at least 2.
        unit: What the diagonal should be; None takes its own mean, for a method whose scale is free.

    References:
        Rate-Distortion Optimization Guided Autoencoder (Kato et al., 2019), Eq. (9)
    """
    diagonal = products.diagonal(dim1=-2, dim2=-1)
    ratios = products / (float(diagonal.mean()) if unit is None else unit)
    diagonal = ratios.diagonal(dim1=-2, dim2=-1)
    matrix = ratios.mean(dim=0)
    apart = ~torch.eye(len(matrix), dtype=torch.bool)
    return Isometry(
        matrix=[[round(value, 5) for value in row] for row in matrix.tolist()],
        diagonal=float(diagonal.mean()),
        diagonal_deviation=float(diagonal.std(correction=0)),
        largest_off=float(matrix[apart].abs().max()),
        mean_off=float(ratios[:, apart].abs().mean()),
    )


@torch.no_grad()
def measure(method: MixtureAutoencoder, x: Tensor, own_unit: bool) -> Metrics:
    """Measures a fitted model at the latents of 500 of its rows x (N, M)."""
    shown = x[torch.linspace(0, len(x) - 1, min(ROWS, len(x))).long()]
    unit = None if own_unit else 1 / (2 * method.settings.lambda2 * NOISE_VARIANCE)
    return cast(Metrics, isometry(gram(method.decoder, method.encode(shown)), unit))


def thyroid_job(method: MethodName, h: H, seed: int) -> Job:
    """Returns the fit on Thyroid that is measured."""
    return Job(dataset="thyroid", method=method, h=h, recipe="robust", seed=seed)


class EquationNine(Listed):
    """Eq. (9) on the toy models, and on Thyroid's."""

    name = "isometry"
    summary = "Eq. (9): the decoder's Jacobian against delta_ij / (2 lambda2 sigma^2)"

    def runs(self, _: Request) -> list[Run]:
        listed = [
            Run(variant.method, variant.h, recipe, "toy.csv", seed, plan_of(variant, recipe).to_json())
            for recipe in ("faithful", "robust")
            for variant in VARIANTS
            for seed in SEEDS
        ]
        for method, h in THYROID:
            for seed in SEEDS:
                settings = thyroid_job(method, h, seed).settings.to_json()
                listed.append(Run(method, h, "robust", "thyroid", seed, settings))
        return listed

    def do(self, runs: Sequence[Run], docs: Path, console: Console) -> list[Metrics]:
        variant, seeds = variant_of(runs[0]), [run.seed for run in runs]
        own_unit = variant.method == "DAGMM"
        if runs[0].dataset in DATA:
            data = DATA[runs[0].dataset]()
            folder = lines_file(docs, self.name).parent / ".unfinished"
            fits = fit_toy(plan_of(variant, runs[0].recipe), data, seeds, folder, console)
            x = torch.from_numpy(data.x)
            return [failed(fit) if isinstance(fit, FitError) else measure(fit, x, own_unit) for fit in fits]
        jobs = [thyroid_job(variant.method, variant.h, seed) for seed in seeds]
        with watched(f"thyroid {variant.name}", console) as observer:
            models = run_together(jobs, observer=observer)
        found: list[Metrics] = []
        for model in models:
            if isinstance(model, FitError):
                found.append(failed(model))
            else:
                x = torch.from_numpy(model.dataset.x[model.split.normal])
                found.append(measure(cast(MixtureAutoencoder, model.method), x, own_unit))
        return found

    def render(self, docs: Path) -> str:
        records = read_records(lines_file(docs, self.name))
        first = [run for run in self.runs(Request((), None, (), 1, docs)) if run.seed == SEEDS[0]]
        cells = [(run, list(metrics_by_seed(records, run).values())) for run in first]
        cells = [(run, cell) for run, cell in cells if cell]
        text = render(cells)
        shown = [(run, cell[0]) for run, cell in cells if "matrix" in cell[0]]
        if shown:
            draw(shown, docs)
            text += f"\n![ratio matrices of Eq. (9)](figures/isometry.png)\n\n{CAPTION}\n"
        return text


def failed(error: FitError) -> Metrics:
    """Returns the line of a fit that failed."""
    return {"failed": str(error)}


COLUMNS = {"diagonal": ".3f", "diagonal_deviation": ".3f", "largest_off": ".3f", "mean_off": ".3f"}


def render(cells: Sequence[tuple[Run, Sequence[Metrics]]]) -> str:
    """Writes the table in Markdown: mean and standard deviation over the seeds of a run's setting."""
    lines = [
        "| data | method | recipe | seeds | failed | mean diagonal ratio | its deviation over rows and dimensions"
        " | largest off-diagonal ratio | mean off-diagonal ratio | largest off-diagonal over mean diagonal |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for run, cell in cells:
        done = [metrics for metrics in cell if "failed" not in metrics]
        fields = [run.dataset, variant_of(run).name, f"`{run.recipe}`", str(len(cell)), str(len(cell) - len(done))]
        fields += [spread(done, name, form) for name, form in COLUMNS.items()]
        fields.append(f"{mean(each['largest_off'] / each['diagonal'] for each in done):.3f}" if done else "")
        lines.append(f"| {' | '.join(fields)} |")
    return "\n".join(lines) + "\n"


CAPTION = (
    "Eq. (9), seed 0: the products of the decoder's columns times 2 lambda2 sigma^2, averaged over 500 rows; in theory"
    " the identity. DAGMM's lambda2 says nothing about the scale, so its matrices are divided by the mean of their own"
    " diagonals."
)


def draw(shown: Sequence[tuple[Run, Metrics]], docs: Path) -> None:
    """Draws the ratio matrices as heat maps with their values."""
    columns = len(VARIANTS)
    figure, axes = panels(-(-len(shown) // columns), columns, 3.0, 2.7)
    cells = [panel for row in axes for panel in row]
    for panel in cells[len(shown) :]:
        panel.set_axis_off()
    for panel, (run, metrics) in zip(cells, shown, strict=False):
        matrix: list[list[float]] = metrics["matrix"]
        image = heat_map(panel, matrix)
        panel.set_title(f"{variant_of(run).name}, {run.dataset}, {run.recipe}", fontsize=8)
        figure.colorbar(image, ax=panel, label="ratio", shrink=0.85)
    save(figure, docs, "isometry")


def heat_map(panel: Any, matrix: Sequence[Sequence[float]]) -> Any:  # noqa: ANN401
    """Draws one matrix, with the theory's 1 in the middle between white and the darkest."""
    image = panel.imshow(matrix, cmap="RdBu_r", vmin=-2.0, vmax=2.0)
    indices = range(len(matrix))
    for i in indices:
        for j in indices:
            value = matrix[i][j]
            text = f"{value:.2f}" if abs(value) < 100 else f"{value:.0f}"
            colour = "white" if abs(value) > 1.3 else "black"
            panel.text(j, i, text, ha="center", va="center", fontsize=8 if len(matrix) < 5 else 5, color=colour)
    panel.set(xticks=indices, yticks=indices)
    panel.set_xticklabels([f"z{i + 1}" for i in indices], fontsize=7)
    panel.set_yticklabels([f"z{i + 1}" for i in indices], fontsize=7)
    return image
