"""Prometheus and Alertmanager as processes, with the configurations that are shipped, and a receiver of alerts."""

import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.docker.configurations import DOCKER, parsed

SECONDS = 30.0
"""How long a part may take to start, and what is waited for to come about, unless told otherwise."""

NAMES = {"alertmanager": ("prometheus-alertmanager", "alertmanager")}
"""What programs are called: first by Debian, then by their authors."""


def program(name: str) -> str:
    """Returns the path of a program; fails if there is none."""
    for known in NAMES.get(name, (name,)):
        if path := shutil.which(known):
            return path
    pytest.fail(f"{name} is not on PATH; on Debian: apt-get install prometheus prometheus-alertmanager", pytrace=False)


def run(*command: str | Path, text: str | None = None) -> str:
    """Runs a program on a text, and returns all that it prints; fails if it does."""
    name, *arguments = command
    done = subprocess.run(
        [program(str(name)), *arguments],
        input=text,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def wait_for(what: Callable[[], Any], seconds: float = SECONDS, of: str = "") -> Any:  # noqa: ANN401 - whatever it is
    """Returns what a function returns, once that is something."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, f"not within {seconds:g} seconds: {of or what}"
        time.sleep(0.2)
    return found


@contextmanager
def running(command: Sequence[str | Path], log: Path, ready: str) -> Iterator[None]:
    """Starts a program, waits until an address answers 200, and ends it."""
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT)

    def answers() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            return httpx.get(ready, trust_env=False).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    try:
        wait_for(answers, of=str(command[0]))
        yield
    finally:
        process.terminate()
        process.wait()


class Prometheus:
    """What can be asked of a Prometheus, and what it scrapes.

    Arguments:
        url: Its address.
        targets: The file that tells it the replicas' addresses.
    """

    def __init__(self, url: str, targets: Path) -> None:
        self.url = url
        self._targets = targets

    def ask(self, path: str, **parameters: str | float) -> Any:  # noqa: ANN401 - JSON
        """Returns what it answers a question of its API."""
        url = f"{self.url}/api/v1/{path}"
        found = httpx.get(url, params=parameters, trust_env=False, timeout=SECONDS).json()
        assert found["status"] == "success", (parameters, found)
        return found["data"]

    def query(self, expression: str) -> dict[tuple[tuple[str, str], ...], float]:
        """Returns the values of an expression by their labels, sorted and without the name."""
        data = self.ask("query", query=expression)
        assert data["resultType"] == "vector", expression
        return {
            tuple(sorted((name, value) for name, value in one["metric"].items() if name != "__name__")): float(
                one["value"][1]
            )
            for one in data["result"]
        }

    def alerts(self, name: str, state: str = "firing") -> list[dict[str, Any]]:
        """Returns an alert's instances in a state."""
        found = self.ask("alerts")["alerts"]
        return [alert for alert in found if alert["labels"]["alertname"] == name and alert["state"] == state]

    def scrape(self, urls: Sequence[str]) -> None:
        """Makes it scrape these replicas and no others; one that is left out vanishes as from a name server."""
        fresh = self._targets.with_suffix(".new")
        fresh.write_text(json.dumps([{"targets": [url.removeprefix("http://") for url in urls]}]))
        fresh.replace(self._targets)


@contextmanager
def prometheus(
    folder: Path, alertmanager: str, interval: str = "1s", secret: Path | None = None
) -> Iterator[Prometheus]:
    """Runs Prometheus as configured, but with replicas from a file, on other ports, and at shorter intervals.

    Arguments:
        folder: Where it keeps what it writes.
        alertmanager: Host and port.
        interval: Between scrapes, and between evaluations.
        secret: The file with the key for scrapes, if there is one.
    """
    port, targets = free_port(), folder / "targets.json"
    targets.write_text("[]")
    config = parsed(DOCKER / "prometheus" / "prometheus.yml")
    config["global"] = {"scrape_interval": interval, "evaluation_interval": interval, "scrape_timeout": interval}
    config["rule_files"] = [str(DOCKER / "prometheus" / "rules" / "*.yml")]
    there = [{"targets": [alertmanager]}]
    config["alerting"]["alertmanagers"][0]["static_configs"] = there
    for job in config["scrape_configs"]:
        if job.pop("dns_sd_configs", None):
            if secret:
                job["authorization"] = {"credentials_file": str(secret)}
            job["file_sd_configs"] = [{"files": [str(targets)], "refresh_interval": interval}]
        else:
            own = [{"targets": [f"127.0.0.1:{port}"]}]
            job["static_configs"] = there if job["job_name"] == "alertmanager" else own
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    command = [
        program("prometheus"),
        f"--config.file={path}",
        f"--storage.tsdb.path={folder / 'prometheus'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    url = f"http://127.0.0.1:{port}"
    with running(command, folder / "prometheus.log", f"{url}/-/ready"):
        yield Prometheus(url, targets)


@contextmanager
def alertmanager(folder: Path, webhook: str | None = None) -> Iterator[str]:
    """Runs Alertmanager as configured, with all receivers at one address if it is given; yields host and port."""
    port = free_port()
    config = parsed(DOCKER / "alertmanager" / "alertmanager.yml")
    for receiver in config["receivers"] if webhook else ():
        receiver["webhook_configs"] = [{"url": f"{webhook}/{receiver['name']}"}]
    path = folder / "alertmanager.yml"
    path.write_text(yaml.safe_dump(config))
    command = [
        program("alertmanager"),
        f"--config.file={path}",
        f"--storage.path={folder / 'alertmanager'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    ]
    with running(command, folder / "alertmanager.log", f"http://127.0.0.1:{port}/-/ready"):
        yield f"127.0.0.1:{port}"


class Receiver:
    """Keeps the alerts that arrive at a web hook, by the path that they were sent to.

    Attributes:
        url: Its address.
        alerts: Pairs of a path and an alert, in the order they came.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.alerts: list[tuple[str, dict[str, Any]]] = []

    def of(self, name: str) -> list[tuple[str, dict[str, Any]]]:
        return [(path, alert) for path, alert in self.alerts if alert["labels"]["alertname"] == name]


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Runs a web hook."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            message = json.loads(self.rfile.read(int(self.headers["content-length"])))
            receiver.alerts += [(self.path, alert) for alert in message["alerts"]]
            self.send_response(httpx.codes.OK)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Says nothing on the standard error."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        receiver = Receiver(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield receiver
        server.shutdown()
        thread.join()
