"""Rules, their tests and the runbook belong together, and limits are such that chance does not cross them."""

import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from service.manifest import read_manifest
from service.metrics import SECONDS
from tests.docker.configurations import (
    CASES,
    OF_OTHERS,
    OF_THE_MONITORING,
    names_in,
    parsed,
    queries,
    recorded,
    rules,
    series,
)
from tests.server import MODELS, ROOT

RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
ALERTS = rules("alert")
ALWAYS_FIRES = "RadogagaWatchdog"


def psi(shares: NDArray[np.float64], reference: NDArray[np.float64]) -> NDArray[np.float64]:
    """The population stability index of shares (..., B) against others (..., B), as the rules have it."""
    s, t = np.maximum(shares, 0.001), np.maximum(reference, 0.001)
    return np.asarray(((s - t) * np.log(s / t)).sum(-1))


def sections() -> dict[str, str]:
    """Returns the runbook's paragraphs by the alert that heads them."""
    parts = re.split(r"^### (Radogaga\w+)\n", RUNBOOK, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_alert_says_what_an_operator_needs() -> None:
    for alert in ALERTS:
        name = alert["alert"]
        assert re.fullmatch(r"Radogaga[A-Z]\w+", name)
        assert alert["labels"]["severity"] in {"critical", "warning", "none"}
        assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
        assert alert["annotations"]["runbook_url"] == f"docs/runbook.md#{name.lower()}"


def test_the_runbook_has_a_paragraph_for_every_alert_and_for_nothing_else() -> None:
    assert set(sections()) == {alert["alert"] for alert in ALERTS}


def test_the_operators_guide_lists_every_alert_with_its_severity() -> None:
    listed = re.findall(r"^\| \[(\w+)\]\(runbook\.md#(\w+)\) \| ([a-z, ]+) \|", OPERATIONS, re.MULTILINE)
    assert [(name, anchor) for name, anchor, _ in listed] == [(name, name.lower()) for name in sections()]
    for name, _, severities in listed:
        assert severities.split(", ") == [alert["labels"]["severity"] for alert in ALERTS if alert["alert"] == name]


@pytest.mark.parametrize("name", sorted(sections()))
def test_a_paragraph_tells_what_to_look_at_and_what_to_do(name: str) -> None:
    text = sections()[name]
    for part in ("**Means.**", "**First look.**", "**Usual causes.**", "**What to do.**"):
        assert part in text, part
    shown = re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert shown
    for language, block in shown:
        assert language in {"promql", "sh"}
        if language == "promql":
            for query in block.strip().splitlines():
                assert names_in(query) <= series() | recorded() | OF_OTHERS | OF_THE_MONITORING, query


def test_rules_read_what_is_documented_or_recorded() -> None:
    known = series() | recorded() | OF_OTHERS | OF_THE_MONITORING
    for rule in rules("expr"):
        assert names_in(rule["expr"]) or "vector(" in rule["expr"], rule
        assert names_in(rule["expr"]) <= known, rule


def test_what_is_recorded_has_a_level_a_metric_and_an_operation() -> None:
    names = [rule["record"] for rule in rules("record")]
    assert len(set(names)) == len(names)
    for name in names:
        assert re.fullmatch(r"[a-z_]+:[a-z_]+:[a-z0-9_]+", name), name


def test_all_that_is_recorded_is_read_by_a_rule_the_dashboard_or_the_runbook() -> None:
    expressions = [rule["expr"] for rule in rules("expr")] + [target["expr"] for _, target in queries()]
    expressions += re.findall(r"^```promql\n(.*?)^```$", RUNBOOK, re.MULTILINE | re.DOTALL)
    assert recorded() - {name for expression in expressions for name in names_in(expression)} == set()


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_is_silent() -> None:
    severities = {(alert["alert"], alert["labels"]["severity"]) for alert in ALERTS}
    fires, silent = set(), set()
    for path in CASES:
        for test in parsed(path)["tests"]:
            for case in test.get("alert_rule_test", ()):
                name = case["alertname"]
                found = {expected["exp_labels"]["severity"] for expected in case["exp_alerts"]}
                fires |= {(name, severity) for severity in found}
                silent |= {one for one in severities if one[0] == name and one[1] not in found}
    assert fires == severities
    assert silent == {one for one in severities if one[0] != ALWAYS_FIRES}


def test_the_objective_is_a_bucket() -> None:
    (bound,) = {bound for rule in rules("record") for bound in re.findall(r'le="([^"]+)"', rule["expr"])}
    assert float(bound) in SECONDS
    assert f"{1000 * float(bound):g} milliseconds" in RUNBOOK


@pytest.mark.parametrize("path", sorted(MODELS.glob("*/*/manifest.json")), ids=lambda path: "-".join(path.parts[-3:-1]))
def test_500_rows_like_those_of_training_are_no_drift(path: Path) -> None:
    """Draws what the shares behind the training's counts may have been, 500 rows from each, and their index."""
    bins = read_manifest(path.parent).score_bins
    assert bins is not None
    rng = np.random.default_rng(0)
    counts = np.asarray(bins.rows)
    rows = rng.multinomial(500, rng.dirichlet(counts, size=20_000))
    index = psi(rows / 500, counts / counts.sum())
    assert (index > 0.25).mean() < 0.01
