"""A short soak goes well, and what goes wrong in one is told."""

import json
import random
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from service.catalog import Catalog
from service.runtime import Runtime
from tests.chaos import soak
from tests.chaos.deeds import DECKS, dealt, deeds
from tests.chaos.samples import DATASET, KINDS
from tests.chaos.soak import BAR, Every, Guest, Seen, Traffic, add_version, has_traceback, load, outcome, soaked
from tests.chaos.vitals import Vitals
from tests.chaos.wire import Hang, Malformed, Reply
from tests.server import MODELS

FLAT = [Vitals(5.0 * n, 4, 300.0, 400.0, 80, 15) for n in range(100)]
SEEN = Seen(FLAT, FLAT)


def test_a_short_soak_goes_well(tmp_path: Path) -> None:
    found = soaked(2.5, tmp_path, workers=1)
    figures = found.figures
    assert figures["unexpected answers"] == 0
    assert isinstance(figures["requests"], int)
    assert figures["requests"] > 50
    unexpected = [failure for failure in found.failures if "memory" not in failure and "threads" not in failure]
    assert not unexpected, "only memory and pools of threads may grow in so short a time"
    samples = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert Counter(sample["resting"] for sample in samples)[True] == soak.RESTS
    assert figures["rests"] == soak.RESTS - soak.WARM_UP_RESTS
    assert isinstance(figures["samples under load"], int)
    assert figures["samples under load"] > soak.RESTS


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


def test_every_deck_has_the_same() -> None:
    cards = dealt(random.Random(0))
    size = round(sum(deed.weight for deed in deeds()) * DECKS)
    first, second = ([next(cards).data for _ in range(size)] for _ in range(2))
    assert first != second
    assert Counter(first) == Counter(second)
    assert {deed.data for deed in deeds()} == set(first)


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


def test_growth_of_what_is_kept_is_told() -> None:
    grown = [replace(one, rss=400 + n) for n, one in enumerate(FLAT)]
    assert "memory drifted" in outcome(Seen(grown, FLAT), Traffic(""), 0, False).failures[0]
    assert outcome(SEEN, Traffic(""), 0, False).met


def test_growth_under_load_is_shown() -> None:
    grown = [replace(one, rss=400 + n) for n, one in enumerate(FLAT)]
    found = outcome(Seen(FLAT, grown), Traffic(""), 0, False)
    assert found.met
    drift = found.figures["drift under load, %"]
    assert isinstance(drift, float)
    assert drift > 1


def test_a_worker_that_died_under_load_is_told() -> None:
    loaded = [*FLAT[:-1], replace(FLAT[-1], processes=3)]
    found = outcome(Seen(FLAT, loaded), Traffic(""), 0, False)
    assert found.failures == ["the number of processes changed: [3, 4]"]


def test_a_client_that_fails_ends_the_soak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak, "Wire", lambda *_: Stub(RuntimeError("broken")))
    done: list[int] = []
    with pytest.raises(RuntimeError, match="broken"):
        load(Traffic("http://localhost"), 60, [Every(0, lambda: done.append(1))])


def test_what_is_due_is_done_again_and_again() -> None:
    done: list[str] = []
    often, seldom = Every(0.01, lambda: done.append("often")), Every(1000, lambda: done.append("seldom"))
    deadline = time.monotonic() + 20
    while len(done) < 3:
        assert time.monotonic() < deadline
        often.do()
        seldom.do()
    assert done == ["often"] * 3


def test_a_version_that_never_answers_is_told() -> None:
    assert outcome(SEEN, Traffic(""), 3, False).failures == ["a version came 3 times and never answered"]
    traffic = Traffic("")
    traffic.of_new = 1
    assert outcome(SEEN, traffic, 3, False).met


def test_the_version_that_comes_is_served(tmp_path: Path) -> None:
    add_version(MODELS / DATASET / "2", tmp_path / DATASET / "3", 3)
    assert Catalog(tmp_path, Runtime("cpu")).open(strict=True).find(DATASET).manifest.version == 3


def test_a_version_comes_and_goes(tmp_path: Path) -> None:
    folder = tmp_path / DATASET / "2"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text('{"version": 2, "a": 1}')
    (folder / "graph").write_bytes(b"1")
    guest, new = Guest(tmp_path), tmp_path / DATASET / "3"
    guest.leave()
    assert not new.exists()
    for times in (1, 2):
        guest.turn()
        assert guest.times == times
        assert json.loads((new / "manifest.json").read_text()) == {"version": 3, "a": 1}
        assert (new / "graph").read_bytes() == b"1"
        guest.turn()
        assert [path.name for path in folder.parent.iterdir()] == ["2"]
    guest.turn()
    guest.leave()
    assert [path.name for path in folder.parent.iterdir()] == ["2"]


def test_the_bar_takes_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    monkeypatch.setattr(soak, "soaked", lambda seconds: asked.append(seconds))
    BAR.run(1.0)
    BAR.run(0.01)
    assert asked == [3600, 36]
