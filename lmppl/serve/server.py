"""The server: a socket, an application, and an end that leaves nobody without an answer."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from socket import socket
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from lmppl.serve.app import Service, make_app
from lmppl.serve.settings import Serving

if TYPE_CHECKING:
    from lmppl.serve.programs import Served

KEPT = 30  # seconds that a connection may be idle
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Server(uvicorn.Server):
    """One that says when it listens, and hurries what is under way when it is to end."""

    def __init__(self, config: uvicorn.Config, listening: Callable[[], None], service: Service):
        super().__init__(config)
        self._listening, self._service = listening, service

    async def startup(self, sockets: list[socket] | None = None) -> None:
        await super().startup(sockets)
        self._listening()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals end the service, and are not raised again afterwards: it has ended then."""
        if threading.current_thread() is not threading.main_thread():
            yield  # signals are not its own there: `end` ends it
            return
        before = {number: signal.signal(number, self.handle_exit) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        self.end()

    def end(self) -> None:
        """Take no more requests, and end when those under way have their answers, or `grace` is
        over. May be called from any thread.
        """
        self._service.batcher.hurry(self._service.serving.grace)
        self.should_exit = True

    def answer(self, bound: socket) -> None:
        """Listen at a socket that is bound, and answer until the end."""
        asyncio.run(self.serve([bound]))


def make_server(
    programs: Mapping[str, Served], serving: Serving, listening: Callable[[], None]
) -> Server:
    """What answers until a signal ends it: SIGTERM or Ctrl-C, a second one at once.

    listening: is called when the port is open. Requests under way have `serving.grace` seconds at
    the end, and get what is there by then.
    """
    service = Service(programs, serving)
    config = uvicorn.Config(
        make_app(service), http="h11", ws="none", loop="asyncio", lifespan="on", log_config=None,
        access_log=False, server_header=False, timeout_keep_alive=KEPT, proxy_headers=False,
        timeout_graceful_shutdown=int(serving.grace) + 5,
    )  # fmt: skip
    return Server(config, listening, service)
