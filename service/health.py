"""``python -m service.health``: whether the service on this machine is ready, for an image without curl or a shell.

It asks in the words of the standard library alone, because a container's engine does so every few seconds.
"""

import http.client
import os
import sys
from collections.abc import Mapping

SECONDS = 3.0
"""How long the service may take to answer; shorter than the time the image's HEALTHCHECK has."""

LOOPBACK = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing listens here
"""Where a service that listens on every interface is asked."""

CERTIFICATE = "RADOGAGA_TLS_CERTIFICATE"
"""The variable that is set if the service speaks HTTPS."""

EXCERPT = 200
"""The most characters of an unexpected answer that are shown."""


class Unhealthy(Exception):
    """The service is not ready; the text says why."""


def main() -> int:
    """Asks, and returns the process's exit status: 0 if the service is ready, 1 with the reason on standard error."""
    try:
        host, port = address(os.environ)
        ask(host, port, encrypted=any(os.environ.get(name) for name in os.environ if name.upper() == CERTIFICATE))
    except Unhealthy as reason:
        print(reason, file=sys.stderr)
        return 1
    return 0


def address(environment: Mapping[str, str]) -> tuple[str, int]:
    """Returns the host and port that the service's settings name, a host that can be asked.

    Arguments:
        environment: The variables; RADOGAGA_HOST and RADOGAGA_PORT are read as the service reads them.

    Raises:
        Unhealthy: The port is no number from 1 to 65535. (Port 0 is a free one, and nobody else knows which.)
    """
    named = {name.upper(): value for name, value in environment.items()}
    host = named.get("RADOGAGA_HOST", "")
    port = named.get("RADOGAGA_PORT", "") or "8000"
    if not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
        raise Unhealthy(f"RADOGAGA_PORT is {port!r}, expected a number from 1 to 65535")
    return LOOPBACK.get(host, host), int(port)


def ask(host: str, port: int, seconds: float = SECONDS, encrypted: bool = False) -> None:
    """Returns if the service is ready.

    Arguments:
        host: Where it listens.
        port: Where it listens.
        seconds: How long each of connecting and answering may take.
        encrypted: Whether it speaks HTTPS. Its certificate is not verified: it need not hold for the loopback, and
            nothing secret is sent.

    Raises:
        Unhealthy: It is not there, too slow, speaks no HTTP, or is not ready.
    """
    connection = connect(host, port, seconds, encrypted)
    try:
        connection.request("GET", "/health/ready")
        answer = connection.getresponse()
        text = answer.read(EXCERPT).decode(errors="replace").strip()
    except TimeoutError:
        raise Unhealthy(f"{host}:{port} did not answer within {seconds:g} s") from None
    except (OSError, http.client.HTTPException) as error:
        raise Unhealthy(f"{host}:{port} can't be asked: {error!r}") from None
    finally:
        connection.close()
    if answer.status != http.client.OK:
        raise Unhealthy(f"{host}:{port} is not ready, status {answer.status}: {text}")


def connect(host: str, port: int, seconds: float, encrypted: bool) -> http.client.HTTPConnection:
    """Returns a connection that is still to be opened."""
    if not encrypted:
        return http.client.HTTPConnection(host, port, timeout=seconds)
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return http.client.HTTPSConnection(host, port, timeout=seconds, context=context)


if __name__ == "__main__":
    sys.exit(main())
