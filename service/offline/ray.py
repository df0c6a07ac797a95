"""Scoring by actors on a Ray cluster, each with a detector of its own.

Ray Data hands each actor one block after the other: where its rows are and where their scores go, not the rows
themselves, so that no table passes through the driver or the object store. A block's file has a name of its own and
appears when it is whole. So a block that Ray gives to another actor, because the first one died, is written once.
"""

import json
import logging
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.detector import Detector
from service.errors import StartError
from service.offline.errors import OfflineError
from service.offline.outputs import Counts, clear_unfinished
from service.offline.progress import Progress
from service.offline.scoring import Options, PartScorer, Task
from service.offline.tables import Part
from service.quotes import shorten
from service.runtime import Runtime
from service.signatures import Signers

MISSING = "Ray is not installed; the extra [ray] has it: pip install 'radogaga[cpu,ray]'"

SECONDS_TO_CONNECT = 10.0

Blocks = dict[str, NDArray[Any]]
"""Columns of a few blocks, as Ray Data hands them over."""


@dataclass(frozen=True)
class Cluster:
    """Where to score.

    Attributes:
        address: A cluster's address, or None for one of this machine that lasts as long as the run.
        actors: The number of detectors, or None for one per core of the cluster, or per GPU.
        gpus: GPUs, or which part of one, that each of them takes.
    """

    address: str | None = None
    actors: int | None = None
    gpus: float = 0.0


class Scorer:
    """A detector as an actor: blocks in, what was found in them out.

    What goes wrong is handed over as a text, for an exception would pass through Ray, which tries again or wraps it.

    Arguments:
        folder: The model's folder, which every machine must have.
        scorer_sha256: The digest of the graph that it must hold.
        runtime: How sessions are made.
        options: How tables are scored.
        signers: Who has to have signed the folder, if signatures are demanded.
    """

    def __init__(
        self, folder: Path, scorer_sha256: str, runtime: Runtime, options: Options, signers: Signers | None = None
    ) -> None:
        self._options = options
        self._detector: Detector | None = None
        self._error = ""
        try:
            runtime.prepare()
            self._detector = Detector.load(folder, runtime, signers)
        except StartError as error:
            self._error = str(error)
            return
        found = self._detector.manifest.graphs.scorer.sha256
        if found != scorer_sha256:
            self._error = f"{folder}: the scorer's sha256 is {found} on {os.uname().nodename}, expected {scorer_sha256}"

    def __call__(self, blocks: Blocks) -> Blocks:
        """Writes the scores of blocks; returns, for each, its file, its counts and an error or nothing."""
        results = [self._score(json.loads(text)) for text in blocks["task"]]
        columns = zip(*results, strict=True)
        return {name: np.array(column) for name, column in zip(("out", "counts", "error"), columns, strict=True)}

    def _score(self, task: dict[str, Any]) -> tuple[str, str, str]:
        counts, error = Counts(), self._error
        if self._detector is not None and not error:
            try:
                counts = PartScorer(self._detector, task_of(task), self._options).run()
            except OfflineError as problem:
                error = str(problem)
        return task["out"], json.dumps(asdict(counts)), error


def task_of(fields: dict[str, Any]) -> Task:
    """Returns the task whose fields these are."""
    part = fields["part"]
    pieces = tuple(part["pieces"]) if part["pieces"] else None
    return Task(Part(**{**part, "pieces": pieces}), fields["out"])


def score(
    folder: Path,
    scorer_sha256: str,
    runtime: Runtime,
    tasks: Sequence[Task],
    options: Options,
    cluster: Cluster,
    progress: Progress,
    signers: Signers | None = None,
) -> Counts:
    """Writes the scores of blocks.

    Raises:
        OfflineError: Ray is not installed, there is no cluster, or it has not what the actors need; a model can't be
            loaded; or a table can't be read, a row is bad, or a file can't be written. Blocks that were finished
            before stay.
    """
    counts = Counts()
    if not tasks:
        return counts
    for result in _results(folder, scorer_sha256, runtime, tasks, options, cluster, signers):
        if result["error"]:
            raise OfflineError(result["error"])
        found = Counts(**json.loads(result["counts"]))
        counts += found
        progress.add(found.rows)
        progress.finish(result["out"])
    clear_unfinished(Path(task.out) for task in tasks)  # of actors that died
    return counts


def _results(
    folder: Path,
    scorer_sha256: str,
    runtime: Runtime,
    tasks: Sequence[Task],
    options: Options,
    cluster: Cluster,
    signers: Signers | None,
) -> Iterator[dict[str, Any]]:
    ray, data = import_ray()
    with _output_for_the_summary(), _connected(ray, cluster.address):
        actors = number_of_actors(ray.cluster_resources(), cluster, len(tasks))
        context = data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        items = [{"task": json.dumps(asdict(task))} for task in tasks]
        try:
            yield from (
                data.from_items(items, override_num_blocks=len(items))
                .map_batches(
                    Scorer,
                    fn_constructor_args=(folder, scorer_sha256, runtime, options, signers),
                    batch_size=1,
                    compute=data.ActorPoolStrategy(size=actors),
                    num_cpus=1,
                    num_gpus=cluster.gpus or None,
                )
                .iter_rows()
            )
        except ray.exceptions.RayError as error:
            raise OfflineError(f"Ray: {shorten(str(error).strip(), 2000)}") from error


def import_ray() -> tuple[Any, Any]:
    """Returns Ray and Ray Data, which come with an extra.

    Raises:
        OfflineError: They are not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise OfflineError(f"{MISSING} ({error})") from error
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    return ray, ray.data


@contextmanager
def _connected(ray: Any, address: str | None) -> Iterator[None]:  # noqa: ANN401
    quiet: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    try:
        if address:
            _check_reachable(address)
            ray.init(address, **quiet)
        else:
            ray.init("local", include_dashboard=False, **quiet)
    except (OSError, ValueError, RuntimeError) as error:
        raise OfflineError(
            f"there is no Ray cluster at {address or 'this machine'}: {shorten(str(error), 300)}"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Connects to an address ``host:port`` and hangs up, for Ray itself tries for minutes.

    Raises:
        OSError: Nobody is there.
    """
    host, _, port = address.rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.rpartition("/")[2].strip("[]"), int(port)), SECONDS_TO_CONNECT).close()


@contextmanager
def _output_for_the_summary() -> Iterator[None]:
    """Sends to standard error what Ray writes to standard output, which belongs to the summary."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def number_of_actors(resources: dict[str, float], cluster: Cluster, tasks: int) -> int:
    """Returns how many actors there shall be.

    Raises:
        OfflineError: The cluster has not even the resources for those asked for.
    """
    room = int(resources.get("CPU", 0))
    if cluster.gpus:
        have = resources.get("GPU", 0.0)
        room = min(room, int(have) * int(1 / cluster.gpus) if cluster.gpus <= 1 else int(have / cluster.gpus))
    wanted = min(cluster.actors or max(room, 1), tasks)
    if wanted > room:
        has = f"{resources.get('CPU', 0):g} CPUs and {resources.get('GPU', 0):g} GPUs"
        raise OfflineError(
            f"{wanted} actors of 1 CPU and {cluster.gpus:g} GPUs each don't fit the Ray cluster, which has {has}"
        )
    return wanted
