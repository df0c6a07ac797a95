"""The dashboard: every panel has a place of its own, units, and asks for series that exist."""

import itertools
import json
import re
from typing import Any

import pytest

from tests.docker.configurations import (
    DASHBOARD,
    DOCKER,
    OF_OTHERS,
    names_in,
    panels,
    parsed,
    queries,
    recorded,
    rules,
    series,
)

BOARD = json.loads(DASHBOARD.read_text())
SOURCES = parsed(DOCKER / "grafana" / "provisioning" / "datasources" / "radogaga.yml")["datasources"]
UNITS = {"s", "short", "none", "percentunit", "reqps", "bytes", "suffix: rows/s"}


def cells(panel: dict[str, Any]) -> set[tuple[int, int]]:
    at = panel["gridPos"]
    return set(itertools.product(range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])))


def test_ids_are_given_once() -> None:
    ids = [panel["id"] for panel in panels()]
    assert len(set(ids)) == len(ids)


def test_panels_lie_beside_each_other_on_the_grid() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in BOARD["panels"]:
        for cell in cells(panel):
            assert 0 <= cell[0] < 24
            assert cell not in taken, (panel["title"], taken[cell])
            taken[cell] = panel["title"]


def test_panels_have_titles_descriptions_and_units() -> None:
    for panel in panels():
        assert panel["title"]
        if panel["type"] != "row":
            assert panel["description"].endswith("."), panel["title"]
            assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]
            assert panel["targets"], panel["title"]


def test_targets_are_told_apart() -> None:
    for panel in panels():
        references = [target["refId"] for target in panel.get("targets", ())]
        assert len(set(references)) == len(references), panel["title"]
        for override in panel.get("fieldConfig", {}).get("overrides", ()):
            assert override["matcher"]["options"] in references, panel["title"]


def test_expressions_read_what_is_documented_or_recorded() -> None:
    for panel, target in queries():
        read = names_in(target["expr"])
        assert read, panel["title"]
        assert read <= series() | recorded() | OF_OTHERS, (panel["title"], target["expr"])


def test_variables_are_defined_and_used() -> None:
    defined = {variable["name"] for variable in BOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]\w*)", DASHBOARD.read_text()))
    assert used == defined
    for variable in BOARD["templating"]["list"]:
        for name in re.findall(r"label_values\((\w+)", str(variable["query"])):
            assert name in series()


def test_the_data_come_from_the_provisioned_source() -> None:
    (source,) = (variable for variable in BOARD["templating"]["list"] if variable["type"] == "datasource")
    (provisioned,) = (one for one in SOURCES if one["type"] == source["query"])
    assert (provisioned["uid"], provisioned["name"]) == (source["current"]["value"], source["current"]["text"])
    assert provisioned["url"] == "http://prometheus:9090"
    for panel, target in queries():
        assert target["datasource"] == panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_the_folder_of_the_dashboards_is_the_mounted_one() -> None:
    (provider,) = parsed(DOCKER / "grafana" / "provisioning" / "dashboards" / "radogaga.yml")["providers"]
    assert provider["options"]["path"] == "/var/lib/grafana/dashboards"


def test_panels_name_alerts_that_exist() -> None:
    named = set(re.findall(r"docs/runbook\.md#(\w+)", DASHBOARD.read_text()))
    of_the_monitoring = {"radogagaalertsnotdelivered", "radogagarulesfailing", "radogagawatchdog"}
    assert named == {alert["alert"].lower() for alert in rules("alert")} - of_the_monitoring


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ("vector(1)", set()),
        ('sum by (job) (up{job="a", b=~"x|y"})', {"up"}),
        ("a:b:c5m > 0.25 and d * 60 or 1e9", {"a:b:c5m", "d"}),
        ("histogram_quantile(0.99, sum by (le) (rate(x_bucket[$__rate_interval])))", {"x_bucket"}),
        ("a / on (job) group_left () b offset 1h", {"a", "b"}),
    ],
)
def test_names_are_found_in_expressions(expression: str, names: set[str]) -> None:
    assert names_in(expression) == names
