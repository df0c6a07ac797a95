"""What Prometheus's and Alertmanager's own tools say of the configurations."""

import itertools
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.docker.configurations import CASES, DOCKER, RULES, rules
from tests.monitoring.parts import alertmanager, run, wait_for

pytestmark = pytest.mark.monitoring

ROUTES = DOCKER / "alertmanager" / "alertmanager.yml"


def test_prometheus_takes_its_configuration(tmp_path: Path) -> None:
    shipped = (DOCKER / "prometheus" / "prometheus.yml").read_text()
    path = tmp_path / "prometheus.yml"
    path.write_text(shipped.replace("/etc/prometheus/", f"{DOCKER / 'prometheus'}/"))
    printed = run("promtool", "check", "config", "--lint-fatal", path)
    assert f"{len(RULES)} rule files found" in printed
    assert all(f"Checking {path}" in printed for path in RULES)


def test_rules_are_well_formed() -> None:
    printed = run("promtool", "check", "rules", "--lint=all", "--lint-fatal", *RULES)
    assert printed.count("SUCCESS") == len(RULES)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_alerts_fire_when_they_should(path: Path) -> None:
    assert "SUCCESS" in run("promtool", "test", "rules", path)


def test_alertmanager_takes_its_configuration() -> None:
    assert "SUCCESS" in run("amtool", "check-config", ROUTES)


@pytest.mark.parametrize("alert", rules("alert"), ids=lambda alert: f"{alert['alert']}-{alert['labels']['severity']}")
def test_every_alert_has_its_receiver(alert: dict[str, Any]) -> None:
    labels = {"alertname": alert["alert"], **alert["labels"]}
    given = [f"{name}={value}" for name, value in labels.items()]
    expected = "watchdog" if labels["severity"] == "none" else "operators"
    run("amtool", "config", "routes", "test", f"--config.file={ROUTES}", f"--verify.receivers={expected}", *given)


WARNING, CRITICAL = {"severity": "warning"}, {"severity": "critical"}
DOWN = {"alertname": "RadogagaDown", **CRITICAL}


@pytest.mark.parametrize(
    ("source", "target", "inhibited"),
    [
        (DOWN, {"alertname": "RadogagaSlow", **CRITICAL}, True),
        (DOWN, {"alertname": "RadogagaReplicaLost", **WARNING}, True),
        (DOWN, {"alertname": "RadogagaWatchdog", "severity": "none"}, False),
        (DOWN, {"alertname": "RadogagaAlertsNotDelivered", **CRITICAL}, False),
        (DOWN, {"alertname": "RadogagaRulesFailing", **WARNING}, False),
        (DOWN, {"alertname": "Another", **CRITICAL}, False),
        ({"alertname": "RadogagaSlow", **CRITICAL}, {"alertname": "RadogagaSlow", **WARNING}, True),
        ({"alertname": "RadogagaSlow", **CRITICAL}, {"alertname": "RadogagaErrors", **WARNING}, False),
        ({"alertname": "RadogagaOverloaded"}, {"alertname": "RadogagaSaturated", "instance": "a"}, True),
        (
            {"alertname": "RadogagaMemory", "instance": "a"},
            {"alertname": "RadogagaMemoryGrowing", "instance": "a"},
            True,
        ),
        (
            {"alertname": "RadogagaMemory", "instance": "a"},
            {"alertname": "RadogagaMemoryGrowing", "instance": "b"},
            False,
        ),
    ],
    ids=lambda value: "-".join(value.values()) if isinstance(value, dict) else str(value),
)
def test_some_alerts_hold_others_back(
    shared_alertmanager: str, source: dict[str, str], target: dict[str, str], inhibited: bool
) -> None:
    case = {"case": str(next(CASE))}
    url = f"http://{shared_alertmanager}/api/v2/alerts"
    alerts = [{"labels": {**case, **labels}} for labels in (source, target)]
    assert httpx.post(url, json=alerts, trust_env=False).status_code == httpx.codes.OK

    def states() -> dict[str, list[str]]:
        found = httpx.get(url, params={"filter": f"case={case['case']}"}, trust_env=False).json()
        known = {one["labels"]["alertname"] + one["labels"].get("severity", ""): one["status"] for one in found}
        settled = len(known) == 2 and all(status["state"] != "unprocessed" for status in known.values())
        return {name: status["inhibitedBy"] for name, status in known.items()} if settled else {}

    found = wait_for(states, of="Alertmanager has looked at both alerts")
    assert found[source["alertname"] + source.get("severity", "")] == []
    assert bool(found[target["alertname"] + target.get("severity", "")]) is inhibited
    ended = [{**alert, "endsAt": "2001-01-01T00:00:00Z"} for alert in alerts]
    assert httpx.post(url, json=ended, trust_env=False).status_code == httpx.codes.OK


CASE = itertools.count()


@pytest.fixture(scope="module")
def shared_alertmanager(tmp_path_factory: pytest.TempPathFactory) -> Any:  # noqa: ANN401 - an iterator of addresses
    with alertmanager(tmp_path_factory.mktemp("alertmanager")) as address:
        yield address
