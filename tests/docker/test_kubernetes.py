"""What docker/kubernetes says agrees with itself and with the service; nothing here needs a cluster or a tool."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi.testclient import TestClient

from service.app import create_app
from service.settings import Settings
from tests.server import MODELS, ROOT

KUBERNETES = ROOT / "docker" / "kubernetes"
BASE = KUBERNETES / "base"
RULES = ROOT / "docker" / "prometheus" / "rules"

SELECTOR = {"app.kubernetes.io/name": "radogaga"}

Resource = dict[str, Any]


def load(path: Path) -> Resource:
    """Reads a file that holds one resource."""
    loaded: Resource = yaml.safe_load(path.read_text())
    return loaded


def base() -> dict[str, Resource]:
    """Returns the base's resources by kind."""
    resources = [load(BASE / name) for name in load(BASE / "kustomization.yaml")["resources"]]
    found = {resource["kind"]: resource for resource in resources}
    assert len(found) == len(resources)
    return found


@pytest.fixture(scope="module")
def resources() -> dict[str, Resource]:
    return base()


@pytest.fixture(scope="module")
def pod(resources: dict[str, Resource]) -> Resource:
    spec: Resource = resources["Deployment"]["spec"]["template"]["spec"]
    return spec


@pytest.fixture(scope="module")
def container(pod: Resource) -> Resource:
    (only,) = pod["containers"]
    found: Resource = only
    return found


def settings_of(kustomization: Path) -> dict[str, str]:
    """Returns the settings that a kustomization makes."""
    (generator,) = load(kustomization)["configMapGenerator"]
    assert generator["name"] == "radogaga-settings"
    return dict(literal.split("=", 1) for literal in generator["literals"])


def environment(container: Resource) -> dict[str, str]:
    """Returns all that the container is told, by both ways."""
    return settings_of(BASE / "kustomization.yaml") | {entry["name"]: entry["value"] for entry in container["env"]}


def megabytes(quantity: str) -> float:
    found = re.fullmatch(r"(\d+)(Mi|Gi)", quantity)
    assert found, quantity
    return int(found[1]) * {"Mi": 1, "Gi": 1024}[found[2]]


def test_every_file_is_part_of_a_kustomization() -> None:
    listed = set()
    for path in KUBERNETES.rglob("kustomization.yaml"):
        kustomization = load(path)
        patches = [patch["path"] for patch in kustomization.get("patches", []) if "path" in patch]
        listed |= {path.parent / name for name in [*kustomization.get("resources", []), *patches, path.name]}
    assert {path for path in listed if path.is_file()} == set(KUBERNETES.rglob("*.yaml"))


def test_the_base_has_what_it_should(resources: dict[str, Resource]) -> None:
    assert sorted(resources) == [
        "Deployment",
        "HorizontalPodAutoscaler",
        "NetworkPolicy",
        "PersistentVolumeClaim",
        "PodDisruptionBudget",
        "PrometheusRule",
        "Service",
        "ServiceMonitor",
    ]
    assert all("namespace" not in resource["metadata"] for resource in resources.values())


def test_all_selectors_select_the_pods(resources: dict[str, Resource], pod: Resource) -> None:
    template = resources["Deployment"]["spec"]["template"]
    assert template["metadata"]["labels"] == SELECTOR
    assert resources["Deployment"]["spec"]["selector"]["matchLabels"] == SELECTOR
    assert resources["Service"]["spec"]["selector"] == SELECTOR
    assert resources["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == SELECTOR
    assert resources["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == SELECTOR
    assert [spread["labelSelector"]["matchLabels"] for spread in pod["topologySpreadConstraints"]] == [SELECTOR] * 2


def test_the_autoscaler_scales_the_deployment(resources: dict[str, Resource], container: Resource) -> None:
    deployment, scaler = resources["Deployment"], resources["HorizontalPodAutoscaler"]["spec"]
    target = {"apiVersion": deployment["apiVersion"], "kind": "Deployment", "name": deployment["metadata"]["name"]}
    assert scaler["scaleTargetRef"] == target
    assert "replicas" not in deployment["spec"], "it would fight with the autoscaler at every apply"
    (metric,) = scaler["metrics"]
    assert metric["resource"]["name"] == "cpu"
    assert "cpu" in container["resources"]["requests"], "utilisation is measured in requested CPUs"
    budget = resources["PodDisruptionBudget"]["spec"]["maxUnavailable"]
    assert scaler["minReplicas"] > budget >= 1, "else a drained node takes all, or can't be drained"


def test_prometheus_finds_the_pods_as_the_job_of_the_rules(resources: dict[str, Resource]) -> None:
    monitor, service = resources["ServiceMonitor"]["spec"], resources["Service"]
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert service["metadata"]["labels"][monitor["jobLabel"]] == "radogaga"
    (endpoint,) = monitor["endpoints"]
    assert endpoint["port"] in [port["name"] for port in service["spec"]["ports"]]
    (kept_from_the_operator,) = endpoint["relabelings"]  # it labels every series with the port's name
    assert kept_from_the_operator == {"action": "labeldrop", "regex": "endpoint"}
    assert int(endpoint["scrapeTimeout"][:-1]) <= int(endpoint["interval"][:-1])


def test_ports_have_the_same_names_and_numbers(resources: dict[str, Resource], container: Resource) -> None:
    (port,) = container["ports"]
    assert str(port["containerPort"]) == environment(container)["RADOGAGA_PORT"]
    (served,) = resources["Service"]["spec"]["ports"]
    (rule,) = resources["NetworkPolicy"]["spec"]["ingress"]
    assert served["targetPort"] == port["name"]
    assert [allowed["port"] for allowed in rule["ports"]] == [port["name"]]
    assert {container[f"{kind}Probe"]["httpGet"]["port"] for kind in ("startup", "readiness", "liveness")} == {
        port["name"]
    }


def test_probes_and_scrapes_ask_routes_that_there_are(resources: dict[str, Resource], container: Resource) -> None:
    paths = {kind: container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")}
    assert paths == {"startup": "/health/ready", "readiness": "/health/ready", "liveness": "/health/live"}
    app = create_app(Settings(models=MODELS, provider="cpu"))
    with TestClient(app) as client:
        for path in (paths["liveness"], resources["ServiceMonitor"]["spec"]["endpoints"][0]["path"]):
            assert client.get(path).status_code == 200
        assert client.get(paths["readiness"]).status_code in (200, 503)


@pytest.mark.parametrize(
    "kustomization", sorted(KUBERNETES.rglob("kustomization.yaml")), ids=lambda path: path.parent.name
)
def test_every_setting_is_one_and_has_a_value_of_its_kind(kustomization: Path, container: Resource) -> None:
    made = settings_of(kustomization) if "configMapGenerator" in load(kustomization) else {}
    told = environment(container) | made
    known = {f"RADOGAGA_{name}".upper(): name for name in Settings.model_fields}
    assert set(told) <= set(known)
    values = Settings.model_validate({known[name]: value for name, value in told.items()})
    assert (values.host, str(values.models)) == ("0.0.0.0", "/models")  # noqa: S104


def test_settings_come_from_the_config_map_that_is_made(container: Resource) -> None:
    assert container["envFrom"] == [{"configMapRef": {"name": "radogaga-settings"}}]
    assert not settings_of(BASE / "kustomization.yaml").keys() & {entry["name"] for entry in container["env"]}


def test_a_pod_has_the_time_to_finish_its_requests(pod: Resource, container: Resource) -> None:
    leaving = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    finishing = int(environment(container)["RADOGAGA_SHUTDOWN_SECONDS"])
    assert pod["terminationGracePeriodSeconds"] >= leaving + finishing + 5
    probe = container["readinessProbe"]
    assert leaving >= probe["periodSeconds"], "endpoints must have heard of it"


def test_a_rolling_update_takes_no_replica_away(resources: dict[str, Resource]) -> None:
    assert resources["Deployment"]["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


def test_the_container_may_do_nothing_it_does_not_need(pod: Resource, container: Resource) -> None:
    security = pod["securityContext"]
    assert (security["runAsNonRoot"], security["runAsUser"]) == (True, 10001)
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()


def test_models_are_read_only_and_all_mounts_have_a_volume(
    resources: dict[str, Resource], pod: Resource, container: Resource
) -> None:
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert {mount["name"] for mount in mounts.values()} == volumes.keys()
    models = mounts[environment(container)["RADOGAGA_MODELS"]]
    claim = volumes[models["name"]]["persistentVolumeClaim"]
    assert (models["readOnly"], claim["readOnly"]) == (True, True)
    assert claim["claimName"] == resources["PersistentVolumeClaim"]["metadata"]["name"]


def test_requests_are_within_limits(container: Resource) -> None:
    requests, limits = container["resources"]["requests"], container["resources"]["limits"]
    assert float(requests["cpu"]) <= float(limits["cpu"])
    assert megabytes(requests["memory"]) <= megabytes(limits["memory"])
    workers = int(environment(container)["RADOGAGA_WORKERS"])
    assert float(requests["cpu"]) >= workers, "a worker keeps a core busy"


def test_the_gpu_overlay_asks_for_the_gpu_that_the_service_demands() -> None:
    overlay = KUBERNETES / "overlays" / "gpu"
    assert settings_of(overlay / "kustomization.yaml") == {"RADOGAGA_PROVIDER": "cuda"}
    (image,) = load(overlay / "kustomization.yaml")["images"]
    (built,) = load(BASE / "kustomization.yaml")["images"]
    assert (image["name"], image["newTag"], built["newTag"]) == (built["newName"], "gpu", "cpu")
    pod = load(overlay / "deployment.yaml")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert megabytes(container["resources"]["requests"]["memory"]) <= megabytes(
        container["resources"]["limits"]["memory"]
    )
    assert [toleration["key"] for toleration in pod["tolerations"]] == ["nvidia.com/gpu"]


def test_the_base_s_image_is_the_deployment_s(container: Resource) -> None:
    (image,) = load(BASE / "kustomization.yaml")["images"]
    assert image["name"] == container["image"]


def prometheus_rule(folder: Path = RULES) -> subprocess.CompletedProcess[str]:
    """Runs what writes the PrometheusRule."""
    return subprocess.run(
        [sys.executable, KUBERNETES / "rules.py", folder], capture_output=True, text=True, check=False
    )


def test_the_rules_are_those_of_docker_prometheus() -> None:
    assert (BASE / "rules.yaml").read_text() == prometheus_rule().stdout, "`make kubernetes-rules` writes them"


def test_alerts_that_kubernetes_has_no_use_for_are_left_out() -> None:
    def names(groups: list[Resource]) -> set[str]:
        return {rule.get("alert", rule.get("record")) for group in groups for rule in group["rules"]}

    here = names(load(BASE / "rules.yaml")["spec"]["groups"])
    everywhere = {name for path in RULES.glob("*.yml") for name in names(load(path)["groups"])}
    assert everywhere - here == {"RadogagaReplicaLost", "RadogagaAlertsNotDelivered", "RadogagaRulesFailing"}
    assert here <= everywhere


def test_rules_of_several_files_become_one(tmp_path: Path) -> None:
    for name in ("b", "a"):
        group = {"groups": [{"name": name, "rules": [{"record": f"x:{name}", "expr": "1"}]}]}
        (tmp_path / f"{name}.yml").write_text(yaml.safe_dump(group))
    rule = yaml.safe_load(prometheus_rule(tmp_path).stdout)
    assert [group["name"] for group in rule["spec"]["groups"]] == ["a", "b"]
    assert (rule["kind"], rule["metadata"]["name"]) == ("PrometheusRule", "radogaga")


def test_a_folder_without_rules_is_an_error(tmp_path: Path) -> None:
    done = prometheus_rule(tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: {tmp_path}: there are no rules *.yml in it\n"
