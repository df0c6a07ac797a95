"""The configurations of Prometheus, Alertmanager and Grafana, for the tests that hold them against each other."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.server import ROOT

DOCKER = ROOT / "docker"
RULES = sorted((DOCKER / "prometheus" / "rules").glob("*.yml"))
CASES = sorted((DOCKER / "prometheus" / "tests").glob("*.yml"))
DASHBOARD = DOCKER / "grafana" / "dashboards" / "radogaga.json"

OF_OTHERS = frozenset({"up", "ALERTS"})
"""Series that Prometheus makes itself."""
OF_THE_MONITORING = frozenset(
    {
        "prometheus_notifications_errors_total",
        "prometheus_notifications_alertmanagers_discovered",
        "prometheus_rule_evaluation_failures_total",
        "alertmanager_notifications_failed_total",
    }
)
"""What Prometheus and Alertmanager tell of themselves."""

WORDS = frozenset("and or unless by without on ignoring group_left group_right offset bool inf nan".split())


def parsed(path: Path) -> dict[str, Any]:
    """Returns what a file in YAML or JSON says."""
    document: dict[str, Any] = yaml.safe_load(path.read_text())
    return document


def rules(kind: str) -> list[dict[str, Any]]:
    """Returns the rules that have a key, `record` or `alert`."""
    groups = (group for path in RULES for group in parsed(path)["groups"])
    return [rule for group in groups for rule in group["rules"] if kind in rule]


def recorded() -> set[str]:
    return {rule["record"] for rule in rules("record")}


def documented() -> dict[str, str]:
    """Returns the metrics of docs/metrics.md and their types."""
    text = (ROOT / "docs" / "metrics.md").read_text()
    return dict(re.findall(r"^\| `(\w+)` \| (\w+) \| ", text, re.MULTILINE))


def series() -> set[str]:
    """Returns the names of all documented series: a histogram has three."""
    return {
        name + suffix
        for name, kind in documented().items()
        for suffix in (("_bucket", "_sum", "_count") if kind == "histogram" else ("",))
    }


def names_in(expression: str) -> set[str]:
    """Returns the names of the series that an expression of PromQL reads."""
    bare = re.sub(r'"[^"]*"', "", expression)
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]", "", bare)
    bare = re.sub(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", "", bare)
    found = re.findall(r"(?<![\w:.])([a-zA-Z_:][\w:]*)\s*(\(?)", bare)
    return {name for name, call in found if not call and name.lower() not in WORDS and not re.fullmatch(r"\d+\w", name)}


def panels() -> list[dict[str, Any]]:
    """Returns the dashboard's panels, those inside collapsed rows too."""
    found: list[dict[str, Any]] = []
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        found += [panel, *panel.get("panels", ())]
    return found


def queries() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yields every target of the dashboard behind its panel."""
    for panel in panels():
        for target in panel.get("targets", ()):
            yield panel, target
