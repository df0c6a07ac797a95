"""Several processes on one port, each with all models, kept alive by uvicorn's supervisor."""

import logging
import multiprocessing
import os
import signal
import socket
import ssl
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any, NoReturn

import uvicorn
from fastapi import FastAPI
from prometheus_client import multiprocess
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from service.app import create_app
from service.errors import StartError
from service.logs import configure_logging
from service.metrics import METRICS_FOLDER
from service.settings import Settings
from service.tls import https
from service.trimming import ONE_ARENA

logger = logging.getLogger(__name__)


class Listener(socket.socket):
    """A port that every worker opens for itself.

    Workers that share one listening socket take connections as they please, and one of them often takes nearly all.
    With a socket for each the kernel deals connections out. This one only holds the port.
    """

    @classmethod
    def hold(cls, host: str, port: int) -> "Listener":
        """Returns a listener that holds a port, a free one for 0.

        Raises:
            OSError: The address is taken, or is none of this machine's.
        """
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = cls(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            listener.bind(address)
        except OSError:
            listener.close()
            raise
        return listener

    def __reduce__(self) -> Any:  # noqa: ANN401 - pickle's
        host, port, *_ = self.getsockname()
        return Listener.hold, (host, port)


WORKER_SECONDS = 30
"""How long a worker may give no sign of life, as while it starts on a busy machine, before another takes its place."""


class Workers(Multiprocess):
    """uvicorn's supervisor, which also forgets the gauges of workers that ended, and ends sooner if asked again."""

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket]) -> None:
        super().__init__(config, sockets)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.end)

    def end(self, number: int, _: FrameType | None) -> None:
        """Ends the workers; SIGINT, and whatever comes second, is passed on to them, so that they don't drain."""
        if number == signal.SIGINT or self.should_exit.is_set():
            self.pass_on(number)
        self.should_exit.set()

    def pass_on(self, number: int) -> None:
        """Sends every worker a signal."""
        for process in self.processes:
            if process.pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, number)

    def handle_hup(self) -> None:
        """Has every worker look for new models; uvicorn would start all of them anew."""
        self.pass_on(signal.SIGHUP)

    def keep_subprocess_alive(self) -> None:
        """Starts workers anew that died or hang."""
        before = {process.pid for process in self.processes}
        super().keep_subprocess_alive()
        for pid in before - {process.pid for process in self.processes}:
            multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]


def serve_by_workers(config: uvicorn.Config, number: int) -> int:
    """Serves by several processes until SIGTERM or SIGINT; returns 0, or 1 if they could not start."""
    config.workers, config.timeout_worker_healthcheck = number, WORKER_SECONDS
    try:
        listener = Listener.hold(config.host, config.port)
    except OSError as error:
        print(f"the service did not start: {config.host}:{config.port}: {error.strerror}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="radogaga-metrics-") as folder, listener:
        os.environ[METRICS_FOLDER] = folder
        os.environ |= ONE_ARENA  # a worker has threads before it has an application
        host, port, *_ = listener.getsockname()
        scheme = "https" if config.is_ssl else "http"
        logger.info("%d workers on %s://%s:%d", number, scheme, f"[{host}]" if ":" in host else host, port)
        workers = Workers(config, [listener])
        workers.run()
    return 1 if any(process.exitcode == STARTUP_FAILURE for process in workers.processes) else 0


def application() -> FastAPI:
    """Builds the application of a worker, which takes its settings from the environment as the first process does."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the models are followed
    settings = Settings()
    configure_logging(settings.log_level)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=follow, args=(parent,), daemon=True).start()
    try:
        return create_app(settings, on_start_error=give_up, ready_first=True)
    except StartError as error:
        give_up(error)


def encrypted(_: uvicorn.Config, __: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    """Returns how this process encrypts its connections, or ends it if it can't."""
    try:
        context = https(Settings())
    except StartError as error:
        give_up(error)
    if context is None:
        give_up(StartError("RADOGAGA_TLS_CERTIFICATE is not set any more"))
    return context


def follow(parent: BaseProcess) -> None:
    """Ends this worker in good order once the process that started it is gone, however it ended."""
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def give_up(error: StartError) -> NoReturn:
    """Ends a worker in the way that tells its supervisor not to try again."""
    print(f"the service did not start: {error}", file=sys.stderr, flush=True)
    os._exit(STARTUP_FAILURE)
