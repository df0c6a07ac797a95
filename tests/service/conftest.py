"""A small model folder to break, and an application over the shipped models."""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from service.app import create_app
from service.settings import Settings
from tests.manifests import Change, rewrite
from tests.server import MODELS, SHIPPED

SECONDS_TO_READINESS = 60.0


@pytest.fixture(autouse=True, scope="session")
def no_settings() -> Iterator[None]:
    """Hides the settings of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("RADOGAGA_")]:
            patch.delenv(name)
        yield


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder with one model that a test may break."""
    shutil.copytree(MODELS / "thyroid" / "1", tmp_path / "models" / "thyroid" / "1")
    return tmp_path / "models"


@pytest.fixture
def folder(models: Path) -> Path:
    """The model folder in `models`."""
    return models / "thyroid" / "1"


@pytest.fixture
def change_manifest(folder: Path) -> Callable[[Change], None]:
    """Rewrites the manifest of `folder` after a change."""
    return partial(rewrite, folder)


def wait_until_ready(client: TestClient) -> TestClient:
    """Returns the client once the application has loaded its models."""
    deadline = time.monotonic() + SECONDS_TO_READINESS
    while client.get("/health/ready").status_code != 200:
        assert time.monotonic() < deadline, "the application did not become ready"
        time.sleep(0.02)
    return client


@pytest.fixture(scope="session")
def app() -> FastAPI:
    """The application over the shipped models."""
    return create_app(Settings(models=MODELS, provider="cpu", max_rows=1000, max_body_bytes=1_000_000))


@pytest.fixture(scope="session")
def client(app: FastAPI) -> Iterator[TestClient]:
    """A client of `app`, ready."""
    with TestClient(app, raise_server_exceptions=False) as client:
        yield wait_until_ready(client)


@pytest.fixture(scope="session")
def examples() -> dict[str, Any]:
    """The example rows of the newest shipped Thyroid model, with their results."""
    found: dict[str, Any] = json.loads((MODELS / "thyroid" / SHIPPED[-1] / "examples.json").read_text())
    return found
