"""What an operator can ask Prometheus, and that the answers stay few."""

import http.client
import itertools
import json
import math
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from fastapi.testclient import TestClient
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from service import inference
from service.app import create_app
from service.inference import INLINE_BYTES
from service.ledger import MOST_UNSETTLED, MOST_VALUES
from service.metrics import Load, ServiceMetrics, memory_limit_bytes, resident_bytes
from service.runtime import CPU, CUDA, Runtime
from service.settings import Provider, Settings
from tests.server import MODELS, ROOT, SECONDS, serving
from tests.service.conftest import wait_until_ready
from tests.service.requests import ROW

JSON = {"content-type": "application/json"}


@pytest.fixture
def fresh() -> Iterator[TestClient]:
    """The service with metrics that nothing was added to."""
    with TestClient(create_app(Settings(models=MODELS, revision="abc"))) as client:
        yield wait_until_ready(client)


def families(client: TestClient) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(client.get("/metrics").text)}


def values(client: TestClient, name: str, **labels: str) -> dict[tuple[str, ...], float]:
    """Returns the samples of a name that have some labels, by their other labels in alphabetical order."""
    found = {}
    for family in families(client).values():
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                rest = sorted(sample.labels.items() - labels.items())
                found[tuple(value for _, value in rest)] = sample.value
    return found


def stages(client: TestClient, endpoint: str = "/score") -> dict[str, tuple[float, float]]:
    """Returns how often each stage was passed, and the seconds that took."""
    name = "radogaga_stage_duration_seconds"
    sums, counts = (values(client, f"{name}_{what}", endpoint=endpoint) for what in ("sum", "count"))
    return {stage: (counts[(stage,)], sums[(stage,)]) for (stage,) in counts}


def test_the_documented_metrics_are_those_there_are(fresh: TestClient) -> None:
    rows = [ROW, [9.0] * 6]
    for path, field, given in (
        ("/score", "vectors", rows),
        ("/encode", "vectors", rows),
        ("/decode", "latents", [[0.5, 0.5]]),
    ):
        fresh.post(path, json={"dataset": "thyroid", field: given})
    fresh.get("/made-up")
    service = fresh.app.state.service  # type: ignore[attr-defined]
    service.metrics.batch_rows.values[()].append(3)
    document = (ROOT / "docs" / "metrics.md").read_text()
    documented = {}
    for name, kind, labels in re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) ?\| ", document, re.MULTILINE):
        documented[name] = (kind, set(re.findall(r"`(\w+)`", labels)))
    found = {}
    for family in families(fresh).values():
        labels = {label for sample in family.samples for label in sample.labels if label != "le"}
        if not family.name.endswith("_created"):
            found[family.name + "_total" * (family.type == "counter")] = (family.type, labels)
    assert documented == found


def test_names_made_up_by_clients_add_nothing(tmp_path: Path) -> None:
    with (
        serving(tmp_path / "log") as server,
        server.client() as client,
        closing(http.client.HTTPConnection(server.url().removeprefix("http://"), timeout=SECONDS)) as connection,
    ):
        turn = itertools.count()

        def ask(name: str) -> None:
            body = json.dumps({"dataset": name, "vectors": [[1.0]]})
            paths = (("POST", "/score"), ("GET", f"/datasets/{name}"), ("POST", f"/v2/models/{name}/infer"))
            connection.request(*paths[next(turn) % 3], body, JSON)
            answer = connection.getresponse()
            assert answer.status == 404, answer.read()
            answer.read()

        def series() -> set[str]:
            return {line.partition(" ")[0] for line in client.get("/metrics").text.splitlines()}

        for name in ("a", "b", "c"):
            ask(name)
        series()
        before = series()
        for number in range(10_000):
            ask(f"made-up-{number}")
        assert series() == before


def test_each_stage_of_a_request_is_timed(fresh: TestClient) -> None:
    for _ in range(3):
        fresh.post("/score", json={"dataset": "thyroid", "vectors": [ROW]})
    fresh.post("/score", json={"dataset": "thyroid", "vectors": [[1.0]]})  # is refused, and has no stages
    found = stages(fresh)
    assert {stage: count for stage, (count, _) in found.items()} == {"read": 3, "parse": 3, "infer": 3, "write": 3}
    assert all(seconds > 0 for _, seconds in found.values())
    whole = values(fresh, "radogaga_request_duration_seconds_sum", endpoint="/score", dataset="thyroid", status="200")
    assert sum(seconds for _, seconds in found.values()) == pytest.approx(whole[()])


def test_each_stage_of_the_protocol_is_timed(fresh: TestClient) -> None:
    tensor = {"name": "vectors", "datatype": "FP32", "shape": [1, 6], "data": ROW}
    assert fresh.post("/v2/models/thyroid/infer", json={"inputs": [tensor]}).status_code == 200
    assert set(stages(fresh, "/v2/models/{model}/infer")) == {"read", "parse", "infer", "write"}


def test_waiting_is_timed_where_there_is_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "cores", lambda: 2)
    rows = np.random.default_rng(0).random((1100, 121)).round(6).tolist()
    with TestClient(create_app(Settings(models=MODELS, max_batch_rows=8))) as client:
        wait_until_ready(client)
        for given in (rows[:1], rows[:200], rows):
            answer = client.post("/score", json={"dataset": "kddcup99", "vectors": given})
            assert answer.status_code == 200
        assert int(answer.request.headers["content-length"]) > INLINE_BYTES
        found = stages(client)
        assert {count for count, _ in found.values()} == {3}
        assert all(seconds > 0 for _, seconds in found.values())
        assert found["queue"][1] + found["infer"][1] < 10
        assert values(client, "radogaga_batch_rows_sum") == {(): 1}


def test_scores_are_counted_in_the_bins_of_their_model(fresh: TestClient, examples: dict[str, Any]) -> None:
    detector = fresh.app.state.service.models().find("thyroid", 1)  # type: ignore[attr-defined]
    counted = "radogaga_scores_total"
    assert set(values(fresh, counted, dataset="thyroid", version="1").values()) == {0}
    body = {"dataset": "thyroid", "version": 1, "vectors": examples["x"]}
    few = {**body, "vectors": examples["x"][:3]}
    scores = [score for sent in (body, few) for score in fresh.post("/score", json=sent).json()["scores"]]
    found = values(fresh, counted, dataset="thyroid", version="1")
    bounds = values(fresh, "radogaga_score_bin_upper_bound", dataset="thyroid", version="1")
    assert sum(found.values()) == len(scores)
    below = 0.0
    for name in detector.reference.bins:
        below += found[(name,)]
        assert below == sum(score <= bounds[(name,)] for score in scores)
    assert bounds[(detector.reference.bins[-1],)] == float("inf")
    assert sum(values(fresh, "radogaga_training_share", dataset="thyroid", version="1").values()) == pytest.approx(1)
    assert set(values(fresh, counted, dataset="thyroid", version="2").values()) == {0}


def test_unseen_categories_are_counted(fresh: TestClient) -> None:
    name = "radogaga_unseen_categories_total"
    assert values(fresh, name, dataset="kddcup99") == {(): 0}
    fresh.post("/score", json={"dataset": "kddcup99", "vectors": [[0.0] * 121]})
    few = values(fresh, name, dataset="kddcup99")[()]
    assert few == 7
    fresh.post("/score", json={"dataset": "kddcup99", "vectors": [[0.0] * 121] * 100})  # too many to be left for later
    assert values(fresh, name, dataset="kddcup99")[()] == 101 * few


def test_nothing_is_kept_for_long_without_a_scrape(fresh: TestClient) -> None:
    ledger = fresh.app.state.service.ledger  # type: ignore[attr-defined]
    body = {"dataset": "kddcup99", "vectors": [[0.5] * 121] * 30}
    for _ in range(MOST_VALUES // (30 * 121) + 1):
        fresh.post("/score", json=body)
    assert ledger._values < MOST_VALUES
    for _ in range(MOST_UNSETTLED):
        fresh.get("/health/live")
    kept = sum(map(len, ledger._metrics.requests.values.values())) + sum(map(len, ledger._stages.values()))
    assert kept < MOST_UNSETTLED
    answered = values(fresh, "radogaga_request_duration_seconds_count", endpoint="/health/live", status="200")
    assert answered[("",)] == MOST_UNSETTLED


def test_kinds_of_errors_begin_at_zero(fresh: TestClient) -> None:
    found = values(fresh, "radogaga_errors_total")
    assert {("internal",), ("overloaded",), ("wrong_width",), ("model_not_found",)} <= found.keys()
    assert {count for (kind,), count in found.items() if kind != "not_ready"} == {0}


def test_the_build_and_the_limits_are_told(fresh: TestClient) -> None:
    (build,) = (s for s in families(fresh)["radogaga_build_info"].samples)
    assert build.labels["revision"] == "abc"
    assert build.labels["onnxruntime"] == onnxruntime.__version__
    assert values(fresh, "radogaga_max_requests_in_flight") == {(): 64}
    assert values(fresh, "radogaga_provider_fallback") == {(): 0}
    assert 0.5 < values(fresh, "radogaga_resident_memory_bytes")[()] / resident_bytes() < 2


@pytest.mark.parametrize(
    ("second", "first", "limit"),
    [
        ("536870912\n", None, 2**29),
        ("max\n", None, math.inf),
        (None, "268435456\n", 2**28),
        (None, "9223372036854771712\n", math.inf),
        (None, None, math.inf),
    ],
)
def test_the_memory_that_a_container_may_use_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, second: str | None, first: str | None, limit: float
) -> None:
    for name, text in (("second", second), ("first", first)):
        if text is not None:
            (tmp_path / name).write_text(text)
    monkeypatch.setattr("service.metrics.MEMORY_LIMITS", (tmp_path / "second", tmp_path / "first"))
    assert memory_limit_bytes() == limit
    with TestClient(create_app(Settings(models=MODELS))) as client:
        assert values(wait_until_ready(client), "radogaga_memory_limit_bytes") == {(): limit}


@pytest.mark.parametrize(
    ("provider", "available", "got", "fell_back"),
    [
        ("auto", [CUDA, CPU], [CUDA], False),
        ("auto", [CUDA, CPU], [CPU], True),
        ("auto", [CUDA, CPU], [CPU, CUDA], True),
        ("auto", [CPU], [CPU], False),
        ("cpu", [CUDA, CPU], [CPU], False),
    ],
)
def test_a_fallback_to_the_cpu_is_noticed(
    monkeypatch: pytest.MonkeyPatch, provider: Provider, available: list[str], got: list[str], fell_back: bool
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: available)
    assert Runtime(provider).fell_back(got) is fell_back


def test_what_waits_is_told() -> None:
    metrics = ServiceMetrics()
    metrics.publish(Load(requests=5, rows_queued=7, long_bodies_queued=9, connections=11))
    found = {family.name: family.samples[0].value for family in metrics.registry.collect() if len(family.samples) == 1}
    assert found["radogaga_requests_in_flight"] == 5
    assert found["radogaga_rows_queued"] == 7
    assert found["radogaga_long_bodies_queued"] == 9
