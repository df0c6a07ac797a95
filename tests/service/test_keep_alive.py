"""One timer per connection closes it when it was idle long enough, and never while it is in use."""

import asyncio
import time

import uvicorn
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from uvicorn.server import ServerState

from service.app import create_app
from service.lane import LaneProtocol
from service.settings import Settings

IDLE = 0.4
GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


async def seconds_until_closed(pauses: list[float]) -> float:
    """Sends requests with pauses between them, and returns the seconds from the last answer to the end."""
    # uvicorn's type has whole seconds; its timer takes any
    app = Starlette(routes=[Route("/", lambda _: PlainTextResponse("yes"))])
    app.state.service = create_app(Settings()).state.service
    config = uvicorn.Config(app, http=LaneProtocol, ws="none", proxy_headers=False, timeout_keep_alive=IDLE)  # type: ignore[arg-type]
    config.load()
    state, loop = ServerState(), asyncio.get_running_loop()

    def protocol() -> LaneProtocol:
        return LaneProtocol(config=config, server_state=state, app_state={})

    server = await loop.create_server(protocol, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    for pause in pauses:
        await asyncio.sleep(pause)
        writer.write(GET)
        await reader.readuntil(b"yes")
    answered = time.monotonic()
    rest = await asyncio.wait_for(reader.read(), 10)
    assert rest == b""
    writer.close()
    server.close()
    assert state.total_requests == len(pauses)
    return time.monotonic() - answered


def test_an_idle_connection_is_closed() -> None:
    assert asyncio.run(seconds_until_closed([0])) >= IDLE * 0.95


def test_a_connection_in_use_is_not() -> None:
    """The timer goes off several times meanwhile, and the last answer counts."""
    assert asyncio.run(seconds_until_closed([IDLE * 0.7] * 5)) >= IDLE * 0.95
