"""The service as a process, for the tests that need a real one."""

import atexit
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parents[1]


TABLES = ("arrhythmia", "kddcup-rev", "kddcup99", "thyroid")
"""The tables whose models are part of the project."""

SHIPPED = ("1", "2")
"""The versions of each of their models."""

IMAGES = "digits/1"
"""The model of images that is part of the project."""

FOLDERS = tuple(sorted([*(f"{table}/{version}" for table in TABLES for version in SHIPPED), IMAGES]))
"""The folders of all models that are part of the project."""

DATASETS = tuple(sorted({folder.partition("/")[0] for folder in FOLDERS}))


def shipped_versions() -> Path:
    """Returns a folder with the shipped versions of every model, whatever else was fitted into models/ since."""
    folder = Path(tempfile.mkdtemp(prefix="models-"))
    atexit.register(shutil.rmtree, folder)
    for shipped in FOLDERS:
        shutil.copytree(ROOT / "models" / shipped, folder / shipped)
    return folder


MODELS = shipped_versions()
SECONDS = 60.0
"""How long a process may take to do what it is asked for."""

SERVICE = (sys.executable, "-m", "service")


def environment(**settings: object) -> dict[str, str]:
    """Returns this process's environment with other variables RADOGAGA_*."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RADOGAGA_")}
    return kept | {f"RADOGAGA_{name.upper()}": str(value) for name, value in settings.items()}


class Server:
    """A service on a free port, with its log as it grows."""

    def __init__(self, log: Path, command: Sequence[str] = SERVICE, **settings: object) -> None:
        self.log = log
        with log.open("wb") as stream:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment(**{"models": MODELS, "port": 0, **settings}),
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def lines(self) -> list[dict[str, Any]]:
        """Returns the log's lines so far, without those that are no JSON."""
        complete = (line for line in self.log.read_text().splitlines(keepends=True) if line.endswith("\n"))
        return [json.loads(line) for line in complete if line.startswith("{")]

    def url(self) -> str:
        """Returns the address it listens on, once it does."""
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            for line in self.lines():
                if found := re.search(r"https?://127.0.0.1:\d+", str(line["message"])):
                    return found[0]
            time.sleep(0.02)
        raise AssertionError(self.log.read_text())

    def wait(self, workers: int) -> None:
        """Returns once so many workers have all models."""
        deadline = time.monotonic() + SECONDS
        while sum(line["message"] == "ready" for line in self.lines()) < workers:
            assert time.monotonic() < deadline and self.process.poll() is None, self.log.read_text()  # noqa: PT018
            time.sleep(0.02)

    @contextmanager
    def client(self, **options: Any) -> Iterator[httpx.Client]:  # noqa: ANN401 - httpx's
        """Yields a client, with further options of httpx's, once every model is loaded."""
        limits = httpx.Limits(keepalive_expiry=2.5)  # the service hangs up after 5 seconds
        with httpx.Client(base_url=self.url(), timeout=SECONDS, limits=limits, trust_env=False, **options) as client:
            deadline = time.monotonic() + SECONDS
            while not is_ready(client):
                assert time.monotonic() < deadline, self.log.read_text()
                time.sleep(0.02)
            yield client


def is_ready(client: httpx.Client) -> bool:
    """Tells whether every model is loaded; workers listen only once they are."""
    try:
        return client.get("/health/ready").status_code == 200
    except httpx.ConnectError:
        return False


@contextmanager
def serving(log: Path, command: Sequence[str] = SERVICE, **settings: object) -> Iterator[Server]:
    """Starts a service, and ends it and all its children."""
    server = Server(log, command, **settings)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            os.killpg(server.process.pid, signal.SIGKILL)
        server.process.wait()
