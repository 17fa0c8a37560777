"""What every request passes first: who may ask, from where, and bodies of a size that come in
time.
"""

from __future__ import annotations

import asyncio
import hmac

from starlette.requests import Request

from lmppl.serve.errors import Refused
from lmppl.serve.settings import LOOPBACK, Serving


def require_allowed(request: Request, serving: Serving) -> None:
    """Raise Refused for a request without the token. Without one, only those that name this machine
    are answered: a page in a browser that is sent here under another name is none of ours.
    """
    if serving.token is None:
        if _named(request.headers.get("host", "")) not in LOOPBACK:
            raise Refused(403, "bad_host", "the service answers to the name of this machine alone")
        return
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    own = hmac.compare_digest(token.strip().encode(), serving.token.encode())
    if kind.lower() != "bearer" or not own:
        raise Refused(401, "invalid_api_key", "the service's token is missing, or is another")


def _named(host: str) -> str:
    """The name in a Host header, without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()


async def read_body(request: Request, serving: Serving) -> bytes:
    """The body of a request. Raises Refused where it is too large, too slow, or no JSON by its
    kind.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":  # a page of another site cannot send this without asking
        raise Refused(415, "not_json", "the body's content type is not application/json")
    announced = request.headers.get("content-length", "0")
    if not announced.isdecimal() or int(announced[:20]) > serving.max_body:
        raise _too_large(serving)
    try:
        async with asyncio.timeout(serving.body_timeout):
            return await _read(request, serving)
    except TimeoutError:
        message = f"the body was not here within {serving.body_timeout:g} s"
        raise Refused(408, "slow_body", message) from None


async def _read(request: Request, serving: Serving) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        parts.append(part)
        size += len(part)
        if size > serving.max_body:
            raise _too_large(serving)
    return b"".join(parts)


def _too_large(serving: Serving) -> Refused:
    message = f"the body is larger than {serving.max_body:,} bytes"
    return Refused(413, "body_too_large", message)
