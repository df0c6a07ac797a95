"""Bar 4: tens of thousands of requests that nobody would send, and each is answered as it should be.

`python -m tests.chaos.fuzzing --seed 1 --case 17` makes one case again, sends it and prints what came back.
"""

import argparse
import json
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tests.chaos import hostile, openapi
from tests.chaos.bars import Bar, Figure, Outcome
from tests.chaos.mutations import Case, case_of
from tests.chaos.samples import DATASET, INFER, as_json, rows_of
from tests.chaos.second_reader import NEWEST, Scorer, Unreadable, rows_in, scores_in
from tests.chaos.vitals import look
from tests.chaos.wire import Hang, Malformed, Reply, Wire, request
from tests.load.processes import family
from tests.server import Server, serving

CASES = 50_000
WARM_UP_SHARE = 0.1

SEED, WARM_UP_SEED = 6, 7

PATIENCE = 20.0
"""Seconds within which a whole request must be answered, whatever it is."""

QUIET = 0.25
"""Seconds of silence after which a request that may be incomplete is given up."""

BODY_SECONDS = 1.0
"""What the service gives bodies, so that those that never end are not waited for."""

THREADS = 6
CASES_PER_CANARY = 50

MOST_GROWTH = 0.05

SERVER_ERROR = 500
UNREADABLE = {400, 431}
"""What is answered to bytes that are no HTTP, in a line of text and not by the service itself."""

PROBLEM = {"type", "title", "status", "detail", "kind", "request_id"}

GIVEN_AWAY = re.compile(r"Traceback|\bat 0x[0-9a-f]{6,}|site-packages|service/\w+\.py")

LONGEST_ANSWER = 20_000
"""Bytes of an answer to an error; nothing of a request is repeated at length."""


@dataclass
class Fuzzer:
    """Sends cases to a service, and looks at what comes back.

    Attributes:
        url: Where to.
        statuses: How often each status was answered; 0 stands for a connection that was closed instead.
        compared: How many answers were held against the second reader.
        failures: What was wrong, with the command that shows it.
        slowest: Seconds that the slowest answer took.
    """

    url: str
    statuses: Counter[int] = field(default_factory=Counter)
    compared: int = 0
    failures: list[str] = field(default_factory=list)
    slowest: float = 0.0
    _wire: Wire | None = None
    _score: Scorer = field(default_factory=Scorer)

    def run(self, seed: int, cases: int) -> None:
        """Sends cases from several threads, for some of them are waited for; now and then a request that is right."""
        with ThreadPoolExecutor(THREADS) as pool:
            parts = [pool.submit(self._some, seed, range(first, cases, THREADS)) for first in range(THREADS)]
        for part in parts:
            other = part.result()
            self.statuses += other.statuses
            self.compared += other.compared
            self.failures += other.failures
            self.slowest = max(self.slowest, other.slowest)

    def _some(self, seed: int, numbers: Iterable[int]) -> "Fuzzer":
        other = Fuzzer(self.url, _score=self._score)
        for number in numbers:
            other.attempt(case_of(seed, number))
            if number % CASES_PER_CANARY == 0:
                other.check_canary(f"--seed {seed} --case {number}")
        other._hang_up()
        return other

    def attempt(self, case: Case) -> list[Reply]:
        """Sends a case, and returns its answers."""
        replies: list[Reply] = []
        began = time.monotonic()
        try:
            replies = self._framed(case) if case.framed else self._unframed(case)
        except (Hang, Malformed) as error:
            self._fail(case.name, f"{type(error).__name__}: {error}")
            self._hang_up()
        if case.framed:
            self.slowest = max(self.slowest, time.monotonic() - began)
        for reply in replies:
            self.statuses[reply.status] += 1
            if (wrong := wrong_form(case, reply)) or (
                reply.status == 200 and case.framed and (wrong := self._wrong_scores(case, reply))
            ):
                self._fail(case.name, wrong)
        return replies

    def check_canary(self, name: str) -> None:
        """Sends a request that is right, on a connection of its own."""
        x = rows_of(1, random.Random(name).randrange(100))
        sample, wire = as_json(x), Wire(self.url, PATIENCE)
        try:
            wire.send(request("POST", sample.target, sample.headers, sample.body))
            reply = wire.reply()
            if reply is None or reply.status != 200:
                self._fail(name, f"a request that is right is answered {reply} behind it")
            elif not np.array_equal(scores_in(reply)[0], self._score(NEWEST, x)):
                self._fail(name, "a request that is right gets another score behind it")
        except (Hang, Malformed) as error:
            self._fail(name, f"a request that is right is not answered behind it: {error}")
        finally:
            wire.close()

    def _framed(self, case: Case) -> list[Reply]:
        wire = self._wire = self._wire or Wire(self.url, PATIENCE)
        wire.send(case.data)
        reply = wire.reply(method=case.method)
        if reply is None:
            self.statuses[0] += 1
            self._fail(case.name, "the connection was closed without an answer")
        if reply is None or reply.headers.get("connection") == "close" or case.method == "HEAD":
            self._hang_up()
        return [reply] if reply else []

    def _unframed(self, case: Case) -> list[Reply]:
        wire, replies = Wire(self.url, PATIENCE), []
        try:
            wire.send(case.data)
            while reply := wire.reply(QUIET):
                replies.append(reply)
            self.statuses[0] += not replies
        except Hang:
            self.statuses[0] += not replies
        finally:
            wire.close()
        return replies

    def _wrong_scores(self, case: Case, reply: Reply) -> str | None:
        sample = case.sample
        if sample.kind == "unknown" or not sample.target.startswith((f"/score?dataset={DATASET}", "/score", INFER)):
            return None
        try:
            x, version = rows_in(sample)
        except Unreadable as error:
            return f"it was answered 200, and a second reader says {error}"
        self.compared += 1
        scores, answered = scores_in(reply)
        expected = self._score(version, x)
        if reply.headers.get("content-type") == "application/octet-stream" and not sample.target.startswith(INFER):
            expected = expected.astype(np.float32).astype(np.float64)
        if answered not in (None, version):
            return f"version {answered} answered, {version} was asked for"
        if not np.array_equal(scores, expected):
            return f"scores {scores[:3]} for {len(scores)} rows, a second reader has {expected[:3]} for {len(x)}"
        return None

    def _fail(self, name: str, text: str) -> None:
        self.failures.append(f"{name}: {text}")

    def _hang_up(self) -> None:
        if self._wire is not None:
            self._wire.close()
            self._wire = None


def wrong_form(case: Case, reply: Reply) -> str | None:
    """Says what is wrong with an answer's form, whatever it says."""
    status, kind, body = reply.status, reply.headers.get("content-type", ""), reply.body
    if status >= SERVER_ERROR:
        return f"answered {status}: {body[:200]!r}"
    if status < 400:
        return None if "x-request-id" in reply.headers else "an answer has no id"
    if len(body) > LONGEST_ANSWER:
        return f"{len(body)} bytes of error"
    if given_away := GIVEN_AWAY.search(body.decode(errors="replace")):
        return f"an error gives {given_away[0]!r} away: {body[:300]!r}"
    if case.method == "HEAD":
        return None
    if kind.startswith("text/plain") and status in UNREADABLE and "x-request-id" not in reply.headers:
        return "a request of HTTP was taken for none" if case.framed and status == 400 else None
    return wrong_error(reply, kind)


def wrong_error(reply: Reply, kind: str) -> str | None:
    """Says what is wrong with an error's form, RFC 9457's or the protocol's."""
    try:
        found = json.loads(reply.body)
    except ValueError:
        return f"an error is no JSON: {reply.body[:200]!r}"
    request_id = reply.headers.get("x-request-id")
    if kind == "application/problem+json":
        if set(found) != PROBLEM or found["status"] != reply.status or found["request_id"] != request_id:
            return f"a problem has the form {found}"
        return None
    if kind == "application/json" and list(found) == ["error"] and request_id:
        return None
    return f"an error has the type {kind!r} and the fields {list(found)}"


def run(scale: float) -> Outcome:
    """Sends what schemathesis makes of the OpenAPI document, then cases up to the number; then what is hostile."""
    with tempfile.TemporaryDirectory(prefix="fuzzing-") as temporary:
        folder = Path(temporary)
        found = fuzz(folder, round(CASES * scale), scale)
        worst = hostile.run(folder, scale)
    return Outcome({**found.figures, **worst.figures}, [*found.failures, *worst.failures])


def fuzz(folder: Path, cases: int, scale: float) -> Outcome:
    """Fuzzes a service of its own, and judges it."""
    log = folder / "service.log"
    with serving(log, body_seconds=BODY_SECONDS) as server:
        with server.client():
            url = server.url()
        documented = openapi.run(url, folder, scale, SEED)
        warm_up = Fuzzer(url)
        warm_up.run(WARM_UP_SEED, round(cases * WARM_UP_SHARE))
        before, pids = look(server.process.pid, 0).rss, set(family(server.process.pid))
        fuzzer = Fuzzer(url)
        fuzzer.run(SEED, max(0, cases - documented.requests))
        fuzzer.failures = [*warm_up.failures, *fuzzer.failures]
        fuzzer.check_canary("the end")
        after = look(server.process.pid, 0).rss
        failures = [*documented.failures, *judge(fuzzer, before, after), *crashes(server, pids)]
    return Outcome(figures(documented, fuzzer, before, after), failures)


def judge(fuzzer: Fuzzer, before: float, after: float) -> list[str]:
    """Says what fuzzing found, the first few of each."""
    failures = [f"python -m tests.chaos.fuzzing {failure}" for failure in fuzzer.failures[:20]]
    if len(fuzzer.failures) > len(failures):
        failures.append(f"and {len(fuzzer.failures) - len(failures)} more")
    if after > before * (1 + MOST_GROWTH):
        failures.append(f"memory grew from {before:.1f} to {after:.1f} MB, at most {MOST_GROWTH:.0%} is allowed")
    return failures


def crashes(server: Server, pids: set[int]) -> list[str]:
    """Says whether the processes are the same as before, and whether the log has what nobody foresaw."""
    failures = []
    if server.process.poll() is not None or set(family(server.process.pid)) != pids:
        failures.append(f"the processes were {sorted(pids)} and are {sorted(family(server.process.pid))}")
    with server.log.open(errors="replace") as lines:
        traces = sum("Traceback" in line for line in lines)
    if traces:
        failures.append(f"the log has {traces} tracebacks")
    return failures


def figures(documented: openapi.Documented, fuzzer: Fuzzer, before: float, after: float) -> dict[str, Figure]:
    """Returns what is worth telling."""
    answered = {status: count for status, count in sorted(fuzzer.statuses.items()) if status}
    return {
        "requests made by schemathesis": documented.requests,
        "requests made of changed bytes": sum(fuzzer.statuses.values()),
        "their answers by status": ", ".join(f"{status}: {count}" for status, count in answered.items()),
        "connections without an answer": fuzzer.statuses[0],
        "answers of 500 or more": sum(count for status, count in answered.items() if status >= SERVER_ERROR),
        "answers held against a second reader": fuzzer.compared,
        "slowest answer, s": round(fuzzer.slowest, 3),
        "memory grew by, %": round(100 * (after / before - 1), 2),
    }


BAR = Bar(
    4,
    "50,000 generated requests, from our own OpenAPI document and of changed bytes: no 500, no hang, no "
    "crash, no wrong score, and memory grows by less than 5 %.",
    run,
)


def main() -> int:
    """Makes a case again and sends it, or only some."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.fuzzing", description="Fuzz a service.")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--case", type=int, help="this case only; all up to --cases unless given")
    parser.add_argument("--cases", type=int, default=1000)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="fuzzing-") as folder,
        serving(Path(folder) / "log", body_seconds=BODY_SECONDS) as server,
    ):
        with server.client():
            fuzzer = Fuzzer(server.url())
        if options.case is None:
            fuzzer.run(options.seed, options.cases)
        else:
            case = case_of(options.seed, options.case)
            print(case.data)
            print(*fuzzer.attempt(case), sep="\n")
    print(dict(fuzzer.statuses), f"{fuzzer.compared} compared", *fuzzer.failures, sep="\n")
    return 1 if fuzzer.failures else 0


if __name__ == "__main__":
    sys.exit(main())
