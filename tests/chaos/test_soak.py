"""A short soak goes well, and what goes wrong in one is told."""

import json
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from service.catalog import Catalog
from service.runtime import Runtime
from tests.chaos import soak
from tests.chaos.deeds import deeds
from tests.chaos.samples import DATASET, KINDS
from tests.chaos.soak import BAR, Traffic, add_version, coming_and_going, has_traceback, outcome, soaked
from tests.chaos.vitals import Vitals
from tests.chaos.wire import Hang, Malformed, Reply
from tests.server import MODELS

SEEN = [Vitals(5.0 * n, 4, 300.0, 400.0, 80, 15) for n in range(100)]


def test_a_short_soak_goes_well(tmp_path: Path) -> None:
    found = soaked(2.5, tmp_path, workers=1)
    figures = found.figures
    assert figures["unexpected answers"] == 0
    assert isinstance(figures["requests"], int)
    assert figures["requests"] > 50
    unexpected = [failure for failure in found.failures if "memory" not in failure and "threads" not in failure]
    assert not unexpected, "only memory and pools of threads may grow in so short a time"
    assert len((tmp_path / "samples.jsonl").read_text().splitlines()) >= 20


def test_everything_is_done_to_the_service() -> None:
    data = b"".join(deed.data for deed in deeds())
    targets = (b"/score", b"/encode", b"/decode", b"/datasets", b"/health/ready", b"/v2/models/thyroid/infer", b"/docs")
    for part in (
        *targets,
        b"content-encoding: gzip",
        b"content-encoding: zstd",
        b"accept: text/csv",
        b"\xff\xff\xff\xff",
    ):
        assert part in data
    sorts = Counter(deed.sort for deed in deeds())
    assert sorts.keys() == {"good", "bad", "empty", None}
    assert len(KINDS) == 7


class Stub:
    def __init__(self, found: Reply | Exception | None) -> None:
        self.found = found

    def send(self, data: bytes) -> None:
        pass

    def reply(self) -> Reply | None:
        if isinstance(self.found, Exception):
            raise self.found
        return self.found

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (Reply(503, {}, b""), "503 to b'"),
        (None, "a closed connection to b'"),
        (Hang("no answer"), "no answer to b'"),
        (Malformed("cut"), "cut to b'"),
    ],
)
def test_what_is_answered_wrongly_is_told(
    found: Reply | Exception | None, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soak, "Wire", lambda *_: Stub(found))
    traffic = Traffic("http://localhost")
    traffic.run(lambda: sum(traffic.sent.values()) == 40, rate=1e6)
    assert text in traffic.wrong[0]
    failures = outcome(SEEN, traffic, 0, False).failures
    assert failures[0].startswith(f"{len(traffic.wrong)} requests went wrong, the first: ")


def test_a_traceback_in_the_log_is_told(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text('{"message": "fine"}\n')
    assert not has_traceback(log)
    log.write_text('{"message": "fine"}\n{"exception": "Traceback (most"}\n')
    assert has_traceback(log)
    assert outcome(SEEN, Traffic(""), 0, True).failures == ["the log has a traceback"]


def test_growth_is_told() -> None:
    grown = [replace(one, rss=400 + n) for n, one in enumerate(SEEN)]
    assert "memory drifted" in outcome(grown, Traffic(""), 0, False).failures[0]
    assert outcome(SEEN, Traffic(""), 0, False).met


def test_a_version_that_never_answers_is_told() -> None:
    assert outcome(SEEN, Traffic(""), 3, False).failures == ["a version came 3 times and never answered"]
    assert outcome(SEEN, Traffic("", of_new=1), 3, False).met


def test_the_version_that_comes_is_served(tmp_path: Path) -> None:
    add_version(MODELS / DATASET / "2", tmp_path / DATASET / "3", 3)
    assert Catalog(tmp_path, Runtime("cpu")).open(strict=True).find(DATASET).manifest.version == 3


def test_a_version_comes_and_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak, "SWAP_SECONDS", 0.02)
    folder = tmp_path / DATASET / "2"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text('{"version": 2, "a": 1}')
    (folder / "graph").write_bytes(b"1")
    new, found = tmp_path / DATASET / "3", threading.Event()
    with coming_and_going(tmp_path) as times:
        deadline = time.monotonic() + 20
        while times[0] < 3:
            assert time.monotonic() < deadline
            if new.exists() and not found.is_set() and (new / "manifest.json").exists():
                found.set()
            time.sleep(0.001)
    assert found.is_set()
    if new.exists():
        assert json.loads((new / "manifest.json").read_text()) == {"version": 3, "a": 1}
    assert folder.exists()


def test_the_bar_takes_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    monkeypatch.setattr(soak, "soaked", lambda seconds: asked.append(seconds))
    BAR.run(1.0)
    BAR.run(0.01)
    assert asked == [3600, 36]
