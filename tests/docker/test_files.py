"""The files that containers are made of, without an engine: what they say, and that they say it consistently."""

import itertools
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import Settings
from tests.server import ROOT
from tests.service.test_settings import written

COMPOSE_FILES = (ROOT / "docker-compose.yml", ROOT / "docker-compose.gpu.yml")
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
OF_THE_IMAGE = {"host", "port", "models", "revision"}
"""Settings that docker/service.Dockerfile makes, because the stack relies on them."""

BEHIND_THE_BALANCER = {"tls_certificate", "tls_key"}
"""Settings for a service that clients reach by itself; the balancer speaks plain HTTP to the replicas."""


def tool(name: str) -> str:
    """Returns the path of a program of the extra [dev]."""
    path = shutil.which(name, path=f"{Path(sys.executable).parent}")
    assert path, f"{name} is not installed; the extra [dev] has it"
    return path


def succeeds(*command: object) -> None:
    done = subprocess.run([str(word) for word in command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def without_comments(path: Path) -> str:
    return re.sub(r"(^|\s)#.*", "", path.read_text())


def knobs() -> dict[str, str]:
    """Returns every variable of the compose files with its default; one that is there twice has one default."""
    found: dict[str, str] = {}
    for path in COMPOSE_FILES:
        variables = re.findall(r"\$\{(\w+):-([^}]*)\}", without_comments(path))
        assert len(variables) == path.read_text().count("${"), f"{path.name} has a variable without a default"
        for name, default in variables:
            assert found.setdefault(name, default) == default, f"{name} has two defaults"
    return found


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(COMPOSE_FILES[0].read_text())
    return loaded


def test_the_example_has_every_knob_with_its_default_and_an_explanation() -> None:
    explained = {}
    lines = (ROOT / ".env.example").read_text().splitlines()
    for before, line in itertools.pairwise(lines):
        if line and not line.startswith("#"):
            name, _, default = line.partition("=")
            assert re.fullmatch(r"# \S.*\S.*[.:]?.*\.", before), f"{name} is not explained"
            assert name not in explained, f"{name} is there twice"
            explained[name] = default
    assert explained == knobs()


def test_the_docs_name_every_knob() -> None:
    named = set(re.findall(r"`([A-Z_]+)`", (ROOT / "docs" / "operations.md").read_text()))
    assert {name for name in knobs() if not name.startswith("RADOGAGA_")} <= named


def test_the_service_gets_every_setting_with_its_default() -> None:
    given = knobs()
    passed = compose()["services"]["service"]["environment"]
    for name, field in Settings.model_fields.items():
        variable = f"RADOGAGA_{name.upper()}"
        if name in OF_THE_IMAGE | BEHIND_THE_BALANCER:
            assert variable not in passed
        else:
            assert passed[variable] == f"${{{variable}:-{given[variable]}}}"
            assert given[variable] == written(field.default), variable


def test_the_image_makes_the_other_settings() -> None:
    text = (ROOT / "docker" / "service.Dockerfile").read_text()
    made = set(re.findall(r"\bRADOGAGA_(\w+)=", text))
    assert {name.lower() for name in made} == OF_THE_IMAGE


def seconds(duration: str) -> int:
    minutes, rest = re.fullmatch(r"(?:(\d+)m)?(?:(\d+)s)?", duration).groups()  # type: ignore[union-attr]
    return 60 * int(minutes or 0) + int(rest or 0)


def test_docker_waits_longer_than_the_service() -> None:
    given = knobs()
    assert seconds(given["STOP_GRACE_PERIOD"]) > int(given["RADOGAGA_SHUTDOWN_SECONDS"])


def test_every_port_binds_to_the_knobs_address() -> None:
    ports = [port for service in compose()["services"].values() for port in service.get("ports", [])]
    assert len(ports) == 4
    assert all(port.startswith("${BIND_ADDRESS:-127.0.0.1}:") for port in ports)


@pytest.mark.parametrize("name", compose()["services"])
def test_every_container_is_confined(name: str) -> None:
    service = compose()["services"][name]
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == "unless-stopped"
    assert {"mem_limit", "memswap_limit", "cpus", "pids_limit", "healthcheck", "tmpfs"} <= service.keys()
    assert {"max-size", "max-file"} == service["logging"]["options"].keys()
    assert not {"privileged", "cap_add", "devices", "network_mode", "pid"} & service.keys()
    binds = [volume for volume in service["volumes"] if re.match(r"\.|\$", volume)]
    assert all(volume.endswith(":ro") for volume in binds)
    assert not any("docker.sock" in volume for volume in service["volumes"])


def test_nobody_has_a_password() -> None:
    grafana = compose()["services"]["grafana"]["environment"]
    assert grafana["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert grafana["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    for path in (*COMPOSE_FILES, ROOT / ".env.example"):
        assert not re.search(r"password|secret|token", path.read_text(), re.IGNORECASE)


def test_the_compose_files_have_the_specified_form() -> None:
    succeeds(tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", *COMPOSE_FILES)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_hadolint_has_nothing_to_say(path: Path) -> None:
    succeeds(tool("hadolint"), path)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_dockerfiles_need_no_frontend_and_no_digest(path: Path) -> None:
    """Both would be fetched from a registry, whatever the host has."""
    text = path.read_text()
    assert not re.search(r"^#\s*syntax=", text, re.MULTILINE)
    assert set(re.findall(r"^FROM ([\w./:@-]+:[\w.@:-]+)", text, re.MULTILINE)) == {"python:3.12-slim"}


def test_the_images_version_is_the_projects() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for path in DOCKERFILES:
        assert re.findall(r"^ARG VERSION=(.*)$", path.read_text(), re.MULTILINE) == [version], path.name


def test_only_what_images_are_made_of_gets_to_the_engine() -> None:
    """Every source that a Dockerfile copies is let through, and nothing else."""
    lines = (ROOT / ".dockerignore").read_text().split("\n")
    allowed = {line[1:] for line in lines if line.startswith("!")}
    copied: set[str] = set()
    for path in DOCKERFILES:
        for words in re.findall(r"^COPY (?!--from)(.*)$", path.read_text(), re.MULTILINE):
            copied |= set(words.split()[:-1])
    assert copied == allowed
    assert all((ROOT / name).exists() for name in allowed)
    assert "*" in lines
