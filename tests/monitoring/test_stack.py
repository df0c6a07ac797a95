"""A real Prometheus scrapes real services and tells a real Alertmanager, while requests of many kinds come.

All tests of this file share one stack; the last ones stop a part of it.
"""

import math
import re
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from service.errors import DatasetNotFound, InvalidValue, MalformedBody, UnsupportedMediaType, WrongWidth
from service.manifest import read_manifest
from tests.docker.configurations import documented, names_in, queries, recorded, rules
from tests.docker.test_rules import RUNBOOK, psi
from tests.monitoring import traffic
from tests.monitoring.parts import Prometheus, Receiver, alertmanager, prometheus, receiving, run, wait_for
from tests.server import MODELS, SHIPPED, Server, serving

pytestmark = pytest.mark.monitoring

ROUNDS = 5
"""How often each kind of request is sent, more than a scrape apart."""

WINDOW = "1m"
"""What stands in for the dashboard's `$__rate_interval`."""

RUNBOOK_QUERIES = sorted(
    {
        query
        for text in re.findall(r"^```promql\n(.*?)^```$", RUNBOOK, re.MULTILINE | re.DOTALL)
        for query in text.splitlines()
    }
)

ON_A_GPU_BUILD = (sys.executable, "-m", "tests.monitoring.gpu_build")


@dataclass
class Stack:
    """What runs, and what was sent.

    Attributes:
        prometheus: What scrapes.
        servers: The replicas: one that turns crowds away, a plain one, one that wanted a GPU.
        receiver: Where alerts arrive.
        scores: The scores (N,) that were answered, by dataset.
    """

    prometheus: Prometheus
    servers: list[Server]
    receiver: Receiver
    scores: dict[str, NDArray[np.float64]]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """All parts, after some rounds of requests."""
    folder = tmp_path_factory.mktemp("stack")
    with ExitStack() as parts:
        receiver = parts.enter_context(receiving())
        address = parts.enter_context(alertmanager(folder, receiver.url))
        scraping = parts.enter_context(prometheus(folder, address))
        servers = [
            parts.enter_context(serving(folder / "crowded.log", max_in_flight=3, max_batch_rows=32)),
            parts.enter_context(serving(folder / "plain.log")),
            parts.enter_context(serving(folder / "gpu.log", ON_A_GPU_BUILD)),
        ]
        clients = [parts.enter_context(server.client()) for server in servers]
        scraping.scrape([server.url() for server in servers])
        wait_for(lambda: scraping.query('radogaga_scores_total{bin="01"}'), of="the first scrape")
        wait_for(lambda: list(scraping.query('job:up:sum{job="radogaga"}').values()) == [3.0], of="three replicas")
        scores = send(clients)
        time.sleep(3)  # the last round is scraped, and evaluated
        yield Stack(scraping, servers, receiver, scores)


def send(clients: list[httpx.Client]) -> dict[str, NDArray[np.float64]]:
    """Sends rounds of all kinds of requests, and returns the scores (N,) of the rows of each dataset."""
    crowded, plain, _ = clients
    rng = np.random.default_rng(0)
    typical = traffic.Typical("arrhythmia")
    scores: dict[str, list[float]] = {dataset: [] for dataset in traffic.DATASETS}
    statuses: set[int] = set()
    for _ in range(ROUNDS):
        scores["arrhythmia"] += traffic.score(plain, "arrhythmia", typical.draw(256, rng))
        scores["kddcup-rev"] += traffic.score(plain, "kddcup-rev", traffic.known("kddcup-rev", 128, rng))
        scores["thyroid"] += traffic.score(plain, "thyroid", traffic.drifted("thyroid", 256, rng))
        scores["kddcup99"] += traffic.score(plain, "kddcup99", traffic.unseen(128))
        for client in clients:
            for row in typical.draw(10, rng):
                scores["arrhythmia"] += traffic.score(client, "arrhythmia", row[None])
        assert len(traffic.refused(plain)) == 5
        scores["thyroid"] += traffic.others(plain)
        statuses |= set(traffic.crowd(crowded))
        time.sleep(1.2)
    assert statuses == {200, 503}
    return {dataset: np.asarray(found) for dataset, found in scores.items()}


def expression(target: dict[str, Any]) -> str:
    """Returns a target's expression with all datasets and replicas chosen, as Grafana would send it."""
    text: str = target["expr"].replace("$__rate_interval", WINDOW)
    if not text.startswith("count("):  # of what may well be none
        text = text.removesuffix("or vector(0)")  # it would answer for whatever isn't there
    for name in ("dataset", "version", "instance"):
        text = text.replace(f"${name}", ".*")
    assert "$" not in text
    return text


def test_replicas_and_the_monitoring_are_scraped(stack: Stack) -> None:
    found = stack.prometheus.query("sum by (job) (up)")
    assert found == {(("job", "radogaga"),): 3, (("job", "prometheus"),): 1, (("job", "alertmanager"),): 1}


def test_what_is_scraped_is_well_formed(stack: Stack) -> None:
    for server in stack.servers:
        text = httpx.get(f"{server.url()}/metrics", trust_env=False).text
        run("promtool", "check", "metrics", text=text)


def test_every_documented_metric_is_stored_and_no_time_of_creation(stack: Stack) -> None:
    names = set(stack.prometheus.ask("label/__name__/values"))
    for name, kind in documented().items():
        assert name + "_bucket" * (kind == "histogram") in names
    assert [name for name in names if name.startswith("radogaga_") and name.endswith("_created")] == []


def test_no_rule_fails(stack: Stack) -> None:
    groups = stack.prometheus.ask("rules")["groups"]
    found = [rule for group in groups for rule in group["rules"]]
    assert len(found) == len(rules("record")) + len(rules("alert"))
    assert [(rule["name"], rule.get("lastError")) for rule in found if rule["health"] != "ok"] == []


@pytest.mark.parametrize("name", sorted(recorded()))
def test_every_recorded_series_has_data(stack: Stack, name: str) -> None:
    values = stack.prometheus.query(name).values()
    assert any(math.isfinite(value) for value in values), name


@pytest.mark.parametrize(
    ("title", "target"),
    [(panel["title"], target) for panel, target in queries()],
    ids=[f"{panel['title']}-{target['refId']}" for panel, target in queries()],
)
def test_every_panel_has_data(stack: Stack, title: str, target: dict[str, Any]) -> None:
    values = stack.prometheus.query(expression(target)).values()
    unlimited = "radogaga_memory_limit_bytes" in target["expr"]  # outside a container it is infinite
    assert any(math.isfinite(value) or unlimited for value in values), title


@pytest.mark.parametrize("query", RUNBOOK_QUERIES)
def test_the_queries_of_the_runbook_are_understood(stack: Stack, query: str) -> None:
    """Most find nothing while all is well."""
    stack.prometheus.query(query)


def test_what_alerts_read_is_stored(stack: Stack) -> None:
    stored = set(stack.prometheus.ask("label/__name__/values"))
    assert {name for rule in rules("alert") for name in names_in(rule["expr"])} - stored == set()


def test_the_index_is_that_of_the_scores(stack: Stack) -> None:
    found = stack.prometheus.query("dataset_version:radogaga_scores:psi1h")
    for dataset in ("kddcup-rev", "thyroid"):  # all of whose rows went to one replica, so that none weighs more
        bins = read_manifest(MODELS / dataset / str(traffic.VERSION)).score_bins
        assert bins is not None
        scores, rows = stack.scores[dataset], np.asarray(bins.rows)
        counts = np.bincount(np.searchsorted(bins.upper_bounds, scores), minlength=len(rows))
        labels = (("dataset", dataset), ("version", str(traffic.VERSION)))
        assert found[labels] == pytest.approx(psi(counts / len(scores), rows / rows.sum()), rel=1e-6)


def test_the_anomaly_rate_is_that_of_the_scores(stack: Stack) -> None:
    found = stack.prometheus.query("dataset:radogaga_anomalies:ratio1h")
    for dataset in ("arrhythmia", "kddcup-rev", "thyroid"):
        threshold = read_manifest(MODELS / dataset / str(traffic.VERSION)).threshold
        rate = (stack.scores[dataset] >= threshold).mean()
        assert found[(("dataset", dataset),)] == pytest.approx(rate, rel=0.02, abs=1e-3)


def test_training_had_the_anomalies_of_the_bins_beyond_the_threshold(stack: Stack) -> None:
    found = stack.prometheus.query("dataset:radogaga_training_anomalies:share")
    for dataset in traffic.DATASETS:
        shares = []
        for version in SHIPPED:
            manifest = read_manifest(MODELS / dataset / version)
            bins = manifest.score_bins
            assert bins is not None
            beyond = np.asarray([*bins.upper_bounds, np.inf]) > manifest.threshold
            shares.append(np.asarray(bins.rows)[beyond].sum() / manifest.calibration.rows)
        assert found[(("dataset", dataset),)] == pytest.approx(max(shares))


def test_every_kind_of_error_is_told_apart(stack: Stack) -> None:
    found = {labels[0][1]: value for labels, value in stack.prometheus.query("kind:radogaga_errors:rate5m").items()}
    refusals = (DatasetNotFound, InvalidValue, MalformedBody, UnsupportedMediaType, WrongWidth)
    assert {error.kind for error in refusals} | {"overloaded"} <= {kind for kind, rate in found.items() if rate > 0}


def test_rows_like_those_of_training_are_no_drift(stack: Stack) -> None:
    of_arrhythmia = (("dataset", "arrhythmia"), ("version", str(traffic.VERSION)))
    assert 0 < stack.prometheus.query("dataset_version:radogaga_scores:psi1h")[of_arrhythmia] < 0.1
    found = stack.prometheus.alerts("RadogagaDrift", "pending")
    assert [alert for alert in found if alert["labels"]["dataset"] == "arrhythmia"] == []


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("RadogagaDrift", {"dataset": "thyroid", "version": "2"}),
        ("RadogagaAnomalyRate", {"dataset": "thyroid"}),
        ("RadogagaOutsideRange", {"dataset": "thyroid"}),
        ("RadogagaUnseenCategories", {"dataset": "kddcup99"}),
        ("RadogagaOverloaded", {"job": "radogaga"}),
    ],
)
def test_alerts_wait_for_what_was_provoked_to_last(stack: Stack, name: str, labels: dict[str, str]) -> None:
    found = stack.prometheus.alerts(name, "pending") + stack.prometheus.alerts(name)
    assert [alert for alert in found if labels.items() <= alert["labels"].items()]


@pytest.mark.parametrize("name", ["RadogagaDown", "RadogagaReplicaLost", "RadogagaMemory", "RadogagaRulesFailing"])
def test_alerts_about_what_is_well_are_silent(stack: Stack, name: str) -> None:
    assert stack.prometheus.alerts(name, "pending") + stack.prometheus.alerts(name) == []


def test_failed_requests_raise_an_alert_that_arrives(stack: Stack) -> None:
    path, alert = wait_for(lambda: stack.receiver.of("RadogagaErrors"), of="the alert")[0]
    assert path == "/operators"
    assert alert["status"] == "firing"
    assert alert["labels"] == {"alertname": "RadogagaErrors", "severity": "critical", "job": "radogaga", "window": "1h"}
    assert alert["annotations"]["runbook_url"] == "docs/runbook.md#radogagaerrors"


def test_a_replica_that_lost_its_gpu_raises_an_alert_that_arrives(stack: Stack) -> None:
    path, alert = wait_for(lambda: stack.receiver.of("RadogagaProviderFallback"), 90, "the alert")[0]
    assert path == "/operators"
    assert alert["labels"]["instance"] == stack.servers[2].url().removeprefix("http://")


def test_the_watchdog_arrives_where_it_should(stack: Stack) -> None:
    path, alert = wait_for(lambda: stack.receiver.of("RadogagaWatchdog"), 90, "the alert")[
        0
    ]  # Prometheus repeats after a minute what it could not send
    assert (path, alert["labels"]) == ("/watchdog", {"alertname": "RadogagaWatchdog", "severity": "none"})


def test_a_replica_that_vanishes_raises_an_alert_that_arrives_within_a_minute(stack: Stack) -> None:
    known = 'max_over_time(min_over_time(job:up:sum{job="radogaga"}[2m])[15m:30s])'
    wait_for(lambda: list(stack.prometheus.query(known).values()) == [3], 200, "three replicas for 2 minutes")
    assert stack.receiver.of("RadogagaReplicaLost") == []
    stack.servers[1].process.terminate()
    stack.servers[1].process.wait()
    stack.prometheus.scrape([stack.servers[0].url(), stack.servers[2].url()])
    path, alert = wait_for(lambda: stack.receiver.of("RadogagaReplicaLost"), 60, "the alert")[0]
    assert (path, alert["labels"]["severity"]) == ("/operators", "warning")
    assert alert["annotations"]["summary"] == "A replica is gone, 2 left."


def test_replicas_that_do_not_answer_are_down(stack: Stack) -> None:
    for server in stack.servers[::2]:
        server.process.kill()
        server.process.wait()
    path, alert = wait_for(lambda: stack.receiver.of("RadogagaDown"), 60, "the alert")[0]
    assert (path, alert["labels"]["severity"]) == ("/operators", "critical")
    assert len(stack.prometheus.alerts("RadogagaReplicaDown", "pending")) == 2
