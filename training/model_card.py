"""A model's card: what it was fitted on and how, what its scores look like, and what its threshold promises."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from training.datasets.base import Rows
from training.own_tables import OwnModel, Rule
from training.thresholds import smallest_rate

Scores = NDArray[np.floating]

CARD, CURVE, HISTOGRAM = "model_card.md", "learning_curve.png", "scores.png"

MOST_FEATURES = 100
"""Features that a card lists, at most."""

LONGEST_CELL = 120
DOTS_PER_INCH = 110
BINS = 60
HALVINGS = 200
SHOWN = 0.999
"""The share of the calibration scores that the histogram's range is of, at least."""


def write_card(model: OwnModel, manifest: Mapping[str, Any], calibration: Rows, anomalies: Rows, folder: Path) -> None:
    """Writes a model's card and its two pictures.

    Arguments:
        model: The model.
        manifest: What its folder's manifest says.
        calibration: Scores (N,) of the calibration rows.
        anomalies: Scores (A,) of labelled anomalies.
        folder: Where to.
    """
    draw_curves(model, folder / CURVE)
    draw_scores(calibration, anomalies, manifest["threshold"], folder / HISTOGRAM)
    (folder / CARD).write_text("\n".join(lines_of(model, manifest, calibration, anomalies)) + "\n")


def lines_of(model: OwnModel, manifest: Mapping[str, Any], scores: Rows, anomalies: Rows) -> list[str]:
    """Returns the lines of a card, given scores (N,) of the calibration rows and (A,) of labelled anomalies."""
    parts, plan = model.fit.parts, model.fit.plan
    first = plan.settings[0]
    calibration, threshold = manifest["calibration"], manifest["threshold"]
    text = [
        f"# {model.name}, version {manifest['version']}",
        "",
        "RaDOGAGA, fitted by `python -m training fit` without settings by hand.",
        "",
        "## Data",
        "",
        f"- sha256 of the table: `{model.sha256}`",
        f"- rows: {len(parts.fitted):,} fitted, {len(parts.held_out):,} held out to tell when to stop, "
        f"{len(parts.calibration):,} for the calibration",
        f"- {len(model.encoder.features)} columns, which are {len(model.encoder.columns)} values of a row",
    ]
    if manifest["ignored"]:
        text.append(f"- not used: {', '.join(f'`{name}`' for name in manifest['ignored'])}")
    text += ["", "| column | kind | of it |", "|---|---|---|"]
    for feature in model.encoder.features[:MOST_FEATURES]:
        text.append(f"| {cell(feature['name'])} | {feature['kind']} | {cell(about(feature))} |")
    if len(model.encoder.features) > MOST_FEATURES:
        text.append(f"| and {len(model.encoder.features) - MOST_FEATURES} more | | |")
    text += [
        "",
        "## Settings, found from the data",
        "",
        f"- latent: {first.latent} of {len(model.encoder.columns)} directions; lambda1 = lambda2 = {first.lambda1:g}, "
        "every feature scaled to variance 1",
        f"- {len(plan.settings)} members with mixtures of {', '.join(str(one.components) for one in plan.settings)} "
        "components, and the nearest centre; the score is the mean of their scaled energies",
        f"- long tails, behind a logarithm: {listed(manifest['provenance']['settings']['tails_drawn_in'])}",
        f"- hidden layers {' and '.join(map(str, first.hidden))}, batches of {first.batch_size}, seed {model.seed}",
        "",
        f"![Loss of held-out rows]({CURVE})",
        "",
        "## Decisions",
        "",
        f"- threshold {threshold:.6g}: {rule_of(calibration)}",
        measured(model.rule, scores),
        f"- p-values: conformal, from {manifest['p_values']['rows']:,} calibration rows; of rows drawn as these were, "
        "at most a share a has a p-value of at most a",
        "",
        f"![Scores of calibration rows]({HISTOGRAM})",
    ]
    if len(anomalies):
        found = manifest["provenance"]["metrics"]["shipped_threshold"]
        text += [
            "",
            f"Of {len(anomalies):,} labelled anomalies that the fit has not seen, beside the calibration rows: AUROC "
            f"{found['auroc']:.4f}, average precision {found['average_precision']:.4f}, recall {found['recall']:.4f}, "
            f"precision {found['precision']:.4f}.",
        ]
    return text


@dataclass(frozen=True)
class Crossed:
    """What thresholds do to rows that they don't come from: the mean rate of flags, and its standard deviation."""

    rate: float
    deviation: float


def crossed(rule: Rule, scores: Rows) -> Crossed:
    """Measures a rule on halves of calibration scores (N,): by one half's threshold, the rate of flags in the other."""
    draw, half = np.random.default_rng(0), len(scores) // 2
    rates = []
    for _ in range(HALVINGS):
        order = draw.permutation(len(scores))
        threshold = rule.threshold(scores[order[:half]])
        rates.append(np.mean(scores[order[half:]].astype(np.float64) >= threshold))
    return Crossed(float(np.mean(rates)), float(np.std(rates)))


def measured(rule: Rule, scores: Rows) -> str:
    """Says what a rule does to calibration rows (N,) that it doesn't see."""
    half = len(scores) // 2
    halved = rule.possible(half)
    found = crossed(halved, scores)
    weaker = "" if halved == rule else f"; {half} rows promise no less than {100 * smallest_rate(half):.3g} %"
    return (
        f"- measured: {100 * found.rate:.2f} % of one half of the calibration rows are called anomalies by the "
        f"threshold of the other half, over {HALVINGS} random halvings{weaker}; the standard deviation between them is "
        f"{100 * found.deviation:.2f} %"
    )


def listed(columns: Sequence[str]) -> str:
    """Names columns, as many as a card lists."""
    more = f" and {len(columns) - MOST_FEATURES} more" if len(columns) > MOST_FEATURES else ""
    return (", ".join(f"`{cell(name)}`" for name in columns[:MOST_FEATURES]) or "none") + more


def about(feature: Mapping[str, Any]) -> str:
    """Says what a feature's values were in training."""
    missing = ", may be missing" if feature.get("missing") else ""
    if feature["kind"] == "numeric":
        return f"{feature['minimum']:g} to {feature['maximum']:g}{missing}"
    if feature["kind"] == "categorical":
        return f"{', '.join(feature['categories'])}{', others' if feature.get('other') else ''}{missing}"
    if feature["kind"] == "timestamp":
        return f"{', '.join(feature['parts'])}{missing}"
    return f"true or false{missing}"


def cell(text: str) -> str:
    """Makes text fit a cell of a Markdown table."""
    shown = text if len(text) <= LONGEST_CELL else f"{text[:LONGEST_CELL]}..."
    return shown.replace("|", "\\|").replace("\n", " ")


def rule_of(calibration: Mapping[str, Any]) -> str:
    """Says how a threshold was chosen, and what it promises."""
    rows, flagged = calibration["rows"], calibration["flagged"]
    counted = f"{flagged:,} of the {rows:,} rows that it comes from reach it"
    if calibration["rule"] == "contamination":
        return f"the highest {100 * calibration['contamination']:g} % of scores reach it; {counted}"
    rate = calibration["false_positive_rate"]
    return f"of normal rows at most {100 * rate:.3g} % reach it, on average over calibration splits; {counted}"


def draw_curves(model: OwnModel, path: Path) -> None:
    """Draws the held-out loss of each member over its steps."""
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    for settings, curve in zip(model.fit.plan.settings, model.fit.curves, strict=True):
        steps, losses = zip(*curve, strict=True) if curve else ((), ())
        axes.plot(steps, losses, label=f"{settings.components} components")
    axes.set_xlabel("step")
    axes.set_ylabel("loss of held-out rows, nats per row")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=DOTS_PER_INCH, metadata={"Software": None})


def draw_scores(calibration: Scores, anomalies: Scores, threshold: float, path: Path) -> None:
    """Draws how calibration scores are distributed, and labelled anomalies', with the threshold."""
    calibration, anomalies = (scores.astype(np.float64) for scores in (calibration, anomalies))
    lower, upper = calibration.min(), max(threshold, np.quantile(calibration, SHOWN))
    upper += 0.25 * (upper - lower) or 1.0
    bins = np.linspace(lower, upper, BINS).tolist()
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.hist(np.clip(calibration, lower, upper), bins, density=True, alpha=0.7, label="calibration rows")
    if len(anomalies):
        axes.hist(np.clip(anomalies, lower, upper), bins, density=True, alpha=0.6, label="labelled anomalies")
    axes.axvline(threshold, color="black", linestyle="--", label=f"threshold {threshold:.4g}")
    axes.set_xlabel("score; what lies beyond is in the last bar")
    axes.set_ylabel("density")
    axes.legend()
    figure.savefig(path, dpi=DOTS_PER_INCH, metadata={"Software": None})
