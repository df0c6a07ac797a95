"""The stack of docker-compose.yml in a real engine, and what its replicas are asked."""

import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx

SECONDS = 180.0
"""How long anything may take that is waited for."""

T = TypeVar("T")

PORTS = ("balancer", "prometheus", "alertmanager", "grafana")


def run(*command: str, seconds: float = SECONDS, **options: Any) -> subprocess.CompletedProcess[str]:  # noqa: ANN401
    """Runs a command and returns what came of it."""
    return subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False, **options)


def docker(*words: str, seconds: float = SECONDS) -> str:
    """Runs docker and returns its output; the message of an error has both."""
    done = run("docker", *words, seconds=seconds)
    assert done.returncode == 0, f"docker {' '.join(words)}: {done.stdout}{done.stderr}"
    return done.stdout


def eventually(ask: Callable[[], T | None], what: str, seconds: float = SECONDS, pause: float = 0.5) -> T:
    """Returns the first answer that is neither None nor empty."""
    deadline = time.monotonic() + seconds
    while not (answer := ask()):
        assert time.monotonic() < deadline, f"{what} did not come about within {seconds:g} s, the last answer: {answer}"
        time.sleep(pause)
    return answer


def free_ports(number: int) -> list[int]:
    """Returns ports of the loopback interface that nobody uses."""
    with ExitStack() as stack:
        servers = [stack.enter_context(closing(socket.create_server(("127.0.0.1", 0)))) for _ in range(number)]
        return [server.getsockname()[1] for server in servers]


class Stack:
    """The stack from a folder with the project's files, under a name of its own.

    Arguments:
        folder: The project's folder.
        name: Docker compose's name for it.
        knobs: What stands in .env elsewhere.
    """

    def __init__(self, folder: Path, name: str, **knobs: object) -> None:
        self.folder = folder
        self.name = name
        self.ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        self.knobs = {f"{name.upper()}_PORT": str(port) for name, port in self.ports.items()}
        self.knobs |= {name: str(value) for name, value in knobs.items()}

    def environment(self, **knobs: object) -> dict[str, str]:
        """Returns the variables for docker compose: this process's without the stack's, and the knobs."""
        kept = {
            name: os.environ[name] for name in ("PATH", "HOME", "DOCKER_HOST", "DOCKER_CONFIG") if name in os.environ
        }
        return kept | self.knobs | {name: str(value) for name, value in knobs.items()}

    def command(self, *command: str, **knobs: object) -> subprocess.CompletedProcess[str]:
        """Runs a command in the folder that knows the stack's name and knobs, for half an hour at most."""
        environment = self.environment(**knobs) | {"COMPOSE_PROJECT_NAME": self.name}
        if "/" in command[0]:
            command = (str(self.folder / command[0]), *command[1:])
        return run(*command, cwd=self.folder, env=environment, seconds=1800)

    def compose(self, *words: str, **knobs: object) -> str:
        """Runs docker compose and returns its output."""
        done = self.command("docker", "compose", *words, **knobs)
        assert done.returncode == 0, f"docker compose {' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout

    def up(self, replicas: int = 1, **knobs: object) -> None:
        """Brings everything up as it was first, and waits until it is healthy."""
        words = ("up", "--detach", "--no-build", "--wait", "--wait-timeout", "120")
        self.compose(*words, **{"SERVICE_REPLICAS": replicas, **knobs})
        for service in ("service", *PORTS):
            healths = [one["State"]["Health"]["Status"] for one in self.inspect(service)]
            assert healths == ["healthy"] * (replicas if service == "service" else 1), service

    def ids(self, service: str) -> list[str]:
        """Returns the ids of a service's containers, running or not, oldest first."""
        return self.compose("ps", "--all", "--quiet", service).split()

    def inspect(self, service: str) -> list[dict[str, Any]]:
        """Returns what the engine knows of a service's containers."""
        inspected: list[dict[str, Any]] = json.loads(docker("inspect", *self.ids(service)))
        return inspected

    def python(self, container: str, program: str) -> str:
        """Runs a program in a container of the service and returns its output."""
        return docker("exec", container, "python", "-c", program)

    def url(self, service: str) -> str:
        """Returns the address of a service's published port."""
        return f"http://127.0.0.1:{self.ports[service]}"

    def client(self, service: str = "balancer") -> httpx.Client:
        """Returns a client of a service's published port."""
        return httpx.Client(base_url=self.url(service), timeout=60, trust_env=False)

    def query(self, expression: str) -> dict[str, float]:
        """Returns what Prometheus answers, by instance."""
        with self.client("prometheus") as client:
            answer = client.get("/api/v1/query", params={"query": expression}).raise_for_status().json()
        return {one["metric"].get("instance", ""): float(one["value"][1]) for one in answer["data"]["result"]}

    def addresses(self) -> set[str]:
        """Returns where the running replicas listen, as Prometheus calls them."""
        running = [one for one in self.inspect("service") if one["State"]["Running"]]
        return {f"{net['IPAddress']}:8000" for one in running for net in one["NetworkSettings"]["Networks"].values()}


class Load:
    """Requests from several threads until it is told to stop, and what was answered.

    Arguments:
        stack: Whose balancer is asked.
        requests: What the threads send, one request each, again and again: path, header and body.
        threads: How many threads send each of them.
    """

    def __init__(self, stack: Stack, requests: list[tuple[str, dict[str, str], bytes]], threads: int) -> None:
        self.answers: dict[str, int] = {}
        self.count = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._stack = stack
        self._threads = [threading.Thread(target=self._send, args=one) for one in requests for _ in range(threads)]

    def _send(self, path: str, headers: dict[str, str], body: bytes) -> None:
        with self._stack.client() as client:
            while not self._stop.is_set():
                try:
                    answer = client.post(path, headers=headers, content=body)
                    text = "200" if answer.status_code == 200 else f"{answer.status_code} {answer.text}"
                except httpx.HTTPError as error:
                    text = repr(error)
                with self._lock:
                    self.answers[text] = self.answers.get(text, 0) + 1
                    self.count += 1

    def more(self, number: int) -> None:
        """Waits until that many further requests are answered."""
        wanted = self.count + number
        eventually(lambda: self.count >= wanted, f"{number} further answers", pause=0.05)

    @contextmanager
    def running(self) -> Iterator["Load"]:
        """Sends until the block ends."""
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join()
