r"""Appendix D: what h does to a linear encoder and decoder of one dimension, in closed form and trained.

With :math:`z = a x`, :math:`\hat{x} = b z`, :math:`x \sim N(0, \sigma_x^2)` and noise of variance
:math:`\sigma^2` the loss is

.. math:: \log a + \log(\sigma_x \sqrt{2\pi e}) + \lambda_1 E[h((ab - 1)^2 x^2)] + \lambda_2 \sigma^2 b^2

It has no lower bound, as log a has none. What training finds is a local minimum, and for h(d) = d there is one only if
:math:`\lambda_1 \sigma_x^2 \ge 2`.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from training.draws import Draws
from training.experiments.base import Request
from training.experiments.figures import COLOURS, panels, save
from training.experiments.records import Metrics, read_records
from training.experiments.results import lines_file
from training.experiments.runs import Listed, Run, metrics_by_seed
from training.fitting import Member, fit
from training.methods.radogaga import RaDOGAGA
from training.preprocessing import Scaler
from training.progress import watched
from training.settings import H, Settings

STRENGTHS = (0.5, 1.0, 1.5, 1.9, 2.2, 2.5, 3.0, 4.0, 6.0)
"""What lambda1 sigma_x^2 is given; h(d) = d has a minimum from 2 on."""

TICKS = (0.5, 1.0, 2.0, 4.0, 6.0)

BOUND = 2.0

ROWS = 512

SMALLEST_UNIFORM = 1e-7

LINEAR: dict[str, Any] = {
    "hidden": (),
    "latent": 1,
    "components": 1,
    "residuals": False,
    "dropout": 0.0,
    "lambda1": 1.0,
    "lambda2": 1.0,
    "batch_size": ROWS,
    "epochs": 3000,
    "learning_rate": 3e-2,
    "schedule": "cosine",
    "averaging": 0.2,
    "variance_floor": 1e-12,
}


class Linear(RaDOGAGA):
    """RaDOGAGA with a linear encoder and decoder of one dimension, a single Gaussian, and noise from N(0, 1).

    It starts from a = b = 1 without offsets, on the side of the minimum where the reconstruction is perfect.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(Scaler(torch.zeros(1), torch.ones(1)), settings)
        with torch.no_grad():
            for name in ("encoder.last.weight", "decoder.last.weight"):
                self.get_parameter(name).fill_(1.0)

    @staticmethod
    def noise(z: Tensor, draws: Draws) -> Tensor:
        """Draws epsilon, normal with variance 1, of z's shape."""
        uniform = draws.uniform(*z.shape[-2:]).reshape(z.shape)
        normal: Tensor = torch.special.ndtri(uniform.clamp(SMALLEST_UNIFORM, 1 - SMALLEST_UNIFORM))
        return normal

    @property
    def a(self) -> float:
        """The encoder's slope."""
        return self.encoder.last.weight.item()

    @property
    def b(self) -> float:
        """The decoder's slope."""
        return self.decoder.last.weight.item()


def closed_form(h: H, lambda1: float, lambda2: float, variance: float, noise: float = 1.0) -> tuple[float, float]:
    r"""Returns a and b at the minimum.

    .. math:: b = \frac{1}{\sqrt{2 \lambda_2 \sigma^2}}, \quad
        ab = \begin{cases} \frac12 \left(1 + \sqrt{1 - 2 / (\lambda_1 \sigma_x^2)}\right) & h(d) = d \\
        1 & h(d) = \log d \end{cases}

    The paper's first line has :math:`2 \lambda_1 \sigma^2` for a denominator; with :math:`2 \lambda_1 \sigma_x^2` it
    agrees with the limit that follows it, :math:`1 - 1 / (2 \lambda_1 \sigma_x^2)`.

    Arguments:
        h: The scale function of the distortion.
        lambda1: The weight of the distortion.
        lambda2: The weight of the perturbation.
        variance: The variance of the data.
        noise: The variance of the noise.

    Returns:
        The slopes of encoder and decoder; NaN for that of the encoder where there is no minimum.

    References:
        Rate-Distortion Optimization Guided Autoencoder (Kato et al., 2019), appendix D, Eq. (66) to (68)
    """
    b = 1 / math.sqrt(2 * lambda2 * noise)
    strength = lambda1 * variance
    if h == "log":
        return 1 / b, b
    if strength < BOUND:
        return math.nan, b
    return (1 + math.sqrt(1 - BOUND / strength)) / 2 / b, b


def normal_rows(variance: float) -> Tensor:
    """Returns rows (512, 1), quantiles of a normal distribution, whose variance is exactly `variance`."""
    quantiles = torch.special.ndtri((torch.arange(ROWS, dtype=torch.float64) + 0.5) / ROWS)
    rows: Tensor = quantiles * (variance / quantiles.square().mean()).sqrt()
    return rows.float()[:, None]


def train(settings: Settings, strengths: Sequence[float], console: Console) -> list[Linear]:
    """Fits a model for each of the values that lambda1 sigma_x^2 is given, together."""
    x = torch.cat([normal_rows(strength / settings.lambda1) for strength in strengths])
    members = [
        Member(Linear(settings), torch.arange(ROWS) + ROWS * index, seed=index) for index in range(len(strengths))
    ]
    with watched(f"appendix D, h {settings.h}", console) as observer:
        fit(members, x, settings, observer=observer)
    return [member.method for member in members if isinstance(member.method, Linear)]


class AppendixD(Listed):
    """The trained slopes beside the closed form."""

    name = "appendix_d"
    summary = "appendix D: the linear model's closed form against its training"

    def runs(self, _: Request) -> list[Run]:
        hs: tuple[H, ...] = ("identity", "log")
        return [
            Run("RaDOGAGA", h, "linear", "normal", 0, {**linear(h).to_json(), "strengths": list(STRENGTHS)}) for h in hs
        ]

    def do(self, runs: Sequence[Run], _: Path, console: Console) -> list[Metrics]:
        h: H = "log" if runs[0].h == "log" else "identity"
        models = train(linear(h), STRENGTHS, console)
        return [{"a": [model.a for model in models], "b": [model.b for model in models]} for _ in runs]

    def render(self, docs: Path) -> str:
        records = read_records(lines_file(docs, self.name))
        found = {
            run.h: metrics
            for run in self.runs(Request((), None, (), 1, docs))
            for metrics in metrics_by_seed(records, run).values()
        }
        if found:
            draw(found, docs)
        return render(found)


def linear(h: H) -> Settings:
    """Returns the settings of the linear model."""
    return Settings(h=h, **LINEAR)


NAMES = {"identity": "d", "log": "log d"}


def render(found: dict[str, Metrics]) -> str:
    """Writes the table in Markdown."""
    lines = [
        "| h | lambda1 sigma_x^2 | a, trained | a, closed form | b, trained | b, closed form | ab, trained"
        " | ab, closed form |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, metrics in found.items():
        for strength, a, b in zip(STRENGTHS, metrics["a"], metrics["b"], strict=True):
            a0, b0 = closed(name, strength)
            cells = [f"{value:.4f}" if value == value else "none" for value in (a, a0, b, b0, a * b, a0 * b0)]
            lines.append(f"| {NAMES[name]} | {strength:g} | {' | '.join(cells)} |")
    lines += ["", "![a, b and ab over lambda1 times the variance](figures/appendix_d.png)", "", CAPTION]
    return "\n".join(lines) + "\n"


CAPTION = (
    "Appendix D: encoder slope a, decoder slope b and their product over lambda1 sigma_x^2, each divided by what the"
    " limit of large lambda1 gives. Lines: closed form. Marks: trained by the method's own loss. Left of the dashed"
    " line, h(d) = d has no minimum: a runs to 0, where the loss is unbounded below and throws the optimiser about."
)


def closed(h: str, strength: float) -> tuple[float, float]:
    """Returns the closed form of a and b for the experiment's lambdas."""
    lambda1, lambda2 = LINEAR["lambda1"], LINEAR["lambda2"]
    return closed_form("log" if h == "log" else "identity", lambda1, lambda2, strength / lambda1)


def draw(found: dict[str, Metrics], docs: Path) -> None:
    """Draws a, b and ab over lambda1 sigma_x^2."""
    figure, [axes] = panels(1, 3, 3.4, 3.1)
    _, unit = closed("log", 1.0)
    grid = [BOUND * 10 ** (step / 100) for step in range(49)]
    for (h, metrics), colour in zip(found.items(), COLOURS, strict=False):
        below = [0.5, *grid] if h == "log" else grid
        lines = [(a * unit, b / unit, a * b) for a, b in (closed(h, strength) for strength in below)]
        marks = [(a * unit, b / unit, a * b) for a, b in zip(metrics["a"], metrics["b"], strict=True)]
        for index, panel in enumerate(axes):
            panel.plot(below, [line[index] for line in lines], color=colour, label=f"closed form, h = {NAMES[h]}")
            panel.plot(
                STRENGTHS,
                [mark[index] for mark in marks],
                "o" if h == "identity" else "x",
                color=colour,
                markersize=5,
                label=f"trained, h = {NAMES[h]}",
            )
    titles = ("a / sqrt(2 lambda2)", "b * sqrt(2 lambda2)", "ab")
    for panel, title in zip(axes, titles, strict=True):
        panel.axvline(BOUND, color="grey", linestyle="--", linewidth=0.8)
        panel.set(xscale="log", xlabel="lambda1 sigma_x^2", ylabel=title, ylim=(-0.8, 1.3))
        panel.set_xticks(TICKS, labels=[f"{tick:g}" for tick in TICKS])
        panel.minorticks_off()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    save(figure, docs, "appendix_d")
