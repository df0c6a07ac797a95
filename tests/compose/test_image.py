"""The service's image: what is in it, what is not, and how it behaves alone."""

import json
import os
from typing import Any

import pytest

from tests.compose.conftest import BUILT, revision
from tests.compose.stack import Stack, docker, eventually, run

pytestmark = pytest.mark.compose

MOST_BYTES = 250_000_000
"""What the CPU image may add to its base."""


@pytest.fixture(scope="module")
def image(stack: Stack) -> dict[str, Any]:
    """What the engine knows of the image that the stack runs."""
    (inspected,) = json.loads(docker("image", "inspect", stack.inspect("service")[0]["Image"]))
    found: dict[str, Any] = inspected
    return found


def test_it_adds_little_to_its_base(image: dict[str, Any]) -> None:
    if not os.environ.get(BUILT):  # what an engine builds on is in its cache only
        docker("pull", "python:3.12-slim")
    base = int(docker("image", "inspect", "--format", "{{.Size}}", "python:3.12-slim"))
    added = image["Size"] - base
    print(f"the CPU image has {image['Size'] / 1e6:.0f} MB, {added / 1e6:.1f} MB more than its base")
    assert added <= MOST_BYTES


def test_it_says_what_it_is_and_how_it_runs(image: dict[str, Any]) -> None:
    config = image["Config"]
    labels = {name.rpartition(".")[2]: value for name, value in config["Labels"].items() if "opencontainers" in name}
    assert labels.keys() == {"title", "description", "licenses", "version", "revision"}
    assert (labels["licenses"], labels["revision"]) == ("Apache-2.0", revision())
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["python", "-m", "service"]
    assert config["Healthcheck"]["Test"] == ["CMD", "python", "-m", "service.health"]
    assert config["StopSignal"] == "SIGTERM"
    assert config["ExposedPorts"] == {"8000/tcp": {}}
    variables = dict(line.split("=", 1) for line in config["Env"])
    assert (variables["ORT_DISABLE_TELEMETRY"], variables["PYTHONUNBUFFERED"]) == ("1", "1")
    assert variables["RADOGAGA_REVISION"] == revision()


def test_there_is_nothing_in_it_that_serving_does_not_need(image: dict[str, Any]) -> None:
    """No models, torch or tests, no pip beside the base's own; and modules are compiled, for nobody can write there."""
    program = """
import importlib.util, json, os, pathlib, service.app
place = pathlib.Path(service.app.__file__)
print(json.dumps({
    "models": os.listdir("/models"),
    "modules": [name for name in ("torch", "onnx", "pip", "pytest", "httpx") if importlib.util.find_spec(name)],
    "tests": [str(path) for path in place.parents[1].glob("**/tests")],
    "compiled": pathlib.Path(importlib.util.cache_from_source(place)).exists(),
}))"""
    options = ("--rm", "--network", "none", "--read-only", "--entrypoint", "python")
    printed = json.loads(docker("run", *options, image["Id"], "-c", program))
    assert printed == {"models": [], "modules": [], "tests": [], "compiled": True}


def test_no_models_are_a_reason_not_to_start(image: dict[str, Any]) -> None:
    done = run("docker", "run", "--rm", "--network", "none", "--read-only", image["Id"])
    assert done.returncode == 1
    assert "the service did not start: " in done.stderr
    assert "/models" in done.stderr


def test_its_health_check_notices_that_nothing_answers(image: dict[str, Any]) -> None:
    quick = ("--health-interval", "1s", "--health-retries", "2", "--health-start-period", "1s")
    options = ("--detach", "--network", "none", "--read-only", *quick, "--entrypoint", "python")
    container = docker("run", *options, image["Id"], "-c", "import time; time.sleep(600)").strip()

    def unhealthy() -> dict[str, Any] | None:
        health: dict[str, Any] = json.loads(docker("inspect", "--format", "{{json .State.Health}}", container))
        return health if health["Status"] == "unhealthy" else None

    try:
        health = eventually(unhealthy, "unhealthy")
        assert "127.0.0.1:8000 can't be asked: ConnectionRefusedError" in health["Log"][-1]["Output"]
        assert health["Log"][-1]["ExitCode"] == 1
    finally:
        docker("rm", "--force", container)


def test_the_compose_files_are_understood(stack: Stack) -> None:
    stack.compose("config", "--quiet")
    stack.compose("--file", "docker-compose.yml", "--file", "docker-compose.gpu.yml", "config", "--quiet")
    copied = (stack.folder / ".env.example").read_text()
    (stack.folder / "example.env").write_text(copied)
    with_example = json.loads(stack.compose("--env-file", "example.env", "config", "--format", "json"))
    assert with_example == json.loads(stack.compose("config", "--format", "json"))
