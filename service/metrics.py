"""What Prometheus scrapes. Labels come from the repository and the route table, never from a client."""

import os
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.gc_collector import GCCollector
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from service.repository import ModelRepository

SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The variable with the folder in which processes keep their metrics, if there are several: prometheus_client's."""


class ServiceMetrics:
    """The service's metrics in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.shared = METRICS_FOLDER in os.environ
        if not self.shared:  # they would tell of one process among several
            for collector in (ProcessCollector, GCCollector):
                collector(registry=self.registry)
            PlatformCollector(registry=self.registry)
        request_seconds = Histogram(
            "radogaga_request_duration_seconds",
            "Time from the end of a request's header to the end of its answer.",
            ["endpoint", "dataset", "status"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "radogaga_requests_in_flight",
            "Requests being answered right now.",
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        rows = Counter(
            "radogaga_rows", "Rows scored, encoded or decoded.", ["endpoint", "dataset"], registry=self.registry
        )
        anomalies = Counter("radogaga_anomalies", "Rows called an anomaly.", ["dataset"], registry=self.registry)
        outside = Counter(
            "radogaga_values_outside_training_range",
            "Values of scored or encoded rows that are beyond any the model was fitted on.",
            ["dataset"],
            registry=self.registry,
        )
        errors = Counter(
            "radogaga_errors", "Requests answered with an error, by its kind.", ["kind"], registry=self.registry
        )
        self.threshold = Gauge(
            "radogaga_threshold",
            "The score from which a row is called an anomaly.",
            ["dataset", "version"],
            registry=self.registry,
            multiprocess_mode="livemax",
        )
        self.model_info = Gauge(
            "radogaga_model_info",
            "Always 1; a served model with the execution provider its sessions really got.",
            ["dataset", "version", "method", "provider"],
            registry=self.registry,
            multiprocess_mode="livemax",
        )
        self.ready = Gauge(
            "radogaga_ready",
            "Whether every model has replayed its examples, in every worker that lives.",
            registry=self.registry,
            multiprocess_mode="livemin",
        )
        # Finding a labelled metric costs ten times as much as adding to it, so each is found once.
        self.request = cache(request_seconds.labels)
        self.rows = cache(rows.labels)
        self.anomalies = cache(anomalies.labels)
        self.outside = cache(outside.labels)
        self.errors = cache(errors.labels)

    def collected(self) -> CollectorRegistry:
        """Returns what a scrape sees: this process's metrics, or those of all workers together."""
        if not self.shared:
            return self.registry
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return registry

    def describe(self, repository: ModelRepository) -> None:
        """Tells what is served, and starts the counters of each dataset at zero."""
        for detector in repository:
            manifest = detector.manifest
            version = str(manifest.version)
            self.threshold.labels(manifest.dataset, version).set(manifest.threshold)
            self.model_info.labels(manifest.dataset, version, manifest.method, detector.provider).set(1)
            self.anomalies(manifest.dataset)
            self.outside(manifest.dataset)
        self.ready.set(1)
