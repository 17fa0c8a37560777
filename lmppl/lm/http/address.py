"""Identifiers of served models: http://host:8000/v1#name."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from lmppl.errors import LmpplError
from lmppl.findings import servers as findings

API = "/v1"  # where the routes of OpenAI's interface are


@dataclass(frozen=True)
class Address:
    """Where a server is, and which of its models is asked for."""

    base: str  # with the path of the routes: http://host:8000/v1
    model: str | None  # None: its only one

    @property
    def origin(self) -> str:
        """Where a server has the routes that are its own."""
        return self.base.removesuffix(API)


def read_address(identifier: str) -> Address:
    """The address that an identifier is. Raises LmpplError where it is none; a user's name and
    password are no part of one.
    """
    try:
        parts = urlsplit(identifier)
        whole = bool(parts.hostname) and parts.port != 0 and parts.username is None
    except ValueError:  # a port that is no number, a bracket that is not closed
        raise LmpplError(findings.bad_address(identifier)) from None
    if not whole or parts.query or any(not c.isprintable() or c == " " for c in identifier):
        raise LmpplError(findings.bad_address(identifier))
    path = parts.path.rstrip("/") or API
    return Address(f"{parts.scheme}://{parts.netloc}{path}", unquote(parts.fragment) or None)
