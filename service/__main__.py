"""``python -m service``: serves the models until SIGTERM or SIGINT, and then finishes what is under way.

``python -m service score`` scores tables in files instead, ``threshold`` changes a threshold, ``key`` keeps the file
of API keys, and ``keygen`` and ``sign`` deal with signatures.
"""

import argparse
import logging
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

import uvicorn
from fastapi import FastAPI
from pydantic import ValidationError

from service.access import Access
from service.app import create_app
from service.commands import key, threshold
from service.commands.sign import SIGNING, add_signing
from service.connections import allow_files
from service.errors import StartError
from service.lane import LaneProtocol
from service.logs import configure_logging
from service.offline.arguments import DESCRIPTION, add_arguments
from service.settings import Settings
from service.tls import HEADER as HSTS
from service.tls import https
from service.trimming import share_one_arena
from service.workers import encrypted, serve_by_workers

logger = logging.getLogger("service")

SECURITY_HEADERS = [
    ("x-content-type-options", "nosniff"),  # no browser takes an answer for anything but what it is declared as
    ("cache-control", "no-store"),  # scores are their client's alone
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
]
"""What the header of every answer says to browsers and caches."""


def main() -> int:
    """Runs the service and returns the process's exit status: 0, or another if it could not start."""
    parser = argparse.ArgumentParser(prog="python -m service", description="Serve the models until SIGTERM.")
    parser.add_argument("--workers", metavar="N", help="processes that serve; overrides RADOGAGA_WORKERS")
    commands = parser.add_subparsers(dest="command", title="commands")
    score = commands.add_parser("score", help="score tables in files, without serving", description=DESCRIPTION)
    add_arguments(score)
    threshold.add_arguments(commands.add_parser(threshold.NAME, help=threshold.HELP, description=threshold.DESCRIPTION))
    add_signing(commands)
    key.add_arguments(commands.add_parser(key.NAME, help=key.HELP, description=key.DESCRIPTION))
    options = parser.parse_args()
    if options.workers is not None:
        os.environ["RADOGAGA_WORKERS"] = options.workers
    try:
        settings = Settings()
    except ValidationError as error:
        for problem in error.errors():
            name = f"RADOGAGA_{problem['loc'][0]}".upper()
            print(f"{name} is {problem['input']!r}: {problem['msg']}", file=sys.stderr)
        return 1
    if options.command in SIGNING:
        return SIGNING[options.command](options)
    if options.command == "score":
        return score_tables(options, settings)
    if options.command == threshold.NAME:
        return threshold.run(options, settings)
    if options.command == key.NAME:
        return key.run(options, settings)
    configure_logging(settings.log_level)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the models are followed
    warn_of_unknown_variables()
    try:
        https(settings)
        if settings.keys:
            Access(settings.keys)
    except StartError as error:
        print(f"the service did not start: {error}", file=sys.stderr)
        return 1
    allow_files(settings.max_connections)
    if settings.workers > 1:
        return serve_by_workers(configuration("service.workers:application", settings, factory=True), settings.workers)
    return serve(settings)


def score_tables(options: argparse.Namespace, settings: Settings) -> int:
    """Scores tables; what that needs and serving doesn't is imported only now."""
    from service.offline.commands import run

    return run(options, settings)


def configuration(app: FastAPI | str, settings: Settings, factory: bool = False) -> uvicorn.Config:
    """Returns how uvicorn serves the application."""
    return uvicorn.Config(
        app,
        factory=factory,
        http=LaneProtocol,
        loop="service.tls:loop" if settings.tls_certificate else "auto",
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # they would let any client on this machine choose the address that is logged
        ws="none",
        headers=[*SECURITY_HEADERS, HSTS] if settings.tls_certificate else [*SECURITY_HEADERS],
        ssl_context_factory=encrypted if settings.tls_certificate else None,
        timeout_graceful_shutdown=settings.shutdown_seconds,
    )


def serve(settings: Settings) -> int:
    """Serves in this process; returns 0, or 1 if it could not start."""
    failures: list[StartError] = []
    share_one_arena()

    def stop(error: StartError) -> None:
        failures.append(error)
        server.should_exit = True

    server = uvicorn.Server(configuration(create_app(settings, on_start_error=stop), settings))
    for number in (signal.SIGINT, signal.SIGTERM):  # uvicorn raises them once more when all is done
        signal.signal(number, leave)
    server.run()
    for failure in failures:
        print(f"the service did not start: {failure}", file=sys.stderr)
    return 1 if failures or not server.started else 0


def leave(_: int, __: FrameType | None) -> NoReturn:
    """Ends the process; to be asked to is no failure."""
    sys.exit(0)


def warn_of_unknown_variables() -> None:
    """Logs variables RADOGAGA_* that no setting reads, for they may be misspelt."""
    known = {f"RADOGAGA_{name}".upper() for name in Settings.model_fields} | {"RADOGAGA_DATA"}
    for name in sorted(os.environ):
        if name.upper().startswith("RADOGAGA_") and name.upper() not in known:
            logger.warning("%s is no setting and is ignored; the settings are %s", name, ", ".join(sorted(known)))


if __name__ == "__main__":
    sys.exit(main())
