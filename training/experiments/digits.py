"""Section 4.3's model as an anomaly scorer: nine handwritten digits are normal, one is not."""

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from training.baselines import BASELINES, fit
from training.datasets.base import Dataset, Split, protocol_a
from training.datasets.digits import ANOMALY, digits
from training.experiments.base import Request
from training.experiments.figures import panels, save
from training.experiments.records import Metrics, read_records
from training.experiments.results import lines_file
from training.experiments.runs import Listed, Run, metrics_by_seed
from training.export import open_session, run_in_batches
from training.jobs import FittedImages, ImageJob, run_images
from training.metrics import evaluate
from training.progress import watched
from training.thresholds import percentile_threshold

SEEDS = range(5)

OTHER_SEEDS = range(1)
"""Seeds of the splits with another digit as the anomaly."""

RIVALS = ("PCA residual", "kNN")
"""Baselines on the same splits, on pixels as they are: all have one unit."""

METHOD = "RaDOGAGA"

SHIPPED = Path(__file__).parents[2] / "models" / "digits" / "1"
"""The model whose traversals are drawn."""

TRAVERSED, STEPS = 6, 9
"""Latent features that are drawn, those of the largest variance, and steps from -2 to 2 standard deviations."""

PARTS = ("cost", "rate", "distortion")
"""What RaDOGAGA's score may be; the first is the shipped model's."""


class Digits(Listed):
    """RaDOGAGA with a factorized density on digits, beside PCA and kNN."""

    name = "digits"
    summary = "images: one digit against nine, by a factorized density"

    def runs(self, _: Request) -> list[Run]:
        anomalies = [ANOMALY, *(digit for digit in range(10) if digit != ANOMALY)]
        return [
            Run(method, h, recipe, "digits", seed, {"anomaly": anomaly, **settings})
            for anomaly in anomalies
            for method, h, recipe, settings in variants()
            for seed in (SEEDS if anomaly == ANOMALY else OTHER_SEEDS)
        ]

    def reproduce(self, request: Request, console: Console) -> None:
        super().reproduce(request, console)
        if SHIPPED.exists():
            draw_traversals(SHIPPED, request.docs)

    def do(self, runs: Sequence[Run], docs: Path, console: Console) -> list[Metrics]:
        dataset = digits(anomaly=runs[0].settings["anomaly"])
        if runs[0].method != METHOD:
            return [measure_rival(run, dataset, protocol_a(dataset.y, run.seed)) for run in runs]
        found, unfinished = [], []
        for run in runs:
            job = ImageJob(dataset="digits", seed=run.seed)
            path = (
                lines_file(docs, self.name).parent / ".unfinished" / f"digits-{run.settings['anomaly']}-{run.seed}.pt"
            )
            with watched(
                f"{run.label}, {run.settings['anomaly']} is the anomaly, seed {run.seed}", console
            ) as observer:
                model = run_images(job, dataset, observer=observer, checkpoint=path, resume=path.exists())
            found.append(measure(model))
            unfinished.append(path)
        for path in unfinished:
            path.unlink(missing_ok=True)
        return found

    def render(self, docs: Path) -> str:
        records = read_records(lines_file(docs, self.name))
        cells: dict[int, dict[str, list[Metrics]]] = {}
        for run in self.runs(Request((), None, (), 1, docs)):
            if of_setting := metrics_by_seed(records, run):
                cells.setdefault(run.settings["anomaly"], {})[run.method] = list(of_setting.values())
        return table(cells)


def variants() -> list[tuple[str, str, str, dict[str, Any]]]:
    """Lists method, h, recipe and settings of what is compared."""
    ours = ImageJob(dataset="digits", seed=0)
    rivals = [(name, "", "none", BASELINES[name].settings()) for name in RIVALS]
    return [(METHOD, "identity", ours.recipe, ours.settings.to_json()), *rivals]


@torch.no_grad()
def measure(model: FittedImages) -> Metrics:
    """Judges the test half by a fitted model's cost, by its rate alone and by its distortion alone."""
    method, test, dataset = model.method, model.split.test, model.dataset
    y = dataset.y[test]

    def parts_of(rows: NDArray[np.intp]) -> dict[str, torch.Tensor]:
        x = torch.from_numpy(dataset.x[rows]).double()
        rate, cost = method.rate(method.encode(x)), method.score(x)
        return {"cost": cost, "rate": rate, "distortion": cost - rate}

    scores = {name: part.numpy() for name, part in parts_of(test).items()}
    judged = {
        name: evaluate(y, score, percentile_threshold(score, dataset.contamination)) for name, score in scores.items()
    }
    fitted = {name: float(part.mean()) for name, part in parts_of(model.split.normal).items()}
    tested = {name: float(score[~y].mean()) for name, score in scores.items()}
    return {**judged, "nats of fitted rows": fitted, "nats of normal test rows": tested}


def measure_rival(run: Run, dataset: Dataset, split: Split) -> Metrics:
    """Judges the test half by a baseline."""
    score = fit(BASELINES[run.method], run.recipe, dataset.x[split.normal], run.seed)
    scores, y = score(dataset.x[split.test]), dataset.y[split.test]
    return {"cost": evaluate(y, scores, percentile_threshold(scores, dataset.contamination))}


def table(cells: dict[int, dict[str, list[Metrics]]]) -> str:
    """Writes AUROC in Markdown, a line for each digit that is the anomaly."""
    lines = [
        "| anomaly | seeds | RaDOGAGA, rate + distortion | rate alone | distortion alone | PCA residual | kNN |",
        "|---|---|---|---|---|---|---|",
    ]
    for anomaly, found in sorted(cells.items(), key=lambda cell: (-len(cell[1].get(METHOD, ())), cell[0])):
        fields = [str(anomaly), str(max(len(runs) for runs in found.values()))]
        fields += [spread(found.get(METHOD, []), part) for part in PARTS]
        fields += [spread(found.get(name, []), "cost") for name in RIVALS]
        lines.append(f"| {' | '.join(fields)} |")
    return "\n".join(lines) + "\n"


def spread(runs: Sequence[Metrics], part: str) -> str:
    """Writes the mean of AUROC over runs, and its deviation if there are several."""
    if not runs:
        return ""
    values = [run[part]["auroc"] for run in runs]
    return f"{mean(values):.3f}" + (f" ({stdev(values):.3f})" if len(values) > 1 else "")


def traversals(folder: Path, features: int = TRAVERSED, steps: int = STEPS) -> NDArray[np.float32]:
    """Decodes what lies from -2 to 2 standard deviations along each of the widest latent features of a model.

    The other features keep their means, as in the paper's figure 5.

    Arguments:
        folder: A model folder with `image` and `latents`.
        features: How many latent features F, those of the largest variance first.
        steps: How many points S along each.

    Returns:
        Images (F, S, H, W) of the first channel, in raw values.
    """
    manifest = json.loads((folder / "manifest.json").read_text())
    means, deviations = (np.array(manifest["latents"][name]) for name in ("means", "deviations"))
    z = np.tile(means, (features, steps, 1))
    for row, feature in enumerate(np.argsort(-deviations)[:features]):
        z[row, :, feature] += np.linspace(-2, 2, steps) * deviations[feature]
    flat = z.reshape(features * steps, -1).astype(np.float32)
    rows = run_in_batches(open_session(folder / manifest["graphs"]["decoder"]["file"]), flat)
    shape = manifest["image"]
    return rows.reshape(features, steps, shape["channels"], shape["height"], shape["width"])[:, :, 0]


def draw_traversals(folder: Path, docs: Path) -> None:
    """Draws traversals of a model, a latent feature per row."""
    images = traversals(folder)
    figure, axes = panels(TRAVERSED, STEPS, 0.8, 0.8)
    for row, line in zip(axes, images, strict=True):
        for panel, image in zip(row, line, strict=True):
            panel.imshow(image, cmap="gray_r", vmin=0, vmax=16)
            panel.set(xticks=[], yticks=[])
    for panel, step in zip(axes[0], np.linspace(-2, 2, STEPS), strict=True):
        panel.set_title(f"{step:g} sd", fontsize=8)
    save(figure, docs, "digits")
