"""What Prometheus scrapes. Labels come from the repository and the route table, never from a client.

docs/metrics.md explains each metric.
"""

import math
import os
import platform
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import onnxruntime
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.gc_collector import GCCollector
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from service.detector import Detector
from service.errors import kinds
from service.repository import ModelRepository
from service.tally import Counted, Labels, Observed

SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds for requests: a single row takes a fraction of a millisecond, 16384 of them as JSON half a second."""

STAGE_SECONDS = (1e-5, 2.5e-5, 5e-5, *SECONDS[:-3])
"""Upper bounds for parts of a request."""

BATCH_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
"""Upper bounds for the rows of a micro-batch."""

Merger = Literal["livesum", "livemin", "livemax"]
"""What prometheus_client makes of the values that a gauge has in several processes."""

METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The variable with the folder in which processes keep their metrics, if there are several: prometheus_client's."""

PAGES = Path("/proc/self/statm")
"""Where Linux says how many pages of memory this process has."""

MEMORY_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Where Linux says how much memory a container may use, by the second and by the first version of control groups."""

NO_LIMIT = 2**60
"""From here on a limit means that there is none."""


@dataclass(frozen=True)
class Load:
    """How busy a process is.

    Attributes:
        requests: Requests being answered.
        rows_queued: Rows that wait for their micro-batch or for a thread for their graph.
        long_bodies_queued: Long bodies that wait until others were read.
        connections: Connections that clients have open.
    """

    requests: int
    rows_queued: int
    long_bodies_queued: int
    connections: int


class Registered:
    """Makes metrics in a registry, with the prefix that all of them have."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def counter(self, name: str, text: str, labels: Sequence[str]) -> Counted:
        """Makes a counter."""
        return Counted(Counter(f"radogaga_{name}", text, labels, registry=self._registry))

    def histogram(self, name: str, text: str, labels: Sequence[str], bounds: Sequence[float]) -> Observed:
        """Makes a histogram with these upper bounds."""
        return Observed(Histogram(f"radogaga_{name}", text, labels, registry=self._registry, buckets=bounds), bounds)

    def gauge(self, name: str, text: str, labels: Sequence[str] = (), *, of_workers: Merger) -> Gauge:
        """Makes a gauge; `of_workers` says what is made of the values of several."""
        return Gauge(f"radogaga_{name}", text, labels, registry=self._registry, multiprocess_mode=of_workers)


class LoadMetrics:
    """How busy the service is."""

    def __init__(self, make: Registered) -> None:
        self._in_flight = make.gauge("requests_in_flight", "Requests being answered right now.", of_workers="livesum")
        self._rows_queued = make.gauge(
            "rows_queued",
            "Rows that wait for their micro-batch, or for a thread for their graph.",
            of_workers="livesum",
        )
        self._long_bodies_queued = make.gauge(
            "long_bodies_queued", "Long bodies that wait until others were read.", of_workers="livesum"
        )
        self._connections = make.gauge("connections", "Connections that clients have open.", of_workers="livesum")
        self._memory = make.gauge(
            "resident_memory_bytes", "Memory that the service's processes have in RAM.", of_workers="livesum"
        )

    def publish(self, load: Load) -> None:
        """Says how busy this process is, and how much memory it has."""
        self._in_flight.set(load.requests)
        self._rows_queued.set(load.rows_queued)
        self._long_bodies_queued.set(load.long_bodies_queued)
        self._connections.set(load.connections)
        self._memory.set(resident_bytes())


class ServedMetrics:
    """What is served, by which build, on what.

    Arguments:
        make: Makes the metrics.
        shared: Whether they are those of several processes, of which prometheus_client removes none.
    """

    def __init__(self, make: Registered, shared: bool) -> None:
        self._shared = shared
        self._served: dict[tuple[str, int], Detector] = {}
        self._most_in_flight = make.gauge(
            "max_requests_in_flight", "Requests with rows that may be answered at once.", of_workers="livesum"
        )
        self._memory_limit = make.gauge(
            "memory_limit_bytes",
            "Memory that the service's container may use; infinite where nothing limits it.",
            of_workers="livemax",
        )
        self._ready = make.gauge(
            "ready", "Whether every model has replayed its examples, in every worker that lives.", of_workers="livemin"
        )
        self._fallback = make.gauge(
            "provider_fallback",
            "Whether sessions run on the CPU although the installed onnxruntime is one for GPUs.",
            of_workers="livemax",
        )
        self._build = make.gauge(
            "build_info",
            "Always 1; which build of the service runs, on what.",
            ["version", "revision", "python", "onnxruntime"],
            of_workers="livemax",
        )
        self._model = make.gauge(
            "model_info",
            "1 for a served model, with the execution provider its sessions really got; 0 once it is gone.",
            ["dataset", "version", "method", "provider"],
            of_workers="livemax",
        )
        self._threshold = make.gauge(
            "threshold",
            "The score from which a row is called an anomaly.",
            ["dataset", "version"],
            of_workers="livemax",
        )
        self._refused = make.gauge(
            "models_refused",
            "Versions and files of changed thresholds in the folder of models that can't be served as they are.",
            of_workers="livemax",
        )
        self._columns = make.gauge("columns", "Values that a row has.", ["dataset", "version"], of_workers="livemax")
        self._bounds = make.gauge(
            "score_bin_upper_bound",
            "The largest score that falls into a bin.",
            ["dataset", "version", "bin"],
            of_workers="livemax",
        )
        self._shares = make.gauge(
            "training_share",
            "The share of the rows behind the threshold whose scores fell into a bin.",
            ["dataset", "version", "bin"],
            of_workers="livemax",
        )

    @property
    def versions(self) -> Collection[tuple[str, int]]:
        """What is served, by dataset and version."""
        return self._served.keys()

    def follow(self, repository: ModelRepository) -> None:
        """Says what is served from now on."""
        found = {(detector.manifest.dataset, detector.manifest.version): detector for detector in repository}
        for key, detector in self._served.items():
            if found.get(key) is not detector:
                self._forget(detector)
        for key, detector in found.items():
            if self._served.get(key) is not detector:
                self._describe(detector)
        self._served = found
        self._refused.set(len(repository.refusals))

    def describe(self, most_in_flight: int, revision: str) -> None:
        """Says what this process may do, and which build it is of, and that it is ready."""
        self._build.labels(version("radogaga"), revision, platform.python_version(), onnxruntime.__version__).set(1)
        self._most_in_flight.set(most_in_flight)
        self._memory_limit.set(memory_limit_bytes())
        self._ready.set(1)

    def fall_back(self, fell_back: bool) -> None:
        """Says whether sessions did not get the execution provider that was meant."""
        self._fallback.set(fell_back)

    def _describe(self, detector: Detector) -> None:
        manifest = detector.manifest
        of = (manifest.dataset, str(manifest.version))
        self._threshold.labels(*of).set(detector.threshold)
        self._columns.labels(*of).set(manifest.width)
        self._model.labels(*of, manifest.method, detector.provider).set(1)
        if manifest.score_bins:
            bounds = [*manifest.score_bins.upper_bounds, float("inf")]
            for name, bound, rows in zip(detector.reference.bins, bounds, manifest.score_bins.rows, strict=True):
                self._bounds.labels(*of, name).set(bound)
                self._shares.labels(*of, name).set(rows / manifest.calibration.rows)

    def _forget(self, detector: Detector) -> None:
        manifest = detector.manifest
        of = (manifest.dataset, str(manifest.version))
        if self._shared:
            self._model.labels(*of, manifest.method, detector.provider).set(0)
            return
        self._model.remove(*of, manifest.method, detector.provider)
        self._threshold.remove(*of)
        self._columns.remove(*of)
        for name in detector.reference.bins:
            self._bounds.remove(*of, name)
            self._shares.remove(*of, name)


class ServiceMetrics:
    """The service's metrics in a registry of their own; what is added to them is seen once it is published."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.shared = METRICS_FOLDER in os.environ
        if not self.shared:  # they would tell of one process among several
            for collector in (ProcessCollector, GCCollector):
                collector(registry=self.registry)
            PlatformCollector(registry=self.registry)
        make = Registered(self.registry)
        self._load, self._served = LoadMetrics(make), ServedMetrics(make, self.shared)
        self.requests = make.histogram(
            "request_duration_seconds",
            "Time from the end of a request's header to the end of its answer.",
            ["endpoint", "dataset", "status"],
            SECONDS,
        )
        self.stages = make.histogram(
            "stage_duration_seconds",
            "Time that a request with rows spent on each part of its way, if it was answered 200.",
            ["endpoint", "stage"],
            STAGE_SECONDS,
        )
        self.batch_rows = make.histogram(
            "batch_rows", "Rows that went through a graph together as a micro-batch.", [], BATCH_ROWS
        )
        self.rows = make.counter("rows", "Rows scored, encoded or decoded.", ["endpoint", "dataset"])
        self.anomalies = make.counter("anomalies", "Rows called an anomaly.", ["dataset"])
        self.scores = make.counter(
            "scores", "Rows scored, by the bin their score fell into.", ["dataset", "version", "bin"]
        )
        self.outside = make.counter(
            "values_outside_training_range",
            "Values of scored or encoded rows that are beyond any the model was fitted on.",
            ["dataset"],
        )
        self.unseen = make.counter(
            "unseen_categories",
            "Categorical features of scored or encoded rows that have none of the categories the model was fitted on.",
            ["dataset"],
        )
        self._keys_stale = make.gauge(
            "keys_stale",
            "Whether the file of keys can't be used as it is now, so that the keys of before hold.",
            of_workers="livemax",
        )
        self.errors = make.counter("errors", "Requests answered with an error, by its kind.", ["kind"])
        self.loads = make.counter(
            "model_loads",
            "Versions and files of changed thresholds that were loaded, by what came of it: served or refused.",
            ["result"],
        )
        self.cut = make.counter(
            "connections_cut_off", "Connections that the service closed on a client, by why.", ["reason"]
        )
        self._histograms = (self.requests, self.stages, self.batch_rows)
        self._counters = (
            *(self.rows, self.anomalies, self.scores, self.outside, self.unseen),
            *(self.errors, self.loads, self.cut),
        )

    def collected(self) -> CollectorRegistry:
        """Returns what a scrape sees: this process's metrics, or those of all workers together."""
        if not self.shared:
            return self.registry
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return registry

    def describe(self, most_in_flight: int, revision: str) -> None:
        """Tells what this process is, and starts the counters of each kind of error at zero.

        Prometheus sees no increase in a series that begins with one.

        Arguments:
            most_in_flight: The number of requests with rows that are answered at once.
            revision: The commit that the service was built from.
        """
        for kind in kinds():
            self.errors.add((kind,), 0)
        self._served.describe(most_in_flight, revision)

    def follow(self, repository: ModelRepository, fell_back: bool) -> None:
        """Tells what is served from now on, and starts the counters of each dataset at zero.

        Arguments:
            repository: The models.
            fell_back: Whether sessions did not get the execution provider that was meant.
        """
        self._served.follow(repository)
        self._served.fall_back(fell_back)
        for detector in repository:
            self._start_counters(detector)

    def describe_keys(self, stale: bool) -> None:
        """Tells whether the file of keys can't be used as it is now."""
        self._keys_stale.set(stale)

    def settle(self) -> None:
        """Sorts what histograms are to observe into their buckets, so that it takes no memory."""
        for histogram in self._histograms:
            histogram.settle()

    def publish(self, load: Load) -> None:
        """Brings everything up to date."""
        for histogram in self._histograms:
            histogram.publish()
        for counter in self._counters:
            counter.publish()
        if not self.shared:
            self.scores.forget(self._is_gone)
        self._load.publish(load)

    def _start_counters(self, detector: Detector) -> None:
        manifest = detector.manifest
        for counter in (self.anomalies, self.outside, self.unseen):
            counter.add((manifest.dataset,), 0)
        if manifest.score_bins:
            for name in detector.reference.bins:
                self.scores.add((manifest.dataset, manifest.version, name), 0)

    def _is_gone(self, labels: Labels) -> bool:
        return labels[:2] not in self._served.versions


def resident_bytes() -> int:
    """Returns the bytes of memory that this process has in RAM; 0 where there is no `/proc`."""
    if not PAGES.exists():
        return 0
    return int(PAGES.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def memory_limit_bytes() -> float:
    """Returns the bytes of memory that this process's container may use; infinity where nothing limits it."""
    for path in MEMORY_LIMITS:
        if path.exists():
            limit = path.read_text().strip()
            return float(limit) if limit.isdigit() and int(limit) < NO_LIMIT else math.inf
    return math.inf
