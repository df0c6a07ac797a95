"""The load generator, against small servers that answer what a test wants."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.load.client import LoadError, drive, main, percentile, render

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine"
SECONDS = 30.0
"""More than any test takes: counts end the loops."""

Answer = Callable[[int], list[bytes]]
"""Returns the parts of the n-th answer, counted over all connections; no part closes the connection."""


class Recorder:
    """A server, and what it was sent."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.requests: list[bytes] = []
        self.connections = 0
        self.seen: list[set[int]] = []  # after each request, the connections that have sent one

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers a connection's requests one by one."""
        me = self.connections
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
                self.requests.append(head + await reader.readexactly(length))
                self.seen.append({me} | (self.seen[-1] if self.seen else set()))
                parts = self.answer(len(self.requests) - 1)
                if not parts:
                    return
                for part in parts:
                    writer.write(part)
                    await writer.drain()
                    await asyncio.sleep(0)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()


@asynccontextmanager
async def listening(recorder: Recorder) -> AsyncIterator[str]:
    async with await asyncio.start_server(recorder.serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/score?dataset=x"


def test_every_connection_sends_the_request_until_all_are_answered() -> None:
    recorder = Recorder(lambda _: [OK])

    async def check() -> None:
        async with listening(recorder) as url:
            request = render(url, b"rows", ["content-type: text/plain"])
            report = await drive(url, request, 3, SECONDS, 100)
            assert recorder.requests == [request] * (3 + 100)
        assert (report.requests, recorder.connections) == (100, 3)
        assert 0 < report.p50 <= report.p90 <= report.p99 <= report.max <= 1e3 * report.seconds
        assert report.cpu > 0

    asyncio.run(check())


def test_no_request_is_sent_after_the_time() -> None:
    recorder = Recorder(lambda _: [OK])

    async def check() -> None:
        async with listening(recorder) as url:
            report = await drive(url, render(url, b""), 2, 0.05)
        assert report.requests == len(recorder.requests) - 2 > 0

    asyncio.run(check())


def test_connections_wait_until_all_of_them_were_answered() -> None:
    recorder = Recorder(lambda _: [OK])

    async def check() -> None:
        async with listening(recorder) as url:
            await drive(url, render(url, b"x"), 4, SECONDS, 4)
        assert [len(seen) for seen in recorder.seen] == [1, 2, 3, 4, 4, 4, 4, 4]

    asyncio.run(check())


@pytest.mark.parametrize("size", [1, 5, 44, 46], ids=lambda size: f"{size} bytes")
def test_answers_may_come_in_parts(size: int) -> None:
    async def check() -> None:
        parts = [OK[i : i + size] for i in range(0, len(OK), size)]
        async with listening(Recorder(lambda _: parts)) as url:
            report = await drive(url, render(url, b"x"), 1, SECONDS, 5)
        assert report.requests == 5

    asyncio.run(check())


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nbusy"], "got HTTP/1.1 503 .*busy"),
        ([b"HTTP/1.1 200 OK\r\n\r\n"], "expected 200 and a content-length"),
        ([OK + b"!"], "1 bytes longer than its content-length"),
        ([], "closed a connection"),
    ],
    ids=["other status", "no length", "too long", "closed"],
)
@pytest.mark.parametrize("number", [1, 10], ids=["before it runs", "while it runs"])
def test_a_bad_answer_ends_everything(number: int, bad: list[bytes], message: str) -> None:
    recorder = Recorder(lambda other: bad if other == number else [OK])

    async def check() -> None:
        async with listening(recorder) as url:
            with pytest.raises(LoadError, match=f"(?s){message}"):
                await drive(url, render(url, b"x"), 4, SECONDS)

    asyncio.run(check())


def test_percentiles_are_the_smallest_that_enough_values_do_not_exceed() -> None:
    values = [float(value) for value in range(1, 101)]
    assert [percentile(values, share) for share in (0.5, 0.9, 0.99, 1.0)] == [50, 90, 99, 100]
    assert percentile([7.0], 0.01) == 7


def test_a_request_is_rendered_with_its_headers() -> None:
    assert render("http://h:1/a/b?c=d", b"rows", ["x: y"]) == (
        b"POST /a/b?c=d HTTP/1.1\r\nhost: h:1\r\ncontent-length: 4\r\nx: y\r\n\r\nrows"
    )


def test_the_process_prints_one_line_of_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def check() -> None:
        (tmp_path / "body").write_bytes(b"rows")
        recorder = Recorder(lambda _: [OK])
        async with listening(recorder) as url:
            command = [sys.executable, "-m", "tests.load.client", url, str(tmp_path / "body"), "--requests", "7"]
            process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
            output, _ = await process.communicate()
        assert process.returncode == 0
        assert json.loads(output)["requests"] == 7

    asyncio.run(check())
    assert main(["http://127.0.0.1:1/", str(tmp_path / "body")]) == 1
    assert "http://127.0.0.1:1/: " in capsys.readouterr().err
