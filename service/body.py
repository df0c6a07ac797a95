"""A request's body: bytes as they arrive, in bounded time and memory, inflated if they are compressed."""

import asyncio
import sys
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from service.errors import BodyTooLarge, BodyTooSlow, MalformedBody, Overloaded, UnsupportedEncoding
from service.formats.rows import Body
from service.quotes import shorten

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ZLIB_WBITS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
"""What tells zlib which header and checksum to expect: gzip's, or its own, which is what HTTP calls deflate."""

WINDOW: dict[int, int] = {zstd.DecompressionParameter.window_log_max: 23}
"""The memory that zstd may ask for beside the result: 8 MiB, which is what RFC 9659 lets HTTP's clients count on."""

ENCODINGS = ("gzip", "deflate", "zstd")

QUICK_BYTES = 2**18
"""What a body may inflate to on the event loop."""

SECONDS_BETWEEN_LOOKS = 0.25
"""How long a body may be late before it is noticed."""


@dataclass(slots=True)
class Patience:
    """Ends the reading of bodies that take too long.

    One timer looks after all of them: a timer for each, as `asyncio.timeout` has, costs more than reading most bodies.

    Attributes:
        seconds: The time a body has to arrive.
    """

    seconds: float
    _reading: dict[asyncio.Task[object], float] = field(default_factory=dict)
    _late: set[asyncio.Task[object]] = field(default_factory=set)
    _looking: bool = False

    def begin(self, task: asyncio.Task[object]) -> None:
        """Notes that a task begins to wait for a body."""
        loop = asyncio.get_running_loop()
        self._reading[task] = loop.time() + self.seconds
        if not self._looking:
            self._looking = True
            loop.call_later(min(SECONDS_BETWEEN_LOOKS, self.seconds), self._look)

    def end(self, task: asyncio.Task[object]) -> bool:
        """Notes that a task waits no longer, and returns whether it was cancelled for taking too long."""
        self._reading.pop(task, None)
        late = task in self._late
        self._late.discard(task)
        return late

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for task in [task for task, deadline in self._reading.items() if deadline <= now]:
            del self._reading[task]
            self._late.add(task)
            task.cancel()
        self._looking = bool(self._reading)
        if self._looking:
            loop.call_later(min(SECONDS_BETWEEN_LOOKS, self.seconds), self._look)


class Room:
    """Counts the bytes of bodies that are held at once, so that many of them together don't take all memory.

    Arguments:
        limit: How many there may be.

    Attributes:
        taken: How many there are.
        inflating: Held by the one body that is inflated in a thread.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0
        self.inflating = asyncio.Lock()

    def take(self, length: int) -> None:
        """Counts bytes, which whoever calls this gives back.

        Raises:
            Overloaded: There would be too many.
        """
        if self.taken + length > self.limit:
            raise Overloaded(self.limit, "bytes of bodies may be held")
        self.taken += length


async def read_body(
    headers: Mapping[bytes, bytes], receive: Receive, limit: int, patience: Patience, room: Room
) -> Body:
    """Reads a body, and inflates it if its header says that it is compressed.

    Its bytes are taken off `room`, and given back if it ends in an error; else the caller gives them back.

    Raises:
        UnsupportedEncoding: It is compressed in another way.
        BodyTooLarge: It is longer than the limit, by its header, by its bytes or once it is inflated.
        BodyTooSlow: It takes longer to arrive.
        MalformedBody: It can't be inflated.
        ClientDisconnect: The client hung up.
        Overloaded: There is no room for it beside the other bodies.
    """
    encoding = headers.get(b"content-encoding", b"identity").decode("latin-1").lower()
    if encoding not in (*ENCODINGS, "identity"):
        raise UnsupportedEncoding(encoding, ENCODINGS)
    declared = headers.get(b"content-length", b"").decode("latin-1").lstrip("0")
    if len(declared) > len(str(limit)) or (declared.isdecimal() and int(declared) > limit):
        raise BodyTooLarge(shorten(declared), limit)
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("a body is read outside of any task")
    patience.begin(task)
    try:
        body = await _receive_all(receive, limit, room)
    except asyncio.CancelledError:
        if patience.end(task):
            task.uncancel()
            raise BodyTooSlow(patience.seconds) from None
        raise
    finally:
        patience.end(task)
    if encoding == "identity":
        return body
    try:
        inflated = await _inflate_aside(body, encoding, limit, room)
    finally:
        room.taken -= len(body)
    room.take(len(inflated))
    return inflated


async def _inflate_aside(body: Body, encoding: str, limit: int, room: Room) -> bytes:
    """Inflates a body, one that gets long in a thread, one after the other: 32 kB may take a tenth of a second."""
    try:
        return inflate(body, encoding, min(limit, QUICK_BYTES))
    except BodyTooLarge:
        if limit <= QUICK_BYTES:
            raise
    async with room.inflating:
        return await asyncio.to_thread(inflate, body, encoding, limit)


async def _receive_all(receive: Receive, limit: int, room: Room) -> Body:
    body: Body = b""
    try:
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            part: bytes = message.get("body", b"")
            if len(body) + len(part) > limit:
                raise BodyTooLarge(f"more than {limit}", limit)
            room.take(len(part))
            more = message.get("more_body", False)
            if not body:  # most come in one part, which is not copied
                body = bytearray(part) if more else part
            else:
                body += part
            if not more:
                return body
    except BaseException:
        room.taken -= len(body)
        raise


def inflate(body: Body, encoding: str, limit: int) -> bytes:
    """Inflates a body, and never to more than the limit.

    Raises:
        BodyTooLarge: It would be longer.
        MalformedBody: It is not what its encoding says, is cut, or has something behind its end.
    """
    wbits = ZLIB_WBITS.get(encoding)
    inflater = zlib.decompressobj(wbits) if wbits else zstd.ZstdDecompressor(options=WINDOW)
    try:
        inflated = inflater.decompress(body, limit + 1)
    except (zlib.error, zstd.ZstdError, EOFError) as error:
        raise MalformedBody(f"The body is no {encoding}: {error}.") from None
    if len(inflated) > limit:
        raise BodyTooLarge(f"inflated more than {limit}", limit)
    if not inflater.eof:
        raise MalformedBody(f"The body's {encoding} is cut.")
    if inflater.unused_data:
        raise MalformedBody(f"The body has {len(inflater.unused_data)} bytes behind the end of its {encoding}.")
    return inflated
