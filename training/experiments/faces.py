"""Section 4.3 on faces: do latent features count in units of the distance, and does the latent behave as a PCA?"""

import math
import time
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from training.experiments.base import Request
from training.experiments.face_figures import draw_curves, draw_figure4, draw_traversals
from training.experiments.face_fits import (
    METHODS,
    RECIPES,
    SEED,
    FaceFit,
    checkpoint_of,
    fit_faces,
    read_curve,
)
from training.experiments.face_measures import (
    DELTA,
    SENSITIVE,
    TOP,
    TRAVERSED,
    changes,
    correlation_within,
    dimensions_for,
    flatness,
    isometry,
    latents,
    log_correlation,
    quadratic_errors,
    sensitivities,
    similarity,
    traversal,
    unevenness,
    variances,
)
from training.experiments.records import Metrics, append_record, read_records, record_of
from training.experiments.results import lines_file
from training.experiments.runs import Listed, Run, key, metrics_by_seed, run_of
from training.methods.factorized_radogaga import FactorizedRaDOGAGA
from training.methods.mixture_autoencoder import NOISE_VARIANCE

WITHIN = 40
"""Test images within each of which inner products are compared."""

SHOWN = 10
"""So many traversals are drawn and compared."""

PLACES = (-2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0)
"""Where a drawn traversal stops, in standard deviations."""


def curve_file(docs: Path, run: Run) -> Path:
    """Returns where a fit's curve is kept."""
    return docs / "results" / "faces" / f"{run.recipe}-{run.method.lower()}.jsonl"


def curve_link(run: Run) -> str:
    """Returns a link to a fit's curve."""
    name = f"{run.recipe}-{run.method.lower()}.jsonl"
    return f"[curve](results/faces/{name})"


class OnFaces(Listed):
    """What both figures share: the fits, and that an unfinished one is measured as it is and gone on with later."""

    only_by_name = True

    def runs(self, request: Request) -> list[Run]:
        return [
            Run(method, "identity", name, f"celeba-10000 {recipe.size}x{recipe.size}", SEED, settings.to_json())
            for name, recipe in RECIPES.items()
            if request.recipes is None or name in request.recipes
            for method, settings in recipe.settings.items()
        ]

    def missing(self, request: Request) -> list[Run]:
        done = {
            key(run_of(record))
            for record in read_records(lines_file(request.docs, self.name))
            if record["metrics"]["step"] == record["metrics"]["steps"]
        }
        return [run for run in self.runs(request) if key(run) not in done]

    def reproduce(self, request: Request, console: Console) -> None:
        runs = self.missing(request)
        for place, run in enumerate(runs):
            now = time.monotonic()
            share = (request.deadline - now) / (len(runs) - place)  # what one leaves is left to those after it
            curve = curve_file(request.docs, run)
            fitted = fit_faces(run.method, RECIPES[run.recipe], curve, console, run.label, now + share)
            metrics = {"step": fitted.step, "steps": fitted.steps, **self.measure(fitted, run)}
            line = record_of(self.name, run, run.settings, metrics, fitted.seconds)
            append_record(lines_file(request.docs, self.name), line)
            console.print(f"{run.label}: step {fitted.step} of {fitted.steps}", highlight=False, markup=False)

    def do(self, runs: Sequence[Run], docs: Path, console: Console) -> list[Metrics]:
        raise NotImplementedError  # they are done one by one

    @abstractmethod
    def measure(self, fitted: FaceFit, run: Run) -> Metrics:
        """Measures a fit."""

    def found(self, docs: Path) -> list[tuple[Run, Metrics]]:
        """Returns each run that has a line, with what its last line says and the seconds."""
        records = read_records(lines_file(docs, self.name))
        pairs = [(run, metrics_by_seed(records, run).get(SEED)) for run in self.runs(Request((), None, (), 1, docs))]
        return [(run, metrics) for run, metrics in pairs if metrics is not None]


class Figure4(OnFaces):
    """Figure 4, and the correlation of inner products."""

    name = "figure4"
    summary = "section 4.3: variances of the latent, D'_i and inner products on faces, Figure 4"

    def measure(self, fitted: FaceFit, run: Run) -> Metrics:
        method, images = fitted.method, RECIPES[run.recipe].measured
        z, z_train = latents(method, fitted.test), latents(method, fitted.train[: len(fitted.test)])
        alike, error = similarity(method, fitted.test, z)
        alike_train, _error = similarity(method, fitted.train[: len(z_train)], z_train)
        method, z = method.double(), z.double()  # for what follows are differences
        spread = variances(z)
        order = spread.argsort(descending=True)
        needed, some = dimensions_for(spread), z[:images]
        deltas = DELTA * spread.sqrt().clamp_min(1e-3)
        ratios = sensitivities(method, some, deltas, order[:TOP].tolist())
        leading = torch.zeros_like(spread).index_fill(0, order[:needed], 1.0)
        top = torch.zeros_like(spread).index_fill(0, order[:TOP], 1.0)
        metrics: dict[str, Any] = {
            "minutes": fitted.seconds / 60,
            "ssim": alike,
            "ssim_of_training_images": alike_train,
            "squared_error": error,
            "variances": spread[order].tolist(),
            "dimensions_for_90_percent": needed,
            "sensitivities": ratios.mean(dim=1).tolist(),
            "sensitivity_deviations": ratios.std(dim=1, correction=0).tolist(),
            "unevenness": unevenness(ratios),
            "deviation_between_images": float(
                (ratios / ratios.mean(dim=1, keepdim=True)).mean(dim=0).std(correction=0)
            ),
            "isometry": {
                "along all dimensions": isometry(method, some, torch.ones_like(spread)),
                "along those of 90 % of the variance": isometry(method, some, leading),
                "along the top nine": isometry(method, some, top),
                "as the latents are spread": isometry(method, some, spread.sqrt()),
            },
            "correlation_within_images": correlation_within(method, some[:WITHIN], top),
        }
        if method.settings.distance == "ssim":
            x = method.scaler(fitted.test[:SENSITIVE].double())
            metrics["flatness_correlation"] = log_correlation(ratios.mean(dim=0), flatness(method, some))
            metrics["quadratic_errors"] = quadratic_errors(x, method.shape, method.settings.window)
        if isinstance(method, FactorizedRaDOGAGA):
            metrics["theory"] = 1 / (2 * method.lambdas[1] * NOISE_VARIANCE)
        return metrics

    def render(self, docs: Path) -> str:
        found = self.found(docs)
        text = render_fits(found) + "\n" + render_bars(found)
        text += "".join(quadratic_line(run, metrics) for run, metrics in found if "theory" in metrics)
        for recipe in RECIPES:
            pair = {run.method: metrics for run, metrics in found if run.recipe == recipe}
            if len(pair) == len(METHODS):
                draw_figure4(pair, docs, f"figure4-{recipe}")
                text += f"\n![variances and D'_i, {recipe}](figures/figure4-{recipe}.png)\n\n{FIGURE4[recipe]}\n"
        curves = {f"{run.method}, {run.recipe}": read_curve(curve_file(docs, run)) for run, _ in found}
        curves = {name: lines for name, lines in curves.items() if lines}
        if curves:
            draw_curves(curves, docs, "faces-curves")
            text += f"\n![how the fits went](figures/faces-curves.png)\n\n{CURVES}\n"
        return text


BELOW_FIGURE4 = (
    "Above: variances of the latent over the test images in descending order, and their cumulative share. Below: mean"
    " D'_i of the nine dimensions of the largest variance, over 200 test images (40 for appendix F), with their"
    " standard deviations over images as thin lines; the dashed line is Eq. (9)'s 1 / (2 lambda2 sigma^2)."
)

FIGURE4 = {
    "reduced": f"Figure 4, the reduced network, D = 1 - SSIM. {BELOW_FIGURE4}",
    "reduced-squared-error": "The same with D the squared error.",
    "full": "The same for the network of appendix F, D = 1 - SSIM, as far as its fits have come.",
}

CURVES = (
    "SSIM of 200 test images, and standard deviation over mean of D'_i of the nine dimensions of largest variance over"
    " 50 of them, while the fits go on. The dashed line is the bar."
)


def render_fits(found: Sequence[tuple[Run, Metrics]]) -> str:
    """Writes the table of fits in Markdown."""
    lines = [
        "| fit | method | D | images | steps | minutes of CPU | SSIM, test | SSIM, training | squared error per value"
        " | curve |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for run, metrics in found:
        distance = "1 - SSIM" if run.settings["distance"] == "ssim" else "squared error"
        fields = [f"`{run.recipe}`", run.method, distance, run.dataset, f"{metrics['step']:,} of {metrics['steps']:,}"]
        fields += [f"{metrics['minutes']:.0f}", f"{metrics['ssim']:.4f}", f"{metrics['ssim_of_training_images']:.4f}"]
        fields += [f"{metrics['squared_error']:.5f}", curve_link(run)]
        lines.append(f"| {' | '.join(fields)} |")
    return "\n".join(lines) + "\n"


def render_bars(found: Sequence[tuple[Run, Metrics]]) -> str:
    """Writes the table of what section 4.3 claims in Markdown."""
    kinds = list(found[0][1]["isometry"]) if found else []
    lines = [
        "| fit | method | std / mean of D'_i, top nine | their mean | Eq. (9) | std / mean of their mean between images"
        " | dimensions for 90 % of the variance | "
        + " | ".join(f"correlation of inner products, {kind}" for kind in kinds)
        + " | the same along the top nine, within an image |",
        f"|---|---|---|---|---|---|---|{'---|' * (len(kinds) + 1)}",
    ]
    for run, metrics in found:
        mean = math.fsum(metrics["sensitivities"]) / TOP
        fields = [f"`{run.recipe}`", run.method, f"{metrics['unevenness']:.3f}", f"{mean:.3g}"]
        fields += [f"{metrics['theory']:.3g}" if "theory" in metrics else ""]
        fields += [f"{metrics['deviation_between_images']:.3f}"]
        fields += [f"{metrics['dimensions_for_90_percent']} of {len(metrics['variances'])}"]
        fields += [f"{metrics['isometry'][kind]['correlation']:.3f}" for kind in kinds]
        fields.append(f"{metrics['correlation_within_images']:.3f}")
        lines.append(f"| {' | '.join(fields)} |")
    return "\n".join(lines) + "\n"


def quadratic_line(run: Run, metrics: Metrics) -> str:
    """Says how far Eq. (64) is from Eq. (60) on the test images of a recipe, if its distance is 1 - SSIM."""
    if "quadratic_errors" not in metrics:
        return ""
    found = [
        f"{name}: {errors['mean']:.2%} in the mean, at most {errors['largest']:.2%}"
        for name, errors in metrics["quadratic_errors"].items()
    ]
    return (
        f"\nEq. (64) against Eq. (60) on 200 test images, {run.dataset}, for displacements of 1 % of the image's norm"
        f" ({'; '.join(found)}). The logarithms of RaDOGAGA's mean D'_i of an image and of"
        f" the mean of 1 / (2 sigma_x^2 + c2) over its windows have a correlation of"
        f" {metrics['flatness_correlation']:.2f}.\n"
    )


class Figure5(OnFaces):
    """Figure 5: traversals of the latent. The faces are drawn beside the checkpoints, and never into docs."""

    name = "figure5"
    summary = "section 4.3: traversals of the latent from -2 to 2 sigma, Figure 5 (its faces beside the checkpoints)"

    def measure(self, fitted: FaceFit, run: Run) -> Metrics:
        method = fitted.method.double()
        z = latents(method, fitted.test)
        spread = variances(z)
        order = spread.argsort(descending=True)
        shown = order[:SHOWN].tolist()
        images = [method.shape.images(traversal(method, z, dimension, PLACES)) for dimension in shown]
        picture = checkpoint_of(run.method, RECIPES[run.recipe]).with_suffix(".figure5.png")
        draw_traversals(torch.stack(images), picture)
        return {
            "dimensions": len(spread),
            "variances": spread[order].tolist(),
            "places": list(TRAVERSED),
            "changes": changes(method, z, order.tolist()),
        }

    def render(self, docs: Path) -> str:
        found = self.found(docs)
        places = " | ".join(f"{place:+g} sigma" for place in TRAVERSED)
        lines = [
            f"| fit | method | place by variance | variance | D at {places} | D at 2 sigma over 4 variances |",
            f"|---|---|---|---|{'---|' * (len(TRAVERSED) + 1)}",
        ]
        for run, metrics in found:
            for place in places_shown(metrics["dimensions"]):
                variance, moved = metrics["variances"][place], metrics["changes"][place]
                ends = (moved[0] + moved[-1]) / 2
                fields = [f"`{run.recipe}`", run.method, str(place + 1), f"{variance:.3g}"]
                fields += [f"{value:.4f}" for value in moved]
                fields.append(f"{ends / (4 * variance):.3g}" if variance > 0 else "")
                lines.append(f"| {' | '.join(fields)} |")
        lines += ["", *(correlation_line(run, metrics) for run, metrics in found)]
        return "\n".join(lines) + "\n"


def places_shown(dimensions: int) -> list[int]:
    """Returns which dimensions, in the order of their variance, the table of Figure 5 shows."""
    return [*range(min(SHOWN, dimensions)), *(place for place in (15, 31, 63) if SHOWN <= place < dimensions)]


def correlation_line(run: Run, metrics: Metrics) -> str:
    """Says how well a dimension's variance tells what its traversal does."""
    ends = torch.tensor([(moved[0] + moved[-1]) / 2 for moved in metrics["changes"]])
    spread = torch.tensor(metrics["variances"])
    correlation = float(torch.corrcoef(torch.stack([spread, ends]))[0, 1])
    return (
        f"- `{run.recipe}`, {run.method}: over all {metrics['dimensions']} dimensions, variance and D at 2 sigma have a"
        f" correlation of {correlation:.3f}."
    )
