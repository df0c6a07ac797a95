"""Draws what a soak held: `python -m tests.chaos.pictures samples.jsonl docs/figures/soak.png`."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt

from tests.chaos.vitals import Vitals

PANELS: dict[str, Callable[[Vitals], float]] = {
    "resident memory, MB": lambda one: one.rss,
    "file descriptors": lambda one: one.descriptors,
    "threads": lambda one: one.threads,
}


def draw(samples: list[Vitals], file: Path) -> None:
    """Draws memory, file descriptors and threads over the minutes, each from zero: under load, and at rest."""
    figure, axes = plt.subplots(
        len(PANELS), 1, sharex=True, figsize=(8, 6), height_ratios=(2, 1, 1), layout="constrained"
    )
    loaded, rested = ([one for one in samples if one.resting is resting] for resting in (False, True))
    for (title, value), axis in zip(PANELS.items(), axes, strict=True):
        axis.plot([one.at / 60 for one in loaded], [value(one) for one in loaded], linewidth=0.5, label="under load")
        axis.plot([one.at / 60 for one in rested], [value(one) for one in rested], "o-", markersize=3, label="at rest")
        axis.set_ylim(0, 1.1 * max(value(one) for one in samples))
        axis.set_title(title, loc="left", fontsize=10)
        axis.grid(alpha=0.3)
    axes[0].legend(loc="lower right", ncols=2, fontsize=9)
    axes[-1].set_xlabel("minutes")
    figure.savefig(file, dpi=110, metadata={"Software": None})
    plt.close(figure)


def read(file: Path) -> list[Vitals]:
    """Reads the samples of a soak."""
    return [Vitals(**json.loads(line)) for line in file.read_text().splitlines()]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.pictures", description="Draw a soak.")
    parser.add_argument("samples", type=Path)
    parser.add_argument("picture", type=Path)
    options = parser.parse_args()
    draw(read(options.samples), options.picture)
