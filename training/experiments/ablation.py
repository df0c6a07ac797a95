"""Which values the settings should have that the paper leaves silent, judged without labels.

Every candidate differs from the robust recipe in a single setting. It is fitted twice on four fifths of the normal
training rows, from two random starts. Then, with no label beyond those that keep anomalies out of the fit:

1. agreement: the two should flag the same rows of the training half, anomalies and normal ones unsorted. A decision
   that hangs on the random start is no decision.
2. calibration: of the held-out normal rows a twentieth should score above the 95 % quantile of the fitted ones. More
   means that the density has learned the fitted rows by heart.
3. contrast: held-out normal rows should score below the same rows with every column shuffled on its own, which keeps
   each column's values and breaks what ties them together. The figure is the AUROC of the one against the other.
4. loss: Eq. (4) on the held-out rows, with the density frozen. Lower is better, but only candidates with the same
   scaling and the same loss can be compared by it.

F1 on the test half is written down beside them for the reader, and decides nothing.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor

from training.datasets import DATASETS
from training.datasets.base import Dataset, Rows, Split, protocol_a
from training.experiments.base import Request, Sweep
from training.experiments.detection import LABELS, VARIANTS, measure
from training.experiments.published import Variant
from training.experiments.records import Metrics, Record, of_setting, read_records
from training.experiments.results import lines_file
from training.experiments.sweep import Runner
from training.fitting import Member, Observer, fit
from training.jobs import SEEDS_BETWEEN_MEMBERS, FittedModel, Job, assemble, build
from training.methods.base import Method, by_parts
from training.methods.mixture_autoencoder import MixtureAutoencoder
from training.settings import DEFAULT_H
from training.thresholds import contamination_threshold

HELD_OUT = 0.2
"""The share of the normal training rows that is not fitted."""

QUANTILE = 0.95

OTHER_START = 1000
"""What is added to the seed for the second of the two fits."""

SILENT: list[dict[str, Any]] = [
    {},
    {"averaging": 0.0},
    {"averaging": 0.0, "schedule": "cosine"},
    {"scaling": "table"},
    {"scaling": "feature"},
    {"scaling": "standard"},
    {"dropout": 0.0},
    {"rate_at": "noisy"},
    {"h_of": "batch"},
    {"variance_floor": 1e-6},
    {"variance_floor": 1e-5},
    {"variance_floor": 1e-3},
]

CANDIDATES: dict[str, list[dict[str, Any]]] = {
    "thyroid": [*SILENT, {"batch_size": 512}, {"epochs": 1500}],
    "arrhythmia": [*(c for c in SILENT if "h_of" not in c), {"batch_size": 64}, {"batch_size": 1024}],
    "kddcup-rev": [{}, {"averaging": 0.0}, {"averaging": 0.0, "schedule": "cosine"}, {"variance_floor": 1e-6}],
    "kddcup99": [{}, {"averaging": 0.0}, {"learning_rate": 1e-3}, {"variance_floor": 1e-4}],
}
"""What differs from the robust recipe. With h(d) = d, Arrhythmia's, there is nothing to choose in h_of."""


SHARED: list[dict[str, Any]] = [
    {},
    {"averaging": 0.0},
    {"scaling": "table"},
    {"scaling": "feature"},
    {"scaling": "standard"},
    {"dropout": 0.0},
    {"variance_floor": 1e-6},
    {"variance_floor": 1e-3},
]

RATES: list[dict[str, Any]] = [{"rate_at": "z"}, {"rate_at": "noisy"}]

OTHERS: dict[str, dict[Variant, list[dict[str, Any]]]] = {
    "thyroid": {("DAGMM", "identity"): SHARED, ("RaDOGAGA", "identity"): [*SHARED, *RATES]},
    "arrhythmia": {
        ("DAGMM", "identity"): SHARED,
        ("RaDOGAGA", "log"): [*SHARED, *RATES, {"h_of": "batch"}],
    },
}
"""The same for DAGMM and for RaDOGAGA with the other h: what suits the paper's lambdas depends on them."""


RIVALS: dict[str, tuple[str, ...]] = {
    "thyroid": ("faithful", "ensemble"),
    "arrhythmia": ("faithful", "ensemble"),
    "kddcup-rev": (),
    "kddcup99": (),
}
"""The recipes that are held against the robust one; on the large tables they would take hours."""


@dataclass(frozen=True)
class Judgement:
    """How a candidate does.

    Attributes:
        agreement: The Jaccard index of the two sets of flagged rows, in [0, 1].
        above: The share of held-out rows above the 95 % quantile of the fitted rows' scores.
        contrast: The AUROC of held-out rows against the same with shuffled columns.
        fitted_loss: The mean loss of fitted rows, in nats; None for an ensemble, which has none.
        held_out_loss: The mean loss of held-out rows, in nats.
        f1: F1 on the test half, which decides nothing.
    """

    agreement: float
    above: float
    contrast: float
    fitted_loss: float | None
    held_out_loss: float | None
    f1: float


class Ablation(Sweep):
    """The candidates, each fitted twice for every seed."""

    name = "ablation"
    summary = "what the paper leaves silent, settled without labels"

    def jobs(self, request: Request) -> list[Job]:
        """Lists the candidates for every seed, each setting once."""
        return [job for seed in request.seeds for name in request.datasets for job in candidates(name, seed)]

    @property
    def runner(self) -> Runner:
        return run_group

    def render(self, docs: Path) -> str:
        return render(read_records(lines_file(docs, self.name)))


def candidates(dataset: str, seed: int) -> list[Job]:
    """Lists the candidates of a dataset, each setting once: all for its better h, the scalings for the others."""
    found: list[Job] = []
    for method, h in VARIANTS:
        best = (method, h) == ("RaDOGAGA", DEFAULT_H[dataset])
        for overrides in CANDIDATES[dataset] if best else OTHERS.get(dataset, {}).get((method, h), []):
            job = Job(dataset=dataset, method=method, h=h, recipe="robust", seed=seed, overrides=overrides)
            if (job.method, job.settings) not in [(other.method, other.settings) for other in found]:
                found.append(job)
    others = [Job(dataset=dataset, h=DEFAULT_H[dataset], recipe=recipe, seed=seed) for recipe in RIVALS[dataset]]
    return found + others


def run_group(group: Sequence[Job], observer: Observer, checkpoint: Path) -> list[Metrics]:
    """Fits a candidate twice for each of its seeds and judges it; a fit that fails is a result too.

    Raises:
        DatasetFileError: The dataset can't be had.
        FitInterrupted: A signal asked to stop.
    """
    settings, dataset = group[0].settings, DATASETS[group[0].dataset]()
    x = torch.from_numpy(dataset.x)
    splits, members, held_out = [], [], []
    for job in group:
        split = protocol_a(dataset.y, job.seed)
        rows = torch.from_numpy(np.random.default_rng(job.seed).permutation(split.normal))
        count = int(HELD_OUT * len(rows))
        splits.append(split)
        held_out.append(x[rows[:count]])
        for start in (job.seed, job.seed + OTHER_START):
            for number in range(settings.members):
                seed = start + number * SEEDS_BETWEEN_MEMBERS
                members.append(Member(build(job.method, x[rows[count:]], settings, seed), rows[count:], seed))
    failures = fit(members, x, settings, observer=observer, checkpoint=checkpoint, resume=checkpoint.exists())
    found: list[Metrics] = []
    for index, (job, split, held) in enumerate(zip(group, splits, held_out, strict=True)):
        first = 2 * index * settings.members
        starts = [range(first, first + settings.members), range(first + settings.members, first + 2 * settings.members)]
        failed = [str(failures[member]) for own in starts for member in own if member in failures]
        if failed:
            found.append({"failed": failed[0]})
        else:
            fitted = x[members[first].rows]
            methods = [assemble([members[member].method for member in own], fitted) for own in starts]
            found.append(asdict(judge(job, methods, dataset, split, fitted, held)))
    return found


@torch.no_grad()
def judge(
    job: Job, methods: Sequence[Method], dataset: Dataset, split: Split, fitted: Tensor, held_out: Tensor
) -> Judgement:
    """Judges two fits of a candidate by the rows (N, M) they were fitted on, those held out, and the training half."""
    first, second = (flagged_rows(method, dataset, split) for method in methods)
    single = [method for method in methods if isinstance(method, MixtureAutoencoder)]
    return Judgement(
        agreement=float((first & second).sum() / (first | second).sum()),
        above=mean(share_above(method, fitted, held_out) for method in methods),
        contrast=mean(contrast(method, held_out, job.seed) for method in methods),
        fitted_loss=mean(sum(method.frozen_terms(fitted).values()) for method in single) if single else None,
        held_out_loss=mean(sum(method.frozen_terms(held_out).values()) for method in single) if single else None,
        f1=mean(measure(FittedModel(job, method, dataset, split))["f1"] for method in methods),
    )


def scores_of(method: Method, x: Tensor) -> NDArray[np.float64]:
    """Returns scores (N,) of rows (N, M)."""
    return by_parts(method.score, x).numpy()


def flagged_rows(method: Method, dataset: Dataset, split: Split) -> NDArray[np.bool_]:
    """Returns which rows of the training half the threshold of a shipped model would flag, of shape (N,)."""
    half: Rows = dataset.x[split.train]
    scores = scores_of(method, torch.from_numpy(half))
    flagged: NDArray[np.bool_] = scores >= contamination_threshold(scores, dataset.contamination)
    return flagged


def share_above(method: Method, fitted: Tensor, held_out: Tensor) -> float:
    """Returns the share of held-out rows (N, M) that score above the 95 % quantile of the fitted ones."""
    bound = np.quantile(scores_of(method, fitted), QUANTILE)
    return float((scores_of(method, held_out) > bound).mean())


def contrast(method: Method, held_out: Tensor, seed: int) -> float:
    """Returns the AUROC of held-out rows (N, M) against the same rows with every column shuffled on its own."""
    shuffled = torch.from_numpy(np.random.default_rng(seed).permuted(held_out.numpy(), axis=0))
    scores = np.concatenate([scores_of(method, held_out), scores_of(method, shuffled)])
    return float(roc_auc_score(np.arange(len(scores)) >= len(held_out), scores))


COLUMNS = (
    "learning_rate",
    "schedule",
    "batch_size",
    "scaling",
    "dropout",
    "rate_at",
    "h_of",
    "variance_floor",
    *("averaging", "epochs"),
)


def render(records: Sequence[Record]) -> str:
    """Writes the table in Markdown: a candidate per line, each figure the mean over its seeds."""
    lines = [
        "| dataset | method | what differs | seeds | failed | agreement | above 95 % | contrast"
        " | loss, fitted | loss, held out | F1 (not used) |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in CANDIDATES:
        for job in candidates(name, 0):
            cell = of_setting(records, job)
            if cell:
                lines.append(row(job, [record["metrics"] for record in cell]))
    return "\n".join(lines) + "\n"


FORMS = {
    **dict.fromkeys(("agreement", "above", "contrast"), ".3f"),
    **dict.fromkeys(("fitted_loss", "held_out_loss"), ".1f"),
    "f1": ".3f",
}


def row(job: Job, cell: list[Metrics]) -> str:
    """Writes one line of the table."""
    done = [metrics for metrics in cell if "failed" not in metrics]
    fields = [job.dataset, LABELS[job.method, job.h], difference(job), str(len(cell)), str(len(cell) - len(done))]
    for metric, form in FORMS.items():
        values = [metrics[metric] for metrics in done if metrics[metric] is not None]
        fields.append(format(mean(values), form) if values else "")
    return f"| {' | '.join(fields)} |"


def difference(job: Job) -> str:
    """Says how a candidate differs from the robust recipe."""
    if job.recipe != "robust":
        return f"**`{job.recipe}`**"
    base, own = replace(job, overrides={}).settings.to_json(), job.settings.to_json()
    return ", ".join(f"{column} {own[column]}" for column in COLUMNS if own[column] != base[column]) or "**`robust`**"
