"""Bodies as they arrive: in parts, late, compressed, or not at all."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from service.body import Patience, Room, inflate, read_body
from service.errors import BodyTooLarge, BodyTooSlow, MalformedBody
from service.formats import Body
from tests.bounds import within
from tests.service.requests import COMPRESS


def in_parts(*parts: bytes, end: Message | None = None) -> Receive:
    """Gives a body in parts, and then waits for ever or gives `end`."""
    left = [{"type": "http.request", "body": part, "more_body": i < len(parts) - 1} for i, part in enumerate(parts)]
    if end:
        left[-1]["more_body"] = True
        left.append(dict(end))

    async def receive() -> Message:
        if not left:
            await asyncio.Event().wait()
        return left.pop(0)

    return receive


def read(receive: Receive, headers: dict[bytes, bytes] | None = None, limit: int = 100, seconds: float = 30.0) -> Body:
    return asyncio.run(read_body(headers or {}, receive, limit, Patience(seconds), Room(1000)))


@pytest.mark.parametrize("parts", [[b"abc"], [b"", b"abc"], [b"a", b"", b"bc"], [b"a", b"b", b"c", b""]])
def test_parts_are_put_together(parts: Sequence[bytes]) -> None:
    assert read(in_parts(*parts)) == b"abc"


def test_no_more_is_kept_than_the_limit() -> None:
    with pytest.raises(BodyTooLarge, match="more than 100 bytes"):
        read(in_parts(bytes(101)))
    with pytest.raises(BodyTooLarge, match="more than 100 bytes"):
        read(in_parts(bytes(60), bytes(60)))
    with pytest.raises(BodyTooLarge, match="has 101 bytes, at most 100"):
        read(in_parts(b""), {b"content-length": b"0101"})
    assert read(in_parts(bytes(60), bytes(40)), {b"content-length": b"100"}) == bytes(100)


@pytest.mark.parametrize(("encoding", "compress"), COMPRESS)
def test_what_inflates_to_much_does_not_keep_the_event_loop(
    encoding: str, compress: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.body.QUICK_BYTES", 1000)
    turns = []

    def slowly(body: Body, encoding: str, limit: int) -> bytes:
        if limit > 1000:
            time.sleep(0.1)
        return inflate(body, encoding, limit)

    async def count() -> None:
        while True:
            await asyncio.sleep(0.005)
            turns.append(time.monotonic())

    async def main() -> None:
        room, counting = Room(100_000), asyncio.create_task(count())
        sent, headers = compress(bytes(5000)), {b"content-encoding": encoding.encode()}
        bodies = [read_body(headers, in_parts(sent), 10_000, Patience(30.0), room) for _ in range(2)]
        assert await asyncio.gather(*bodies) == [bytes(5000)] * 2
        assert room.taken == 10_000
        with pytest.raises(BodyTooLarge, match="inflated more than 2000"):
            await read_body(headers, in_parts(sent), 2000, Patience(30.0), room)
        assert room.taken == 10_000
        counting.cancel()

    monkeypatch.setattr("service.body.inflate", slowly)
    asyncio.run(main())
    assert len(turns) > 10


def test_a_client_that_hangs_up() -> None:
    with pytest.raises(ClientDisconnect):
        read(in_parts(b"abc", end={"type": "http.disconnect"}))


def test_late_bodies_are_given_up_and_others_are_not() -> None:
    async def late() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def both() -> list[Any]:
        patience = Patience(0.05)
        slow = [read_body({}, late, 100, patience, Room(1000)) for _ in range(3)]
        return await asyncio.gather(
            *slow, read_body({}, in_parts(b"abc"), 100, patience, Room(1000)), return_exceptions=True
        )

    *refused, fine = asyncio.run(both())
    assert [str(error) for error in refused] == ["The body did not arrive within 0.05 seconds."] * 3
    assert all(isinstance(error, BodyTooSlow) for error in refused)
    assert fine == b"abc"


def test_a_request_that_is_cancelled_for_another_reason_stays_cancelled() -> None:
    async def cancelled() -> None:
        reading = asyncio.ensure_future(read_body({}, waiting, 100, Patience(30), Room(1000)))
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading

    async def waiting() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    asyncio.run(cancelled())


@pytest.mark.parametrize(("encoding", "compress"), COMPRESS)
def test_compressed_bodies(encoding: str, compress: Any) -> None:  # noqa: ANN401
    plain = bytes(range(256)) * 4
    packed = compress(plain)
    assert inflate(packed, encoding, len(plain)) == plain
    assert inflate(bytearray(packed), encoding, len(plain)) == plain
    with pytest.raises(BodyTooLarge, match="inflated more than 1023 bytes"):
        inflate(packed, encoding, 1023)
    for cut in (0, 1, 5, len(packed) // 2, len(packed) - 1):
        with pytest.raises(MalformedBody, match=f"^The body('s {encoding} is cut| is no {encoding})"):
            inflate(packed[:cut], encoding, 10_000)
    with pytest.raises(MalformedBody, match=f"The body has 3 bytes behind the end of its {encoding}"):
        inflate(packed + b"abc", encoding, 10_000)
    with pytest.raises(MalformedBody, match=f"The body is no {encoding}: "):
        inflate(plain, encoding, 10_000)


@pytest.mark.parametrize(("encoding", "compress"), COMPRESS)
def test_a_bomb_takes_no_more_memory_than_the_limit(encoding: str, compress: Any) -> None:  # noqa: ANN401
    bomb = compress(bytes(100_000_000))
    with within(megabytes=3.8), pytest.raises(BodyTooLarge):
        inflate(bomb, encoding, 1_000_000)
