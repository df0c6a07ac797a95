"""Writes docker/prometheus/rules as a PrometheusRule, which the Prometheus operator reads.

``python docker/kubernetes/rules.py > docker/kubernetes/base/rules.yaml``
"""

import sys
from pathlib import Path
from typing import Any

import yaml

RULES = Path(__file__).parents[1] / "prometheus" / "rules"

HEADER = (
    "# Written by docker/kubernetes/rules.py out of docker/prometheus/rules; `make kubernetes-rules` writes it anew.\n"
)


NOT_HERE = {
    "RadogagaReplicaLost": "the autoscaler takes replicas away, and the Deployment replaces lost ones",
    "RadogagaAlertsNotDelivered": "who runs the operator watches Prometheus and Alertmanager, under other names",
    "RadogagaRulesFailing": "the same",
}
"""Alerts that are left out, and why."""


def prometheus_rule(files: list[Path]) -> str:
    """Returns the groups of files of rules as one PrometheusRule, without the alerts in NOT_HERE."""
    groups: list[dict[str, Any]] = []
    for path in files:
        groups += yaml.safe_load(path.read_text())["groups"]
    for group in groups:
        group["rules"] = [rule for rule in group["rules"] if rule.get("alert") not in NOT_HERE]
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "radogaga", "labels": {"app.kubernetes.io/name": "radogaga"}},
        "spec": {"groups": groups},
    }
    return HEADER + yaml.safe_dump(rule, sort_keys=False, width=120, allow_unicode=True)


def main() -> int:
    """Prints the PrometheusRule; returns 1 if there are no rules."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else RULES
    files = sorted(folder.glob("*.yml"))
    if not files:
        print(f"error: {folder}: there are no rules *.yml in it", file=sys.stderr)
        return 1
    print(prometheus_rule(files), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
