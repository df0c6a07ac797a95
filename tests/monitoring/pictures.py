"""``python -m tests.monitoring.pictures``: draws what Prometheus sees while the rows of a client begin to drift.

Two replicas and a Prometheus run for some minutes; docs/figures/monitoring.png has their latencies, rows, anomalies and
drift, asked from Prometheus afterwards.
"""

import argparse
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import httpx
import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes

from tests.monitoring import traffic
from tests.monitoring.parts import Prometheus, alertmanager, prometheus, wait_for
from tests.server import ROOT, serving

PICTURE = ROOT / "docs" / "figures" / "monitoring.png"
DATASETS = ("arrhythmia", "thyroid")
WINDOW = "15s"
STEP = 1.0

LATENCY = (
    "1000 * histogram_quantile({quantile}, sum by (le) ("
    'rate(radogaga_request_duration_seconds_bucket{{endpoint="/score"}}[{window}])))'
)
PANELS = (
    (
        "Latency of /score, ms",
        {f"p{100 * q:.0f}": LATENCY.format(quantile=q, window=WINDOW) for q in (0.5, 0.95, 0.99)},
        None,
    ),
    ("Rows per second", {d: f'sum(rate(radogaga_rows_total{{dataset="{d}"}}[{WINDOW}]))' for d in DATASETS}, None),
    (
        f"Anomaly rate, over {WINDOW}",
        {
            d: f'sum(rate(radogaga_anomalies_total{{dataset="{d}"}}[{WINDOW}]))'
            f' / sum(rate(radogaga_scores_total{{dataset="{d}"}}[{WINDOW}]))'
            for d in DATASETS
        },
        None,
    ),
    (
        "Population stability index, over 1 h",
        {d: f'dataset_version:radogaga_scores:psi1h{{dataset="{d}", version="{traffic.VERSION}"}}' for d in DATASETS},
        0.25,
    ),
)


def send(clients: list[httpx.Client], seconds: float) -> float:
    """Scores rows for some seconds, of which more and more of Thyroid's drift from half-time on; returns half-time."""
    rng = np.random.default_rng(0)
    typical = {dataset: traffic.Typical(dataset) for dataset in DATASETS}
    began = time.time()
    while (passed := time.time() - began) < seconds:
        drift = max(0.0, 2 * passed / seconds - 1)
        for number, client in enumerate(clients):
            for dataset in DATASETS:
                x = typical[dataset].draw(int(rng.integers(1, 64)), rng)
                if dataset == "thyroid":
                    strange = rng.random(len(x)) < drift
                    x[strange] = traffic.drifted(dataset, int(strange.sum()), rng)
                traffic.score(client, dataset, x)
            time.sleep(0.01 * (number + 1))
    return began + seconds / 2


def draw(scraping: Prometheus, half: float, begin: float, end: float, path: Path) -> None:
    """Draws all panels from the answers to range queries."""
    figure, grid = pyplot.subplots(2, 2, figsize=(9, 5.2), sharex=True, layout="constrained")
    axes: list[Axes] = list(grid.flat)
    for ax, (title, expressions, limit) in zip(axes, PANELS, strict=True):
        for name, expression in expressions.items():
            found = scraping.ask("query_range", query=expression, start=begin, end=end, step=STEP)["result"]
            assert found, expression
            for one in found:
                x, y = np.asarray(one["values"], dtype=float).T
                ax.plot(x - begin, y, label=name, linewidth=1)
        ax.axvline(half - begin, color="grey", linestyle=":", linewidth=1)
        if limit:
            ax.axhline(limit, color="firebrick", linestyle="--", linewidth=1)
        ax.set_title(title, fontsize=10)
        ax.set_ylim(0, 1.2 * ax.get_ylim()[1])
        ax.legend(fontsize=8, frameon=False, loc="upper left", ncols=3)
    for ax in axes[2:]:
        ax.set_xlabel("seconds")
    figure.savefig(path, dpi=90, metadata={"Software": None})


def main() -> None:
    """Runs everything, and writes the picture."""
    parser = argparse.ArgumentParser(prog="python -m tests.monitoring.pictures", description="Draw what is monitored.")
    parser.add_argument("--seconds", type=float, default=120, help="how long to send requests")
    parser.add_argument("--to", type=Path, default=PICTURE, help="where the picture goes")
    options = parser.parse_args()
    with ExitStack() as parts:
        folder = Path(parts.enter_context(tempfile.TemporaryDirectory()))
        address = parts.enter_context(alertmanager(folder))
        scraping = parts.enter_context(prometheus(folder, address))
        servers = [parts.enter_context(serving(folder / f"{number}.log")) for number in range(2)]
        clients = [parts.enter_context(server.client()) for server in servers]
        scraping.scrape([server.url() for server in servers])
        wait_for(lambda: len(scraping.query('radogaga_scores_total{bin="01", version="2", dataset="thyroid"}')) == 2)
        begin = time.time()
        half = send(clients, options.seconds)
        draw(scraping, half, begin, time.time(), options.to)
    print(options.to)


if __name__ == "__main__":
    main()
