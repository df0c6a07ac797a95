"""The fuzzer makes every case again, finds nothing in the service, and finds what is wrong in others."""

import json
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.chaos import fuzzing, hostile, openapi
from tests.chaos.fuzzing import CASES, Fuzzer, crashes, judge, wrong_form
from tests.chaos.hostile import BODIES, MB, Cost
from tests.chaos.mutations import Case, case_of
from tests.chaos.openapi import read
from tests.chaos.samples import DATASET, KINDS, UNPACK, WAYS, Sample, packed, rows_of
from tests.chaos.second_reader import KINDS_BY_TYPE, READERS, Scorer, Unreadable, rows_in
from tests.chaos.wire import Reply
from tests.server import ROOT, serving

FEW = 800


def test_the_service_stands_a_few_hundred_cases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzzing, "QUIET", 0.1)
    with serving(tmp_path / "log", body_seconds=0.2) as server, server.client():
        fuzzer = Fuzzer(server.url())
        fuzzer.run(1, FEW)
        fuzzer.check_canary("the end")
        assert fuzzer.failures == []
        assert crashes(server, {server.process.pid}) == []
    assert fuzzer.compared > FEW / 5
    assert {200, 400, 404, 405, 406, 415, 422} <= fuzzer.statuses.keys()


def test_a_case_is_made_again_from_its_seed_and_number() -> None:
    assert [case_of(3, number) for number in range(300)] == [case_of(3, number) for number in range(300)]
    assert case_of(3, 5).name == "--seed 3 --case 5"
    assert len({case_of(seed, number).data for seed in (3, 4) for number in range(300)}) > 590


def test_every_format_and_every_sort_of_change_is_among_the_cases() -> None:
    cases = [case_of(1, number) for number in range(FEW)]
    kinds = Counter(case.sample.kind for case in cases)
    assert all(kinds[kind] > FEW / 30 for kind in KINDS)
    assert FEW / 20 < sum(not case.framed for case in cases) < FEW / 5
    encodings = {case.sample.headers.get("content-encoding") for case in cases}
    assert {"gzip", "deflate", "zstd", None} <= encodings


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("encoding", [None, *UNPACK])
def test_the_second_reader_reads_what_was_written(way: Any, encoding: str | None) -> None:  # noqa: ANN401
    x = rows_of(5)
    sample = way(x) if encoding is None else packed(way(x), encoding)
    rows, version = rows_in(sample)
    assert rows.tobytes() == x.tobytes()
    assert version == 2


TYPES = {kind: media_type for media_type, kind in KINDS_BY_TYPE.items()}

UNREADABLE = [
    Sample(
        "json",
        "/score",
        {},
        b'{"dataset": "thyroid", "vectors": [[1, 2, 3, 4, 5, 6]], "vectors": [[1, 2, 3, 4, 5, 6]]}',
    ),
    Sample("json", "/score", {}, b'{"dataset": "other", "vectors": [[1, 2, 3, 4, 5, 6]]}'),
    Sample("json", "/score", {}, b'{"dataset": "thyroid", "records": [{"age": 1, "age": 1}]}'),
    Sample("json", "/score", {}, b'{"dataset": "thyroid", "records": [{"age": 1}]}'),
    Sample("json", "/score", {}, b'{"dataset": "thyroid", "records": [{}], "vectors": [[1, 2, 3, 4, 5, 6]]}'),
    Sample("json", "/score", {}, b'{"dataset": "thyroid", "vectors": [[1, 2, 3, 4, 5, true]]}'),
    Sample("json", "/score", {}, b'{"dataset": "thyroid", "vectors": [[1, 2, 3, 4, 5, 1e39]]}'),
    Sample("json", "/score", {}, b'{"dataset": "thyroid", "vectors": [[1, 2, 3, 4, 5]]}'),
    Sample("json", "/score", {"content-encoding": "gzip"}, b"{}"),
    Sample("csv", "/score?dataset=thyroid", {}, b"1,2,3,4,5,1_0"),
    Sample("csv", "/score?dataset=thyroid", {}, b"a,TSH,T3,TT4,T4U,FTI\n1,2,3,4,5,6"),
    Sample("csv", "/score?dataset=other", {}, b"1,2,3,4,5,6"),
    Sample("raw", "/score?dataset=thyroid", {}, bytes(25)),
    Sample("npy", "/score?dataset=thyroid", {}, b"\x93NUMPY"),
    Sample("arrow", "/score?dataset=thyroid", {}, b"\xff\xff\xff\xff"),
    Sample("v2", "/v2/models/other/infer", {}, b"{}"),
    Sample("v2 bytes", "/v2/models/thyroid/infer", {"inference-header-content-length": "9"}, b"{}"),
]


UNREADABLE = [
    replace(sample, headers={"content-type": TYPES.get(sample.kind, ""), **sample.headers}) for sample in UNREADABLE
]


@pytest.mark.parametrize("sample", UNREADABLE, ids=range(len(UNREADABLE)))
def test_the_second_reader_refuses_what_nobody_should_take(sample: Sample) -> None:
    assert {sample.kind for sample in UNREADABLE} == READERS.keys()
    with pytest.raises(Unreadable):
        rows_in(sample)


def test_a_body_is_read_as_what_it_says_that_it_is() -> None:
    x = rows_of(17)
    sample = replace(WAYS[3](x), kind="csv")
    assert rows_in(sample)[0].tobytes() == x.tobytes()
    with pytest.raises(Unreadable, match="KeyError"):
        rows_in(replace(sample, headers={"content-type": "text/html"}))


CASE = Case("--seed 1 --case 2", WAYS[0](rows_of(2)), b"")


def problem(status: int = 422, **changed: object) -> Reply:
    body = {
        "type": "about:blank",
        "title": "t",
        "status": status,
        "detail": "d",
        "kind": "k",
        "request_id": "7",
    } | changed
    headers = {"content-type": "application/problem+json", "x-request-id": "7"}
    return Reply(status, headers, json.dumps(body).encode())


BARE = Reply(400, {"content-type": "text/plain; charset=utf-8"}, b"Invalid HTTP request received.")
V2_ERROR = Reply(400, {"content-type": "application/json", "x-request-id": "7"}, b'{"error": "wrong"}')


def test_answers_of_the_right_form_pass() -> None:
    for reply in (problem(), V2_ERROR, Reply(200, {"x-request-id": "7"}, b"")):
        assert wrong_form(CASE, reply) is None
    assert wrong_form(Case("", CASE.sample, b"", framed=False), BARE) is None


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (problem(500), "answered 500"),
        (Reply(200, {}, b""), "no id"),
        (BARE, "HTTP was taken for none"),
        (problem(more=1), "a problem has the form"),
        (problem(status=422, request_id="8"), "a problem has the form"),
        (problem(detail="x" * 30_000), "bytes of error"),
        (problem(detail="<ast.BinOp object at 0x7f0cf1052da0>"), "gives ' ?at 0x7f0cf1052da0' away"),
        (problem(detail="Traceback (most recent call last)"), "gives 'Traceback' away"),
        (Reply(400, {"content-type": "application/json", "x-request-id": "7"}, b"{"), "no JSON"),
        (Reply(400, {"content-type": "application/json"}, b'{"error": "no id"}'), "has the type 'application/json'"),
        (Reply(404, {"content-type": "text/html", "x-request-id": "7"}, b"{}"), "has the type 'text/html'"),
    ],
)
def test_answers_of_another_form_are_told(reply: Reply, text: str) -> None:
    with pytest.raises(AssertionError, match=text):
        raise AssertionError(wrong_form(CASE, reply))


class Stub:
    """Stands for a connection to a service that always answers the same."""

    def __init__(self, reply: Reply | None) -> None:
        self._reply = reply

    def send(self, data: bytes) -> None:
        pass

    def reply(self, seconds: float | None = None, method: str = "POST") -> Reply | None:  # noqa: ARG002
        return self._reply

    def close(self) -> None:
        pass


def scored(scores: list[float], version: int = 2) -> Reply:
    document = {"dataset": DATASET, "version": version, "threshold": 1, "scores": scores, "anomalies": []}
    return Reply(200, {"content-type": "application/json", "x-request-id": "7"}, json.dumps(document).encode())


RIGHT = Scorer()(2, rows_of(2)).tolist()


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (scored(RIGHT), None),
        (scored(RIGHT[:1]), "for 1 rows, a second reader has .* for 2"),
        (scored([RIGHT[0], float(np.nextafter(RIGHT[1], 9))]), "a second reader has"),
        (scored(RIGHT, 1), "version 1 answered, 2 was asked for"),
        (None, "the connection was closed without an answer"),
    ],
    ids=["right", "a row less", "a bit more", "another version", "closed"],
)
def test_wrong_answers_to_a_case_are_told_with_its_name(
    reply: Reply | None, text: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fuzzing, "Wire", lambda *_: Stub(reply))
    fuzzer = Fuzzer("http://localhost")
    fuzzer.attempt(CASE)
    if text is None:
        assert fuzzer.failures == []
        assert fuzzer.compared == 1
    else:
        with pytest.raises(AssertionError, match=f"^--seed 1 --case 2: .*{text}"):
            raise AssertionError(fuzzer.failures[0])


def test_an_answer_to_what_nobody_should_take_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzzing, "Wire", lambda *_: Stub(scored([1.0])))
    fuzzer = Fuzzer("http://localhost")
    fuzzer.attempt(Case("it", UNREADABLE[0], b""))
    assert fuzzer.failures == ["it: it was answered 200, and a second reader says a key is there twice"]


@pytest.mark.parametrize(
    ("reply", "text"),
    [(None, "is answered None"), (problem(), "is answered Reply"), (scored([9.0]), "gets another score")],
)
def test_a_service_that_was_broken_by_a_case_is_told(
    reply: Reply | None, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fuzzing, "Wire", lambda *_: Stub(reply))
    fuzzer = Fuzzer("http://localhost")
    fuzzer.check_canary("it")
    assert text in fuzzer.failures[0]


def test_failures_and_growth_are_judged() -> None:
    fuzzer = Fuzzer("http://localhost")
    assert judge(fuzzer, 100, 104.9) == []
    assert judge(fuzzer, 100, 105.1) == ["memory grew from 100.0 to 105.1 MB, at most 5% is allowed"]
    fuzzer.failures = [f"--seed 1 --case {number}: wrong" for number in range(25)]
    failures = judge(fuzzer, 100, 100)
    assert failures[0] == "python -m tests.chaos.fuzzing --seed 1 --case 0: wrong"
    assert (len(failures), failures[-1]) == (21, "and 5 more")


def test_crashes_and_tracebacks_are_told(tmp_path: Path) -> None:
    script = "import time; print('Traceback', flush=True); time.sleep(60)"
    with serving(tmp_path / "log", (sys.executable, "-c", script)) as server:
        while not server.log.read_text():
            assert server.process.poll() is None
        assert crashes(server, {server.process.pid}) == ["the log has 1 tracebacks"]
        assert "the processes were [1] and are" in crashes(server, {1})[0]
        server.process.kill()
        server.process.wait()
        assert "and are []" in crashes(server, {server.process.pid})[0]


SUMMARY = "Test cases:\n  820 generated, 2 found 2 unique failures\n"


def test_the_words_of_schemathesis_are_read() -> None:
    assert read(0, SUMMARY) == openapi.Documented(820)
    found = read(1, f"==== FAILURES ====\nPOST /score: Server error\n{SUMMARY}")
    assert found.requests == 820
    assert found.failures[0].startswith("schemathesis: POST /score: Server error")
    assert read(2, "no such option") == openapi.Documented(0, ["schemathesis ended with 2: no such option"])
    assert read(0, "nothing") == openapi.Documented(0, ["schemathesis ended with 0: nothing"])


def test_schemathesis_that_is_missing_fails_the_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openapi, "PROGRAM", ROOT / ".venv-chaos" / "nothing")
    found = openapi.run("http://localhost", tmp_path, 1, 1)
    assert found.failures == [".venv-chaos/nothing is missing: `make chaos` sets it up"]


def test_what_takes_too_much_is_judged() -> None:
    good = Cost("good", 400, 1.0, 10.0)
    found = hostile.judge(
        [good, Cost("slow", 400, 6.1, 20.0), Cost("large", 413, 0.1, 641), Cost("none", "closed", 0, 0)]
    )
    assert found.failures == [
        "slow: 6.1 s of CPU, at most 6 are allowed",
        "large: 641 MB, at most 640 are allowed",
        "none: closed",
    ]
    assert found.figures["which one took it"] == "slow"
    assert found.figures["which one needed it"] == "large"
    assert hostile.judge([good]).met
    assert hostile.judge([Cost("bad", 500, 0, 0)]).failures == ["bad: 500"]


def test_hostile_bodies_are_as_long_as_they_may_be() -> None:
    lengths = {body.name: len(body.make(MB)) for body in BODIES}
    assert max(lengths.values()) <= MB
    assert len(lengths) == len(BODIES) > 60
    assert sum(length > 0.9 * MB for length in lengths.values()) > 40


def test_the_bar_is_tried_in_full() -> None:
    assert CASES == 50_000
    assert fuzzing.BAR.number == 4


@pytest.mark.slow
def test_a_share_of_the_bar_is_met(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openapi, "run", lambda *_: openapi.Documented(500))
    found = fuzzing.run(0.05)
    assert found.failures == []
    assert found.figures["hostile bodies"] == len(BODIES)
