"""What Prometheus and Alertmanager are told fits together."""

import re
import stat

import yaml

from tests.docker.configurations import DOCKER, parsed, rules

PROMETHEUS = parsed(DOCKER / "prometheus" / "prometheus.yml")
ALERTMANAGER = parsed(DOCKER / "alertmanager" / "alertmanager.yml")


def seconds(duration: str) -> int:
    number, unit = int(duration[:-1]), duration[-1]
    return number * {"s": 1, "m": 60, "h": 3600}[unit]


def test_every_replica_is_found_and_named_as_the_rules_expect() -> None:
    jobs = {job["job_name"]: job for job in PROMETHEUS["scrape_configs"]}
    assert set(jobs) == {"radogaga", "prometheus", "alertmanager"}
    assert jobs["radogaga"]["dns_sd_configs"] == [
        {"names": ["service"], "type": "A", "port": 8000, "refresh_interval": "5s"}
    ]


def test_a_lost_replica_is_noticed_within_a_minute() -> None:
    """Discovery forgets it, its series end two scrapes and a tenth later, and the rule waits for an evaluation."""
    (alert,) = (rule for rule in rules("alert") if rule["alert"] == "RadogagaReplicaLost")
    scrape, evaluation = (seconds(PROMETHEUS["global"][f"{what}_interval"]) for what in ("scrape", "evaluation"))
    assert 5 + 2.1 * scrape + evaluation + seconds(alert["for"]) <= 60


def test_routes_lead_to_receivers() -> None:
    receivers = {receiver["name"] for receiver in ALERTMANAGER["receivers"]}
    route = ALERTMANAGER["route"]
    assert {route["receiver"], *(child["receiver"] for child in route["routes"])} == receivers


def test_nothing_is_sent_until_somebody_says_where_to() -> None:
    assert all(set(receiver) == {"name"} for receiver in ALERTMANAGER["receivers"])


def test_containers_may_read_the_files() -> None:
    for folder in ("prometheus", "alertmanager", "grafana"):
        for path in (DOCKER / folder).rglob("*"):
            wanted = stat.S_IROTH | (stat.S_IXOTH if path.is_dir() else 0)
            assert path.stat().st_mode & wanted == wanted, path


def test_scrapes_send_a_key_once_that_is_commented_in() -> None:
    text = (DOCKER / "prometheus" / "prometheus.yml").read_text()
    assert "authorization" not in str(yaml.safe_load(text))
    with_key = yaml.safe_load(
        re.sub(r"^( +)# (authorization:|  credentials_file: .*)$", r"\1\2", text, flags=re.MULTILINE)
    )
    (job,) = (job for job in with_key["scrape_configs"] if job["job_name"] == "radogaga")
    assert job["authorization"] == {"credentials_file": "/etc/prometheus/scrape.secret"}
    assert "*.secret" in (DOCKER.parent / ".gitignore").read_text().split()
