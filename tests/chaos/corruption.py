"""Bar 5: the bytes of model folders come to harm, and no answer ever differs for it."""

import json
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from service.detector import Detector
from service.errors import StartError
from service.runtime import Runtime
from tests.chaos.bars import Bar, Outcome
from tests.server import MODELS, SECONDS, serving

PLACES = 200
"""Bytes of each file that are flipped, and places where it is cut."""

MOST_FAILURES = 20
"""Failures that are told; the rest is counted."""

Load = Callable[[Path], Detector]


@dataclass(frozen=True)
class Damage:
    """What is done to a folder.

    Attributes:
        kind: A word for it.
        file: The file that comes to harm.
        content: What it then holds, or None if it is gone.
        place: Where, for whoever wants to see it again.
    """

    kind: str
    file: str
    content: bytes | None
    place: int = 0


@dataclass(frozen=True)
class Answers:
    """All that a detector answers about some rows."""

    manifest: dict[str, Any]
    results: tuple[NDArray[Any], ...]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Answers) or self.manifest != other.manifest:
            return False
        return all(a.tobytes() == b.tobytes() for a, b in zip(self.results, other.results, strict=True))


def load(folder: Path) -> Detector:
    """Loads a folder as the service does."""
    return Detector.load(folder, Runtime("cpu"))


def answers_of(detector: Detector, rows: NDArray[np.float32]) -> Answers:
    """Returns what a detector answers about rows (N, M)."""
    scored, latents = detector.score(rows), detector.encode(rows)
    results = (scored.scores, scored.anomalies, latents, detector.decode(latents))
    return Answers(detector.manifest.model_dump(), results)


def flips(name: str, content: bytes, places: int, generator: random.Random) -> Iterator[Damage]:
    """Yields a file with one of its bits changed, at places spread evenly over it, the last byte among them."""
    for place in spread(len(content) - 1, places):
        changed = bytearray(content)
        changed[place] ^= 1 << generator.randrange(8)
        yield Damage("flipped", name, bytes(changed), place)


def cuts(name: str, content: bytes, places: int) -> Iterator[Damage]:
    """Yields the beginnings of a file, from nothing to all but its last byte."""
    for place in spread(len(content) - 1, places):
        yield Damage("cut", name, content[:place], place)


def wholes(name: str, contents: dict[str, bytes]) -> Iterator[Damage]:
    """Yields a file that is gone, has too much behind it, or has another one's bytes."""
    content = contents[name]
    yield Damage("deleted", name, None)
    yield Damage("appended", name, content + b"\n")
    yield Damage("appended", name, content + b"\0" * 512)
    yield Damage("doubled", name, content * 2)
    yield Damage("zeroed", name, bytes(len(content)))
    for other, bytes_ in contents.items():
        if other != name:
            yield Damage(f"replaced by {other}", name, bytes_)


def spread(last: int, places: int) -> list[int]:
    """Returns places from 0 to the last one, evenly."""
    return sorted({round(i * last / max(1, places - 1)) for i in range(places)})


def damages(contents: dict[str, bytes], places: int, seed: int) -> Iterator[Damage]:
    """Yields everything that is done to the files of a folder, one at a time."""
    generator = random.Random(seed)
    for name, content in contents.items():
        yield from flips(name, content, places, generator)
        yield from cuts(name, content, places)
        yield from wholes(name, contents)


def try_damage(folder: Path, damage: Damage, load: Load, rows: NDArray[np.float32], expected: Answers) -> str:
    """Does harm to a folder and loads it; returns ``refused``, ``same``, or what went wrong as a sentence."""
    path = folder / damage.file
    before = path.read_bytes()
    what = f"{folder.parent.name}/{folder.name}/{damage.file} {damage.kind} at {damage.place}"
    try:
        if damage.content is None:
            path.unlink()
        else:
            path.write_bytes(damage.content)
        try:
            found = answers_of(load(folder), rows)
        except StartError as error:
            return "refused" if damage.file in str(error) else f"{what}: was refused for another reason, {error}"
        except Exception as error:  # noqa: BLE001 - this is what must not be
            return f"{what}: was no StartError but {error!r}"
        return "same" if found == expected else f"{what}: was loaded and answers otherwise"
    finally:
        path.write_bytes(before)


def try_folder(folder: Path, load: Load, places: int, seed: int = 0) -> Counter[str]:
    """Does all harm to a folder, of which it makes a copy; returns how often each came of it."""
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary) / folder.parent.name / folder.name
        shutil.copytree(folder, copy)
        x = np.array(json.loads((copy / "examples.json").read_text())["x"], dtype=np.float32)
        rows = np.concatenate([x, 10 * x])
        expected = answers_of(load(copy), rows)
        contents = {path.name: path.read_bytes() for path in sorted(copy.iterdir())}
        return Counter(try_damage(copy, damage, load, rows, expected) for damage in damages(contents, places, seed))


def try_service(folder: Path, log: Path) -> Iterator[str]:
    """Starts the service on a folder with each of its files flipped in the middle; yields what went wrong.

    It may end, or live without the version; what it must not do is answer a row as if nothing were.
    """
    for name in sorted(path.name for path in folder.iterdir()):
        with tempfile.TemporaryDirectory() as temporary:
            copy = Path(temporary) / folder.parent.name / folder.name
            shutil.copytree(folder, copy)
            content = bytearray((copy / name).read_bytes())
            content[len(content) // 2] ^= 4
            (copy / name).write_bytes(content)
            row = json.loads((folder / "examples.json").read_text())["x"][0]
            with serving(log, models=temporary, provider="cpu") as server:
                status = refusal_of(server.url, server.process.poll, server.log, name, folder.parent.name, row)
            said = log.read_text()
            if status == "answered" or f"{copy}/{name}" not in said:
                yield f"the service on {copy} with {name} flipped {status}, and its log has: {said[-500:]}"


def refusal_of(
    url: Callable[[], str], ended: Callable[[], int | None], log: Path, name: str, dataset: str, row: Sequence[float]
) -> str:
    """Waits until the service ended or has told of the file; returns ``ended``, ``refused`` or ``answered``."""
    deadline = time.monotonic() + SECONDS
    while ended() is None and name not in log.read_text():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)
    deadline = time.monotonic() + 1.0
    while ended() is None and time.monotonic() < deadline:
        try:
            answer = httpx.post(f"{url()}/score", json={"dataset": dataset, "vectors": [row]}, trust_env=False)
        except (httpx.TransportError, AssertionError):
            continue
        if answer.status_code == 200:
            return "answered"
        time.sleep(0.05)
    return "refused" if ended() is None else "ended"


def run(scale: float) -> Outcome:
    """Does harm to every shipped model folder, and to one more behind a real service."""
    started, places = time.monotonic(), max(2, round(PLACES * scale))
    folders = sorted(MODELS.glob("*/*"))
    if scale < 1:
        folders = folders[-2:] if scale < 0.5 else folders
    found: Counter[str] = Counter()
    for folder in folders:
        found += try_folder(folder, load, places)
    failures = [text for text in found if text not in ("refused", "same")]
    with tempfile.TemporaryDirectory() as temporary:
        failures += try_service(folders[-1], Path(temporary) / "log")
    figures = {
        "folders": len(folders),
        "places in each file": places,
        "damages": found.total(),
        "refused with a reason": found["refused"],
        "loaded with the same answers": found["same"],
        "loaded with other answers, or broken": len(failures),
        "starts of the service on a damaged folder": len(list(folders[-1].iterdir())),
        "seconds": round(time.monotonic() - started, 1),
    }
    return Outcome(figures, [*failures[:MOST_FAILURES], *tail_of(failures)])


def tail_of(failures: Sequence[str]) -> list[str]:
    """Returns a sentence about the failures that are not told, if there are any."""
    more = len(failures) - MOST_FAILURES
    return [f"{more} more"] if more > 0 else []


BAR = Bar(
    5,
    "Every file of every model folder has bits flipped and is cut at 200 places each, is deleted, emptied, doubled,"
    " appended to and replaced by the others: the folder is refused with a reason that names the file, or answers"
    " are the same to the last bit.",
    run,
)
