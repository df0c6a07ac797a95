"""What kubectl makes of docker/kubernetes obeys Kubernetes's own schemas and the Prometheus operator's.

`make kubernetes-check` sets up what this needs: kubectl, kubernetes-validate and models of the operator's kinds.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.kubernetes

KUBERNETES = Path(__file__).parents[2] / "docker" / "kubernetes"
TOOLS = Path(sys.executable).parent

VERSIONS = ("1.34", "1.37")
"""The oldest Kubernetes whose preStop sleep is there for good, and the newest whose schemas are known."""

IMAGE_VOLUMES = "1.35"
"""The oldest that mounts images."""

Resource = dict[str, Any]


def run(tool: str, *arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    command = [str(word) for word in (TOOLS / tool, *arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=check)


def render(folder: Path) -> str:
    """Returns what would be applied."""
    return run("kubectl", "kustomize", folder).stdout


def of_kind(rendered: str, kind: str) -> Resource:
    """Returns the only resource of a kind."""
    (found,) = [resource for resource in yaml.safe_load_all(rendered) if resource["kind"] == kind]
    resource: Resource = found
    return resource


def validate(rendered: str, version: str, tmp_path: Path) -> str:
    """Returns what kubernetes-validate complains of, which is nothing for what is right."""
    path = tmp_path / "rendered.yaml"
    own = [one for one in yaml.safe_load_all(rendered) if not one["apiVersion"].startswith("monitoring.coreos.com/")]
    path.write_text(yaml.safe_dump_all(own))
    options = ("--strict", "--quiet", "--kubernetes-version", version)
    done = run("kubernetes-validate", *options, path, check=False)
    complaints = done.stdout + done.stderr
    assert bool(done.returncode) == bool(complaints), complaints
    return complaints


def unknown_to_the_operator(resource: Resource) -> object:
    """Returns what is left of a resource of the operator's that its models don't know."""
    from cloudcoil.models.prometheus_operator import v1

    model = getattr(v1, resource["kind"]).model_validate(resource)
    known = model.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return None if known == resource else (known, resource)


@pytest.fixture(scope="module", params=["base", "overlays/gpu", "overlays/without-operator"])
def rendered(request: pytest.FixtureRequest) -> str:
    return render(KUBERNETES / request.param)


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_all_of_it(rendered: str, version: str, tmp_path: Path) -> None:
    assert validate(rendered, version, tmp_path) == ""


def test_the_operator_takes_its_kinds(rendered: str) -> None:
    for resource in yaml.safe_load_all(rendered):
        if resource["apiVersion"].startswith("monitoring.coreos.com/"):
            assert unknown_to_the_operator(resource) is None


@pytest.mark.parametrize(
    ("right", "wrong", "complaint"),
    [
        ("maxReplicas: 10", "maxReplicas: ten", "'ten' is not of type 'integer'"),
        ("readOnlyRootFilesystem", "readOnlyRootFileSystem", "'readOnlyRootFileSystem' was unexpected"),
    ],
)
def test_kubernetes_would_complain(right: str, wrong: str, complaint: str, tmp_path: Path) -> None:
    rendered = render(KUBERNETES / "base")
    assert right in rendered
    assert complaint in validate(rendered.replace(right, wrong), VERSIONS[-1], tmp_path)


def test_the_operator_would_complain_of_an_unknown_field() -> None:
    rendered = render(KUBERNETES / "base").replace("jobLabel:", "jobLabels:")
    assert unknown_to_the_operator(of_kind(rendered, "ServiceMonitor")) is not None


def test_the_operator_would_complain_of_a_missing_field() -> None:
    from pydantic import ValidationError

    rendered = render(KUBERNETES / "base").replace("expr:", "expression:")
    with pytest.raises(ValidationError, match="rules.0.expr\n  Field required"):
        unknown_to_the_operator(of_kind(rendered, "PrometheusRule"))


def test_names_and_hashes_agree() -> None:
    rendered = render(KUBERNETES / "base")
    name = of_kind(rendered, "ConfigMap")["metadata"]["name"]
    (container,) = of_kind(rendered, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert name.startswith("radogaga-settings-")
    assert container["envFrom"] == [{"configMapRef": {"name": name}}]
    assert container["image"] == "radogaga:cpu"


def test_the_gpu_overlay_changes_what_it_should() -> None:
    rendered = render(KUBERNETES / "overlays" / "gpu")
    spec = of_kind(rendered, "Deployment")["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    assert container["image"] == "radogaga:gpu"
    assert container["resources"]["limits"] == {"cpu": "2", "memory": "4Gi", "nvidia.com/gpu": 1}
    assert of_kind(rendered, "ConfigMap")["data"]["RADOGAGA_PROVIDER"] == "cuda"
    assert container["startupProbe"]["httpGet"]["path"] == "/health/ready"
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}


def test_without_the_operator_there_is_nothing_of_it() -> None:
    kinds = {resource["kind"] for resource in yaml.safe_load_all(render(KUBERNETES / "overlays" / "without-operator"))}
    assert {"Deployment", "Service"} < kinds
    assert not kinds & {"ServiceMonitor", "PrometheusRule"}


def overlay(tmp_path: Path, text: str) -> str:
    """Renders an overlay as an operator would write one; kubectl wants paths that are not absolute."""
    folder = tmp_path / "overlay"
    folder.mkdir()
    there = Path(*[".."] * (len(folder.resolve().parts) - 1), *KUBERNETES.parts[1:])
    (folder / "kustomization.yaml").write_text(text.replace("KUBERNETES", str(there)))
    return render(folder)


def test_models_may_come_from_an_image(tmp_path: Path) -> None:
    rendered = overlay(tmp_path, "resources: [KUBERNETES/base]\ncomponents: [KUBERNETES/components/models-image]\n")
    assert validate(rendered, IMAGE_VOLUMES, tmp_path) == ""
    volumes = of_kind(rendered, "Deployment")["spec"]["template"]["spec"]["volumes"]
    assert {"name": "models", "image": {"reference": "radogaga-models:1", "pullPolicy": "IfNotPresent"}} in volumes
    assert "PersistentVolumeClaim" not in rendered


def test_a_prefix_changes_neither_the_job_nor_what_is_selected(tmp_path: Path) -> None:
    rendered = overlay(tmp_path, "resources: [KUBERNETES/base]\nnamePrefix: blue-\nnamespace: scoring\n")
    assert validate(rendered, VERSIONS[-1], tmp_path) == ""
    monitor, service = of_kind(rendered, "ServiceMonitor")["spec"], of_kind(rendered, "Service")["metadata"]
    assert (service["name"], service["namespace"]) == ("blue-radogaga", "scoring")
    assert service["labels"][monitor["jobLabel"]] == "radogaga"
    assert of_kind(rendered, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["name"] == "blue-radogaga"
    (claim,) = [
        volume["persistentVolumeClaim"]["claimName"]
        for volume in of_kind(rendered, "Deployment")["spec"]["template"]["spec"]["volumes"]
        if "persistentVolumeClaim" in volume
    ]
    assert claim == of_kind(rendered, "PersistentVolumeClaim")["metadata"]["name"] == "blue-radogaga-models"


def test_the_documented_overlay_is_taken(tmp_path: Path) -> None:
    docs = (KUBERNETES.parents[1] / "docs" / "kubernetes.md").read_text()
    text = docs.partition("```yaml\n")[2].partition("```")[0]
    rendered = overlay(tmp_path, text.replace("../radogaga/docker/kubernetes", "KUBERNETES"))
    assert validate(rendered, VERSIONS[-1], tmp_path) == ""
    deployment = of_kind(rendered, "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "registry.example.com/radogaga:0.1.0-cpu"
    assert deployment["metadata"]["namespace"] == "scoring"
    assert of_kind(rendered, "ConfigMap")["data"]["RADOGAGA_MAX_BATCH_ROWS"] == "32"
