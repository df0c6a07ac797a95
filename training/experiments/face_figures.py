"""The pictures of section 4.3: Figure 4, the curves of the fits, and Figure 5, whose faces stay out of docs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from training.experiments.figures import COLOURS, panels, save
from training.experiments.records import Metrics

GAP = 2
"""Pixels between the images of a traversal."""

BAR = 0.15


def draw_figure4(pair: Mapping[str, Metrics], docs: Path, name: str) -> None:
    """Draws variances above and D'_i below, with a column for each method, the beta-VAE first as in the paper."""
    methods = sorted(pair, key=lambda method: method != "beta-VAE")
    figure, axes = panels(2, len(methods), 4.2, 2.6)
    for column, method in enumerate(methods):
        metrics = pair[method]
        draw_variances(axes[0][column], metrics["variances"])
        draw_sensitivities(axes[1][column], metrics)
        axes[0][column].set_title(f"{'ab'[column]}) {method}: variance of z_i", fontsize=9)
        axes[1][column].set_title(f"{'cd'[column]}) {method}: D'_i, std / mean {metrics['unevenness']:.2f}", fontsize=9)
    save(figure, docs, name)


def draw_variances(panel: Any, spread: Sequence[float]) -> None:  # noqa: ANN401
    """Draws variances, already sorted, as bars and their cumulative share as a line."""
    places = np.arange(1, len(spread) + 1)
    panel.bar(places, spread, width=1.0, color=COLOURS[0])
    panel.set_xlabel("dimension, by variance", fontsize=8)
    panel.set_ylabel("variance", fontsize=8)
    panel.tick_params(labelsize=7)
    share = panel.twinx()
    share.plot(places, np.cumsum(spread) / np.sum(spread), color=COLOURS[1], linewidth=1.2)
    share.set_ylim(0, 1.02)
    share.set_ylabel("cumulative share", fontsize=8)
    share.tick_params(labelsize=7)


def draw_sensitivities(panel: Any, metrics: Metrics) -> None:  # noqa: ANN401
    """Draws mean D'_i as bars, their deviations over images as thin lines, and Eq. (9) if there is one."""
    means, places = metrics["sensitivities"], np.arange(1, len(metrics["sensitivities"]) + 1)
    panel.bar(places, means, color=COLOURS[0], yerr=metrics["sensitivity_deviations"], error_kw={"linewidth": 0.6})
    if "theory" in metrics:
        panel.axhline(metrics["theory"], color="black", linestyle="--", linewidth=0.8)
    panel.set_xticks(places)
    panel.set_ylim(bottom=0)
    panel.set_xlabel("dimension, by variance", fontsize=8)
    panel.set_ylabel("mean D'_i", fontsize=8)
    panel.tick_params(labelsize=7)


def draw_curves(curves: Mapping[str, Sequence[Mapping[str, float]]], docs: Path, file: str) -> None:
    """Draws SSIM and the unevenness of D'_i over the steps of each fit."""
    figure, axes = panels(1, 2, 4.6, 3.0)
    for index, (label, lines) in enumerate(curves.items()):
        steps = [line["step"] for line in lines]
        colour, dashes = COLOURS[index // 2 % len(COLOURS)], "-" if index % 2 == 0 else ":"
        for panel, name in zip(axes[0], ("ssim", "unevenness"), strict=True):
            values = [line[name] for line in lines]
            panel.plot(steps, values, label=label, linewidth=1.1, color=colour, linestyle=dashes)
    axes[0][1].axhline(BAR, color="black", linestyle="--", linewidth=0.8)
    axes[0][1].set_yscale("log")
    for panel, title in zip(axes[0], ("SSIM", "std / mean of D'_i"), strict=True):
        panel.set_xlabel("step", fontsize=8)
        panel.set_ylabel(title, fontsize=8)
        panel.tick_params(which="both", labelsize=7)
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=7)
    save(figure, docs, file)


def draw_traversals(rows: Tensor, path: Path) -> None:
    """Writes a picture with a row of images for each dimension.

    Arguments:
        rows: Images of shape (dimensions, places, 3, H, W) with values in [0, 1]; others are clipped.
        path: The PNG file.
    """
    padded = np.pad((rows.clamp(0, 1) * 255).round().byte().numpy(), [(0, 0)] * 3 + [(0, GAP)] * 2, constant_values=255)
    dimensions, places, channels, height, width = padded.shape
    picture = padded.transpose(0, 3, 1, 4, 2).reshape(dimensions * height, places * width, channels)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)
