"""The paper's tables of anomaly detection on public data: Table 1, Table 4, and both methods by protocol B."""

from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

import torch

from training.datasets import DATASETS
from training.experiments import baselines
from training.experiments.base import Request, Sweep
from training.experiments.published import CITED, OWN, Figure, Row
from training.experiments.records import Metrics, Record, of_setting, read_records
from training.experiments.results import lines_file
from training.experiments.sweep import Runner
from training.fitting import FitError, Observer
from training.jobs import FittedModel, Job, Protocol, run_together
from training.methods.base import by_parts
from training.metrics import evaluate
from training.settings import H, MethodName, Size
from training.thresholds import percentile_threshold

VARIANTS: tuple[tuple[MethodName, H], ...] = (("DAGMM", "identity"), ("RaDOGAGA", "identity"), ("RaDOGAGA", "log"))
"""The methods of the tables: DAGMM, RaDOGAGA(d) and RaDOGAGA(log d)."""


class Detection(Sweep):
    """A table of the paper, or one that its readers will look for.

    Arguments:
        name: The experiment's name.
        summary: What it regenerates.
        size: The paper's table with the network sizes and lambdas.
        protocol: How the data is split.
        recipes: The recipes that have rows in it.
    """

    def __init__(self, name: str, summary: str, size: Size, protocol: Protocol, recipes: tuple[str, ...]) -> None:
        self.name = name
        self.summary = summary
        self.size = size
        self.protocol = protocol
        self.recipes = recipes

    def jobs(self, request: Request) -> list[Job]:
        """Lists the runs; of ensembles there are RaDOGAGA's only."""
        return [
            Job(
                dataset=dataset,
                method=method,
                h=h,
                recipe=recipe,
                seed=seed,
                size=self.size,
                protocol=self.protocol,
            )
            for seed in request.seeds
            for dataset in request.datasets
            for recipe in request.recipes or self.recipes
            if recipe in self.recipes
            for method, h in VARIANTS
            if (method, recipe) != ("DAGMM", "ensemble")
        ]

    @property
    def runner(self) -> Runner:
        return run_group

    def render(self, docs: Path) -> str:
        """Writes one table per dataset: what the paper cites, what it measured, and what we did."""
        records, simple = (read_records(lines_file(docs, name)) for name in (self.name, "baselines"))
        best = baselines.best(simple, "a" if self.protocol == "A" else "b")
        return "\n".join(self.table(dataset, records, best.get(dataset)) for dataset in DATASETS)

    def table(self, dataset: str, records: Sequence[Record], best: baselines.Cell | None) -> str:
        """Writes a dataset's table; runs with other settings than a recipe has today are left out of it.

        Arguments:
            dataset: The name of the dataset.
            records: All runs of the experiment.
            best: The simple detector with the highest F1 on the same splits.
        """
        lines = [f"**{dataset}**", "", f"| {' | '.join(HEADINGS)} |", f"|{'---|' * len(HEADINGS)}"]
        for cited in CITED.get(self.name, {}).get(dataset, []):
            lines.append(printed("*paper*", cited))
        for variant in VARIANTS:
            published = OWN.get(self.name, {}).get(dataset, {}).get(variant)
            if published:
                lines.append(printed("*paper*", published))
            for recipe in self.recipes:
                request = Request([dataset], [recipe], [0], 1, Path())
                for job in self.jobs(request):
                    cell = of_setting(records, job) if (job.method, job.h) == variant else []
                    if cell:
                        lines.append(measured(LABELS[variant], recipe, published.f1 if published else None, cell))
        if best:
            lines.append(compared(best))
        return "\n".join(lines) + "\n"


HEADINGS = (
    *("method", "recipe", "seeds", "precision", "recall", "F1", "beside the paper"),
    *("AUROC", "average precision", "flagged", "CPU s"),
)

LABELS: dict[tuple[MethodName, H], str] = {
    ("DAGMM", "identity"): "DAGMM",
    ("RaDOGAGA", "identity"): "RaDOGAGA(d)",
    ("RaDOGAGA", "log"): "RaDOGAGA(log d)",
}


def printed(recipe: str, published: Row) -> str:
    """Writes a line with the paper's figures."""

    def text(figure: Figure) -> str:
        return f"{figure.mean:.4f}" + (f" ({figure.std:.4f})" if figure.std is not None else "")

    figures = [text(figure) for figure in (published.precision, published.recall, published.f1)]
    return f"| {published.label} | {recipe} | | {' | '.join(figures)} | | | | | |"


def compared(best: baselines.Cell) -> str:
    """Writes a line with the best simple detector."""
    f1 = f"{best.f1:.4f}" + (f" ({best.std:.4f})" if best.std is not None else "")
    label = f"{best.method}, {baselines.HEADINGS[best.scaling]}"
    seeds = f"{best.seeds[0]} to {best.seeds[-1]}"
    figures = f"{best.auroc:.3f} | {best.average_precision:.3f}"
    return f"| {label} | *best baseline* | {seeds} | | | {f1} | | {figures} | | |"


def measured(label: str, recipe: str, published: Figure | None, cell: Sequence[Record]) -> str:
    """Writes a line with means and standard deviations over the runs that could be fitted."""
    done = [record for record in cell if "failed" not in record["metrics"]]
    fields = [label, f"`{recipe}`", seeds_of(cell, len(cell) - len(done))]
    if done:
        fields += [spread(done, name) for name in ("precision", "recall", "f1")]
        fields += [verdict(mean(record["metrics"]["f1"] for record in done), published)]
        fields += [spread(done, name, 3) for name in ("auroc", "average_precision")]
        fields += [f"{mean(record['metrics']['flagged'] for record in done):.0f}"]
        fields += [f"{mean(record['seconds'] for record in done):.0f}"]
    return f"| {' | '.join(fields)} |"


def seeds_of(cell: Sequence[Record], failed: int) -> str:
    """Writes which seeds a cell has, and how many of them failed."""
    seeds = [record["seed"] for record in cell]
    gapless = len(seeds) > 1 and seeds == list(range(seeds[0], seeds[-1] + 1))
    text = f"{seeds[0]} to {seeds[-1]}" if gapless else str(seeds)[1:-1]
    return text + (f" ({failed} failed)" if failed else "")


def spread(cell: Sequence[Record], name: str, digits: int = 4) -> str:
    """Writes a metric's mean over runs, with the sample's standard deviation if there are several."""
    values = [float(record["metrics"][name]) for record in cell]
    text = f"{mean(values):.{digits}f}"
    return text + (f" ({stdev(values):.{digits}f})" if len(values) > 1 else "")


def verdict(f1: float, published: Figure | None) -> str:
    """Says where an F1 lies, in the paper's standard deviations from its mean."""
    if published is None or published.std is None:
        return ""
    return f"{(f1 - published.mean) / published.std:+.1f} std"


def run_group(group: Sequence[Job], observer: Observer, checkpoint: Path) -> list[Metrics]:
    """Fits models together and measures each on its test rows; a fit that fails is a result too.

    Raises:
        DatasetFileError: The dataset can't be had.
        FitInterrupted: A signal asked to stop.
    """
    models = run_together(group, observer=observer, checkpoint=checkpoint, resume=checkpoint.exists())
    return [{"failed": str(model)} if isinstance(model, FitError) else measure(model) for model in models]


def measure(model: FittedModel) -> Metrics:
    """Measures a model as the paper does: on the test rows, flagging a percentile of their scores.

    By protocol A that is the paper's percentile for the dataset; by protocol B as many rows as there are anomalies.
    Scores are float32, as the exported graphs return them.
    """
    test = model.split.test
    y = model.dataset.y[test]
    with torch.no_grad():
        scores = by_parts(model.method.score, torch.from_numpy(model.dataset.x[test])).float().numpy()
    contamination = model.dataset.contamination if model.job.protocol == "A" else float(y.mean())
    return evaluate(y, scores, percentile_threshold(scores, contamination))
