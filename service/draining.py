"""The end in good order: not ready first, then no new connections, then no more."""

import asyncio
import logging
import signal
import threading
from types import FrameType

from service.inference import Service

logger = logging.getLogger(__name__)


def drain_on_sigterm(service: Service) -> None:
    """Lets SIGTERM make the service unready first, and end it when balancers had time to hear of it.

    Meanwhile requests are answered as before, but for `connection: close`. A second SIGTERM ends it at once, and so
    does SIGINT. What ends it is the handler that was there, the server's; where there is none, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    end, loop = signal.getsignal(signal.SIGTERM), asyncio.get_running_loop()
    if not callable(end):
        return

    def drain(number: int, frame: FrameType | None) -> None:
        if service.draining or not service.settings.drain_seconds:
            end(number, frame)
        else:
            service.draining = True
            loop.call_soon_threadsafe(loop.call_later, service.settings.drain_seconds, end, number, None)

    signal.signal(signal.SIGTERM, drain)
