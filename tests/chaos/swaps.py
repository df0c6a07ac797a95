"""Bar 1: versions that take over from each other all the time, under load.

Every version is one of two scorers with a threshold of its own, so that an answer tells by its version, by its
threshold and by its scores which version gave each of them.
"""

import asyncio
import json
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import numpy as np

from service.detector import Detector
from service.runtime import Runtime
from tests.chaos.bars import Bar, Outcome
from tests.server import MODELS, SECONDS, serving
from tests.service.versions import copy_version

LENGTH = 60.0
"""Seconds of load."""

BETWEEN = 0.2
"""Seconds from one version to the next."""

CONNECTIONS = 16

ROWS = 16
"""Rows of a request."""

ON_DISK = 3
"""Versions that are there at once; the oldest one goes when a new one comes."""

LATE = 1.0
"""Seconds within which the newest version has to answer once there are no further ones."""


@dataclass
class Seen:
    """What the clients saw.

    Attributes:
        answers: The number of answers by the version that gave it.
        failed: Requests that were not answered 200, with what came instead.
        mixed: Answers in which two versions had a part.
    """

    answers: Counter[int] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    mixed: list[str] = field(default_factory=list)


class Versions:
    """Versions of one dataset on disk, each with the scorer of one of two model folders and a threshold of its own.

    Arguments:
        models: The folder of models.
        sources: The two model folders.
    """

    def __init__(self, models: Path, sources: Sequence[Path]) -> None:
        self._folder = models / "thyroid"
        self._folder.mkdir(parents=True)
        self._sources = [self._copy(source) for source in sources]
        detectors = [Detector.load(source, Runtime("cpu")) for source in sources]
        self.rows = np.asarray(json.loads((sources[0] / "examples.json").read_text())["x"], np.float32)[:ROWS]
        self._scores = [detector.score(self.rows).scores.tolist() for detector in detectors]
        self.newest = 0
        self.publish()

    def _copy(self, source: Path) -> Path:
        target = self._folder.parent / f".source-{source.name}"
        shutil.copytree(source.resolve(), target)
        return target

    def publish(self) -> None:
        """Adds a version, and removes the oldest if there are too many."""
        self.newest += 1
        copied = shutil.copytree(self._sources[self.newest % 2], self._folder / f".source-{self.newest}")
        copy_version(copied, self.newest)
        shutil.rmtree(copied)
        if self.newest > ON_DISK:
            old = self._folder / str(self.newest - ON_DISK)
            shutil.rmtree(old.rename(self._folder / f".gone-{old.name}"))

    def problem(self, answer: dict[str, object]) -> str | None:
        """Says what is wrong with an answer that is not that of one version alone; None if nothing is."""
        version = answer["version"]
        if not isinstance(version, int) or not 1 <= version <= self.newest:
            return f"there is no version {version}"
        if answer["threshold"] != float(version):
            return f"version {version} with the threshold {answer['threshold']}"
        scores = self._scores[version % 2]
        if answer["scores"] != scores:
            return f"version {version} with the scores {answer['scores']}, expected {scores}"
        if answer["anomalies"] != [score >= version for score in scores]:
            return f"version {version} with the decisions {answer['anomalies']}"
        return None


async def score_on(client: httpx.AsyncClient, versions: Versions, until: float, seen: Seen) -> None:
    """Sends one request after the other until a moment."""
    body = {"dataset": "thyroid", "vectors": versions.rows.tolist()}
    while time.monotonic() < until:
        try:
            response = await client.post("/score", json=body)
        except httpx.HTTPError as error:
            seen.failed.append(repr(error))
            continue
        if response.status_code != 200:
            seen.failed.append(f"{response.status_code} {response.text}")
            continue
        answer = response.json()
        seen.answers[answer["version"]] += 1
        if problem := versions.problem(answer):
            seen.mixed.append(problem)


async def publish_on(versions: Versions, until: float) -> None:
    """Publishes one version after the other until a moment."""
    due = time.monotonic()
    while time.monotonic() < until:
        await asyncio.to_thread(versions.publish)
        due += BETWEEN
        await asyncio.sleep(max(0.0, due - time.monotonic()))


async def load(url: str, versions: Versions, seconds: float) -> tuple[Seen, float]:
    """Loads a service while versions come and go; returns what was seen, and when the newest version answered at last.

    That time counts from the moment at which it was there.
    """
    seen, until = Seen(), time.monotonic() + seconds
    limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
    async with httpx.AsyncClient(base_url=url, timeout=SECONDS, limits=limits, trust_env=False) as client:
        async with asyncio.TaskGroup() as group:
            group.create_task(publish_on(versions, until))
            for _ in range(CONNECTIONS):
                group.create_task(score_on(client, versions, until, seen))
        published = time.monotonic()
        body = {"dataset": "thyroid", "vectors": versions.rows.tolist()}
        while (await client.post("/score", json=body)).json()["version"] != versions.newest:
            if time.monotonic() > published + SECONDS:
                break
        return seen, time.monotonic() - published


def judge(seen: Seen, published: int, late: float) -> Outcome:
    """Judges what was seen.

    Arguments:
        seen: What the clients saw.
        published: The number of versions there were.
        late: Seconds until the newest one answered.
    """
    requests = seen.answers.total() + len(seen.failed)
    figures = {
        "versions": published,
        "versions that answered": len(seen.answers),
        "requests": requests,
        "failed": len(seen.failed),
        "of two versions": len(seen.mixed),
        "seconds until the newest answers": round(late, 3),
    }
    failures = []
    if seen.failed:
        failures.append(f"{len(seen.failed)} of {requests} requests failed, the first with {seen.failed[0]}")
    if seen.mixed:
        failures.append(f"{len(seen.mixed)} of {requests} answers are none of one version: {seen.mixed[0]}")
    if len(seen.answers) < published / 2:
        failures.append(f"only {len(seen.answers)} of {published} versions ever answered")
    if late > LATE:
        failures.append(f"the newest version answered after {late:.2f} seconds, expected {LATE:g}")
    return Outcome(figures, failures)


@contextmanager
def folder_of_versions() -> Iterator[tuple[Path, Versions]]:
    """Yields a folder for a service's models, and what publishes versions into it."""
    with TemporaryDirectory(prefix="swaps-") as name:
        models = Path(name) / "models"
        yield models, Versions(models, [MODELS / "thyroid" / version for version in ("1", "2")])


def run(share: float) -> Outcome:
    """Loads a service with two workers while versions come and go."""
    with (
        folder_of_versions() as (models, versions),
        serving(models.parent / "log", models=models, workers=2) as server,
        server.client(),
    ):
        seen, late = asyncio.run(load(server.url(), versions, LENGTH * share))
    return judge(seen, versions.newest, late)


BAR = Bar(
    1,
    f"A version takes over every {BETWEEN * 1000:g} ms under {CONNECTIONS} connections for {LENGTH:g} s: no request"
    " fails, and every answer is that of one version.",
    run,
)
