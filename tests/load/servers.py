"""The servers that are measured: how each is started, where it scores, and how it takes JSON."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.metrics import METRICS_FOLDER
from tests.load import bodies
from tests.load.bodies import Body, BodyName
from tests.load.processes import family
from tests.server import MODELS, ROOT, SECONDS, SERVICE, serving

PEERS = ROOT / ".venv-bench"
"""Where `make bench-serving` has an environment for each peer, for their demands contradict the service's."""

FIVE = ("arrhythmia/2", "kddcup-rev/2", "kddcup99/1", "kddcup99/2", "thyroid/2")

BATCH_ROWS = 32
BATCH_WAIT_MICROSECONDS = 1000


class ServerError(Exception):
    """A server is not installed, did not start, or did not answer as it should."""


@dataclass(frozen=True)
class Candidate:
    """A server that may be started.

    Attributes:
        command: Returns what starts it on a port.
        path: Where it scores JSON.
        path_float32: Where it scores float32 values.
        json: Writes rows as it takes them.
        environment: The peer in whose environment it runs, if it isn't the service's own.
        settings: The service's settings RADOGAGA_*, if it is the service.
        settle: Seconds that its other workers may need after its first score.
        shared_metrics: Whether it keeps its metrics in files, as it does when it is one worker of several.
    """

    command: Callable[[int], list[str]]
    path: str = "/score"
    path_float32: str = "/score"
    json: Callable[[NDArray[np.float64]], bytes] = bodies.document
    environment: str | None = None
    settings: Mapping[str, object] = field(default_factory=dict)
    settle: float = 0.0
    shared_metrics: bool = False


def service(settle: float = 0.0, shared_metrics: bool = False, **settings: object) -> Candidate:
    """Returns this service with settings; everything it does for an operator stays on."""
    path = "/score?dataset=kddcup99&version=1"
    return Candidate(
        lambda _: list(SERVICE), path_float32=path, settings=settings, settle=settle, shared_metrics=shared_metrics
    )


def limit(application: str) -> Candidate:
    """Returns an application of `limits.py`."""
    return Candidate(lambda port: [sys.executable, "-m", "tests.load.limits", application, "--port", str(port)])


def mosec(mode: str) -> Candidate:
    """Returns mosec in one of its modes."""
    module = "tests.load.peers.mosec_scorer"
    return Candidate(
        lambda port: [binary("mosec", "python"), "-m", module, mode, "--port", str(port), "--address", "127.0.0.1"],
        environment="mosec",
    )


def mlserver(port: int) -> list[str]:
    """Returns the command of MLServer, in process and without its debug mode."""
    variables = {
        "HOST": "127.0.0.1",
        "HTTP_PORT": port,
        "GRPC_PORT": free_port(),
        "METRICS_PORT": free_port(),
        "PARALLEL_WORKERS": 0,
        "DEBUG": "false",
        "MODEL_NAME": "kddcup99",
        "MODEL_IMPLEMENTATION": "tests.load.peers.mlserver_scorer.ScorerRuntime",
    }
    settings = [f"MLSERVER_{name}={value}" for name, value in variables.items()]
    return ["env", *settings, binary("mlserver", "mlserver"), "start", "tests/load/peers"]


def litserve(port: int) -> list[str]:
    """Returns the command of LitServe."""
    return [binary("litserve", "python"), "-m", "tests.load.peers.litserve_scorer", "--port", str(port)]


def bentoml(port: int) -> list[str]:
    """Returns the command of BentoML."""
    target = "tests.load.peers.bentoml_scorer:ScorerService"
    program = ["env", "BENTOML_DO_NOT_TRACK=True", binary("bentoml", "bentoml")]
    return [*program, "serve", target, "--host", "127.0.0.1", "--port", str(port)]


CANDIDATES: dict[str, Candidate] = {
    "service": service(),
    "service, two workers": service(settle=2.0, workers=2),
    "service, shared metrics": service(shared_metrics=True),
    "service, batching": service(max_batch_rows=BATCH_ROWS, max_wait_us=BATCH_WAIT_MICROSECONDS),
    "raw ASGI, constant answer": limit("constant"),
    "raw ASGI, orjson": limit("orjson"),
    "raw ASGI, float32": limit("raw"),
    "FastAPI, the usual way": limit("usual"),
    "mosec, orjson": mosec("orjson"),
    "mosec, batching": mosec("batching"),
    "mosec, float32": mosec("raw"),
    "MLServer": Candidate(mlserver, "/v2/models/kddcup99/infer", json=bodies.v2, environment="mlserver"),
    "LitServe": Candidate(litserve, environment="litserve"),
    "BentoML": Candidate(bentoml, environment="bentoml"),
}


def binary(peer: str, name: str) -> str:
    """Returns the path of a program in a peer's environment."""
    return str(PEERS / peer / "bin" / name)


def check_installed(name: str) -> None:
    """Checks that a server can be started.

    Raises:
        ServerError: It is a peer without an environment.
    """
    environment = CANDIDATES[name].environment
    if environment is not None and not (PEERS / environment / ".installed").exists():
        raise ServerError(
            f"{environment} is not installed in {PEERS.name}/: `make bench-serving` does it, or says why not"
        )


def free_port() -> int:
    """Returns a port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def five_models(folder: Path) -> Path:
    """Returns a folder with five of the shipped models in it."""
    for name in FIVE:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to((MODELS / name).resolve())
    return folder


@dataclass(frozen=True)
class Running:
    """A server that answers.

    Attributes:
        name: Its name among the candidates.
        pid: Its first process.
        port: Where it listens.
        start_seconds: From its start to its first score.
        log: What it printed.
    """

    name: str
    pid: int
    port: int
    start_seconds: float
    log: Path

    def url(self, body: BodyName) -> str:
        """Returns where a body is posted."""
        candidate = CANDIDATES[self.name]
        path = candidate.path_float32 if body.endswith("float32") else candidate.path
        return f"http://127.0.0.1:{self.port}{path}"

    def tail(self) -> str:
        """Returns the end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])


@contextmanager
def running(name: str, folder: Path, body: BodyName) -> Iterator[Running]:
    """Starts a server, waits until it scores a body, and ends it and all its children.

    Raises:
        ServerError: It is not installed, ended, or does not score in time.
    """
    check_installed(name)
    candidate, port = CANDIDATES[name], free_port()
    here = Path(tempfile.mkdtemp(dir=folder))
    settings = {"models": five_models(here / "models"), **candidate.settings, "port": port}
    first = bodies.write(here, body, candidate.json)
    started = time.monotonic()
    kept = [f"HOME={here}", f"TMPDIR={here}"]  # what a server leaves behind goes when the folder does
    if candidate.shared_metrics:
        (here / "metrics").mkdir()
        kept.append(f"{METRICS_FOLDER}={here / 'metrics'}")
    with serving(here / "log", ["env", *kept, *candidate.command(port)], **settings) as server:
        found = Running(name, server.process.pid, port, 0.0, here / "log")
        try:
            while not scores(found, first, body):
                if server.process.poll() is not None or time.monotonic() > started + SECONDS:
                    raise ServerError(f"{name} does not score; its log ends with\n{found.tail()}")
                time.sleep(0.01)
            seconds = time.monotonic() - started
            time.sleep(candidate.settle)
            yield Running(name, server.process.pid, port, seconds, here / "log")
        finally:
            end(server.process.pid)


def end(root: int) -> None:
    """Ends a process and all its children, those in sessions of their own too, parents before children."""
    for pid in sorted(family(root)):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def scores(server: Running, first: Body, body: BodyName) -> bool:
    """Returns whether a server answers a body with 200 by now."""
    path = server.url(body).partition(str(server.port))[2]
    headers = dict(line.split(": ") for line in first.headers)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=SECONDS)
    try:
        connection.request("POST", path, first.file.read_bytes(), headers)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def version_of(peer: str) -> str:
    """Returns the version of a peer's package in its environment."""
    code = f"from importlib.metadata import version; print(version({peer!r}))"
    return subprocess.run(
        [binary(peer, "python"), "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()
