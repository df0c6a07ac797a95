"""Keeps what is served in step with the folder of models, for as long as the service runs."""

import asyncio
import logging
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from watchfiles import awatch

from service.catalog import Catalog
from service.inference import Service

logger = logging.getLogger(__name__)

SECONDS_WHILE_PENDING = 0.2
"""How soon a folder that may still be being copied is looked at again."""

DEBOUNCE_MS, STEP_MS = 100, 20
"""How long changes are waited for to become one, and how often is looked for the next."""


class Bell:
    """Wakes whoever follows the folder; to be used by one event loop.

    Attributes:
        retry: Whether it was rung by hand, so that what was refused is to be tried again.
    """

    def __init__(self) -> None:
        self._rung = asyncio.Event()
        self.retry = False

    def ring(self, retry: bool = False) -> None:
        """Rings."""
        self.retry = self.retry or retry
        self._rung.set()

    async def wait(self, seconds: float | None) -> bool:
        """Waits until it is rung, or for so many seconds; returns whether what was refused is to be tried again."""
        try:
            async with asyncio.timeout(seconds):
                await self._rung.wait()
        except TimeoutError:
            return False
        self._rung.clear()
        retry, self.retry = self.retry, False
        return retry


async def follow(service: Service, catalog: Catalog) -> None:
    """Serves what is new, and no longer what is gone, until it is cancelled.

    The folder is watched, looked at every `RADOGAGA_POLL_SECONDS`, for not every file system can be watched, and
    looked at on SIGHUP.
    """
    seconds, bell = service.settings.poll_seconds, Bell()
    watcher = asyncio.create_task(watch(service.settings.models, bell)) if seconds else None
    async with hanging_up(bell):
        try:
            while True:
                await follow_once(service, catalog, bell, seconds)
        finally:
            if watcher is not None:
                watcher.cancel()


async def follow_once(service: Service, catalog: Catalog, bell: Bell, seconds: float) -> None:
    """Waits for a change or a while, and serves what is there then; what fails is logged, and tried again later."""
    retry = await bell.wait(SECONDS_WHILE_PENDING if catalog.pending else seconds or None)
    loads = dict(catalog.loads)
    try:
        repository = await asyncio.to_thread(catalog.look, retry)
    except Exception:
        logger.exception("the models could not be looked at")
        return
    for result, count in catalog.loads.items():
        service.metrics.loads.add((result,), count - loads[result])
    if repository is not None:
        service.serve(repository)
        try:
            service.publish_metrics()  # what was counted of models that are gone
            service.metrics.follow(repository, catalog.fell_back(repository))
        except Exception:  # on a full disk, for example; the models are followed on
            logger.exception("the metrics could not be brought up to date")
        served = [f"{detector.manifest.dataset}/{detector.manifest.version}" for detector in repository]
        logger.info("serving", extra={"fields": {"models": served, "refused": len(repository.refusals)}})


async def watch(models: Path, bell: Bell) -> None:
    """Rings at every change in the folder; ends with a line in the log where it can't be watched."""
    try:
        async for _ in awatch(models, watch_filter=None, debounce=DEBOUNCE_MS, step=STEP_MS, recursive=True):
            bell.ring()
    except Exception as error:  # noqa: BLE001 - of whatever kind the operating system's is
        logger.warning("%s can't be watched, and is looked at now and then only: %s", models, error)


@asynccontextmanager
async def hanging_up(bell: Bell) -> AsyncIterator[None]:
    """Rings by hand on SIGHUP, in a process whose main thread this is."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, bell.ring, True)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # it is no reason to end sooner
