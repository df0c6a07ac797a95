"""What all figures have in common: how they are made without a display, and how they are written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DOTS_PER_INCH = 110

COLOURS = ("#0072b2", "#d55e00", "#009e73")
"""Three colours that colour-blind readers tell apart (Okabe and Ito, 2008)."""


def panels(rows: int, columns: int, width: float, height: float) -> tuple[Figure, list[list[Axes]]]:
    """Creates a figure of equal panels, each of a width and height in inches, and returns its axes row by row."""
    from matplotlib.figure import Figure  # here, so that whoever draws nothing need not load it

    figure = Figure(figsize=(columns * width, rows * height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, [list(row) for row in axes]


def save(figure: Figure, docs: Path, name: str) -> None:
    """Writes a figure to docs/figures/ as PNG, the same bytes each time."""
    path = docs / "figures" / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DOTS_PER_INCH, metadata={"Software": None})
