"""What a service is told when it starts: where it listens, who may ask, and its limits."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Annotated

from lmppl.errors import LmpplError
from lmppl.findings import serving as findings
from lmppl.settings import Count, Range, Seed

LOOPBACK = ("localhost", "127.0.0.1", "::1")
PACKAGES = ("starlette", "uvicorn", "prometheus_client")
Wait = Annotated[float, Range(0, 86_400, open_low=True)]  # seconds


@dataclass(frozen=True)
class Serving:
    """Limits and habits of a service. Times are seconds."""

    token: str | None = None  # what requests must bring; None: everybody is answered
    timeout: Wait = 60.0  # from the arrival of a request until it has its answer
    max_body: Count = 1_000_000  # bytes of a request
    body_timeout: Wait = 10.0  # until a request's body is here
    window: Annotated[float, Range(0, 10)] = 0.005  # that the first request waits for others
    max_batch: Count = 64  # rows of one inference
    max_queue: Count = 1024  # rows that wait or are inferred
    grace: Wait = 10.0  # for what is under way when the service is to end
    # standard error that an answer's probabilities are to have; None: one round
    until: Annotated[float, Range(0, 0.5, open_low=True, open_high=True)] | None = None
    seed: Seed | None = None  # of requests that name none; None: each has its own


def require_packages() -> None:
    """Raise LmpplError where a package that serves is not installed."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise LmpplError(findings.cannot_serve(missing))


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def open_socket(host: str, port: int, token: str | None) -> socket.socket:
    """A socket that is bound and does not listen yet. port: 0 for any that is free. Raises
    LmpplError where others could reach it without a token, or the address cannot be had.
    """
    if token is None and not is_loopback(host):
        raise LmpplError(findings.open_to_all(host))
    try:
        return _bound(host, port)
    except (OSError, ValueError) as reason:
        said = reason.strerror if isinstance(reason, OSError) else str(reason)
        raise LmpplError(findings.no_address(host, port, said or str(reason))) from None


def _bound(host: str, port: int) -> socket.socket:
    """A socket at an address. Raises OSError or ValueError."""
    if not 0 <= port < 2**16:
        raise ValueError("ports are numbers from 0 to 65535")
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound
