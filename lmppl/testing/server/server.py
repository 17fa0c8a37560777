"""A server on this machine: `with FakeServer(model) as server:` and `server.url` is its address."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from lmppl.lm import LanguageModel
from lmppl.testing.server.questions import Refused
from lmppl.testing.server.replies import COMPLETIONS, MOST_LOGPROBS, Load, Replies
from lmppl.testing.server.traps import Traps


class FakeServer:
    """A language model behind HTTP, as vLLM would serve it; and what it does wrong.

    It listens on 127.0.0.1, at a port of its own, between `start` and `stop`. `requests` are the
    path and the body of each request, as they came.
    """

    def __init__(
        self,
        model: LanguageModel,
        traps: Traps | None = None,
        *,
        name: str = "fake",
        adapters: Mapping[str, LanguageModel] | None = None,
        load: Load | None = None,
        key: str | None = None,
        most_logprobs: int = MOST_LOGPROBS,
    ) -> None:
        """model: a Decoder, which tells whole laws. name: what requests call it. adapters: models
        by their names, with its tokenizer. load: from the path of an adapter to its model, for
        /v1/load_lora_adapter. key: what clients have to send. most_logprobs: alternatives a token
        at most; −1 for all.
        """
        self.traps, self.name, self.key, self.port = traps or Traps(), name, key, 0
        self.replies = Replies(model, self.traps, name, dict(adapters or {}), load, most_logprobs)
        self.requests: list[tuple[str, Any]] = []
        self._lock = threading.Lock()
        self._asked, self._answered = 0, 0  # completions
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        """Where it listens, as a program writes it."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def identifier(self) -> str:
        """Its model, as a program writes it."""
        return f"{self.url}#{self.name}"

    @property
    def is_alive(self) -> bool:
        """Whether it listens."""
        return self._server is not None

    def start(self) -> Self:
        """Listen, at the port that it had before if it had one."""

        class Handler(_Handler):
            owner = self

        server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        server.daemon_threads = True
        self._server, self.port = server, server.server_address[1]
        listening = {"poll_interval": 0.02}
        threading.Thread(target=server.serve_forever, kwargs=listening, daemon=True).start()
        return self

    def stop(self) -> None:
        """Listen no more. What is being answered gets no answer."""
        with self._lock:
            server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()

    def revive(self) -> None:
        """Begin again at the same port, where it has died."""
        self.stop()
        self._answered = 0
        self.start()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *reason: object) -> None:
        self.stop()

    def admits(self, path: str, authorization: str | None) -> bool:
        """Whether a request is to be answered: False where the server dies of it. Raises Refused
        where it fails.
        """
        time.sleep(self.traps.slow)
        guarded = self.key is not None and path.startswith("/v1/")
        if guarded and authorization != f"Bearer {self.key}":
            raise Refused("Unauthorized", status=401, kind="AuthenticationError")
        if path != COMPLETIONS:
            return self.is_alive
        with self._lock:
            self._asked += 1
            every, most = self.traps.fails_every, self.traps.dies_after
            if every is not None and self._asked % every == 0:
                raise Refused("EngineCore failed", status=500, kind="InternalServerError")
            if most is not None and self._answered >= most:
                return False
            self._answered += 1
        return self.is_alive


class _Handler(BaseHTTPRequestHandler):
    """Requests of one connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    owner: FakeServer

    def do_GET(self) -> None:
        self._handle(None)

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            body = json.loads(raw)
        except ValueError:
            self._send(400, Refused("Invalid JSON body").document)
            return
        self._handle(body)

    def _handle(self, body: Any) -> None:
        owner, path = self.owner, self.path.partition("?")[0]
        owner.requests.append((path, body))
        try:
            if not owner.admits(path, self.headers.get("Authorization")):
                self.close_connection = True
                owner.stop()
                return
            status, answer = 200, owner.replies.answer(path, body)
        except Refused as reason:
            status, answer = reason.status, reason.document
        if owner.is_alive:
            self._send(status, answer)
        else:  # it has died meanwhile
            self.close_connection = True

    def _send(self, status: int, answer: Any) -> None:
        plain = isinstance(answer, str)
        content = (answer if plain else json.dumps(answer)).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "text/plain" if plain else "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        except OSError:  # the client has gone
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is said: tests ask for `requests`."""
