"""The routes of a service, from a request to its reply. No reply holds what a terminal would take
for more than text.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from secrets import randbits
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from lmppl.data import Row
from lmppl.errors import did_you_mean
from lmppl.posterior import finite
from lmppl.screen import visible_json
from lmppl.serve.answers import row_document
from lmppl.serve.batching import Batcher
from lmppl.serve.bodies import read_object
from lmppl.serve.errors import Refused, of_error
from lmppl.serve.fields import Common
from lmppl.serve.gate import read_body, require_allowed
from lmppl.serve.inference import Answered
from lmppl.serve.metrics import MEDIA_TYPE, Metrics
from lmppl.serve.programs import Served
from lmppl.serve.replies import reply
from lmppl.serve.requests import Question, chat, completion, make_row, rows_asked, values_of
from lmppl.serve.schema import model_document
from lmppl.serve.settings import Serving

Handler = Callable[[Request], Awaitable[Response]]
ASKED = "the request"  # a row's name, where findings speak of it


@dataclass
class Service:
    """Programs that are served, under the limits that the service was started with."""

    programs: Mapping[str, Served]
    serving: Serving
    metrics: Metrics = field(default_factory=Metrics)
    started: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        self.batcher = Batcher(self.serving, self.metrics)

    # --- routes -----------------------------------------------------------------------------------

    async def health(self, request: Request) -> Response:
        """That the process is there."""
        return _json({"status": "ok"})

    async def ready(self, request: Request) -> Response:
        """Whether asks are taken."""
        if not self.batcher.ready:
            raise Refused(503, "stopping", "the service takes no more requests")
        return _json({"status": "ready", "programs": [*self.programs]})

    async def figures(self, request: Request) -> Response:
        """The metrics, in Prometheus' form."""
        return Response(self.metrics.text(), media_type=MEDIA_TYPE)

    async def models(self, request: Request) -> Response:
        """Every program, as a model."""
        data = [model_document(served, self.started) for served in self.programs.values()]
        return _json({"object": "list", "data": data})

    async def model(self, request: Request) -> Response:
        """One program, as a model."""
        return _json(model_document(self._program(request.path_params["name"]), self.started))

    async def chat_completions(self, request: Request) -> Response:
        """A text for the last message."""
        return await self._complete(request, chat, True)

    async def completions(self, request: Request) -> Response:
        """A text for a prompt."""
        return await self._complete(request, completion, False)

    async def systemone(self, request: Request) -> Response:
        """Probabilities of the answers of rows."""
        asked, values = rows_asked(read_object(await read_body(request, self.serving)))
        served = self._program(asked.model)
        rows = [make_row(served, row, f"row {number}") for number, row in enumerate(values, 1)]
        seed = self._seed(asked)
        answers = await self._infer(request, served, rows, seed, asked)
        if all(isinstance(one, Refused) for one in answers):
            (first, *_) = [one for one in answers if isinstance(one, Refused)]
            raise first
        found = [
            one.document() if isinstance(one, Refused) else row_document(served, one, seed)
            for one in answers
        ]
        return _json({"object": "systemone", "program": served.name, "rows": found})

    # --- what they share --------------------------------------------------------------------------

    async def _complete(
        self, request: Request, read: Callable[[Mapping[str, Any]], Question], is_chat: bool
    ) -> Response:
        question = read(read_object(await read_body(request, self.serving)))
        asked = question.common
        served = self._program(asked.model)
        values, said = values_of(question, served)
        row, seed = make_row(served, values, ASKED), self._seed(asked)
        (found,) = await self._infer(request, served, [row], seed, asked)
        if isinstance(found, Refused):
            raise found
        if not found.law:
            raise Refused(422, "no_support", "every draw was impossible")
        made = reply(served, found, asked, seed, [*asked.warnings, *said], is_chat)
        if asked.stream:
            text = "".join(made.stream(asked.usage))
            return Response(text, media_type="text/event-stream")
        return _json(made.document())

    def _program(self, name: str) -> Served:
        """The program of this name. Raises Refused where there is none."""
        if name not in self.programs:
            help = did_you_mean(name, self.programs) if len(name) < 100 else None
            message = f"there is no model {name!r:.100}{f': {help}' if help else ''}"
            raise Refused(404, "model_not_found", message, "model")
        return self.programs[name]

    def _seed(self, asked: Common) -> int:
        """What a request says, else the service's, else one of its own."""
        if asked.seed is not None:
            return asked.seed
        return randbits(32) if self.serving.seed is None else self.serving.seed

    async def _infer(
        self, request: Request, served: Served, rows: list[Row], seed: int, asked: Common
    ) -> list[Answered | Refused]:
        """What is found for rows, unless who asks hangs up first."""
        until = self.serving.until if asked.until is None else asked.until
        asking = asyncio.ensure_future(self.batcher.ask(served, rows, seed, until))
        leaving = asyncio.ensure_future(_left(request))
        try:
            await asyncio.wait([asking, leaving], return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                raise ClientDisconnect
            found = asking.result()
        finally:
            for task in (asking, leaving):
                task.cancel()
        for one in found:
            if isinstance(one, Answered):
                self.metrics.count(served.name, one)
        return found

    def _guarded(self, route: str, handler: Handler, free: bool) -> Handler:
        """A route behind the gate, whose errors are replies. free: everybody may ask it."""

        async def answer(request: Request) -> Response:
            started = time.perf_counter()
            try:
                if not free:
                    require_allowed(request, self.serving)
                response = await handler(request)
            except ClientDisconnect:
                response = Response(status_code=499)
            except Exception as reason:
                response = _refusal(of_error(reason))
            self.metrics.requests.labels(route, str(response.status_code)).inc()
            self.metrics.seconds.labels(route).observe(time.perf_counter() - started)
            return response

        return answer

    def routes(self) -> list[Route]:
        """All of them."""
        table: list[tuple[str, str, Handler, bool]] = [
            ("GET", "/health", self.health, True),
            ("GET", "/ready", self.ready, True),
            ("GET", "/metrics", self.figures, False),
            ("GET", "/v1/models", self.models, False),
            ("GET", "/v1/models/{name}", self.model, False),
            ("POST", "/v1/chat/completions", self.chat_completions, False),
            ("POST", "/v1/completions", self.completions, False),
            ("POST", "/v1/systemone", self.systemone, False),
        ]
        return [
            Route(path, self._guarded(path, handler, free), methods=[method])
            for method, path, handler, free in table
        ]


def make_app(service: Service) -> Starlette:
    """The application, which works from its start to its end."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        service.batcher.open()
        yield
        await service.batcher.close()

    async def elsewhere(request: Request, reason: Exception) -> Response:
        assert isinstance(reason, HTTPException)
        code = {404: "not_found", 405: "method_not_allowed"}.get(reason.status_code, "refused")
        return _refusal(Refused(reason.status_code, code, reason.detail))

    handlers = {HTTPException: elsewhere}
    return Starlette(routes=service.routes(), lifespan=lifespan, exception_handlers=handlers)


async def _left(request: Request) -> None:
    """Wait until who asks hangs up."""
    while not await request.is_disconnected():
        await asyncio.sleep(0.1)


def _json(document: Mapping[str, Any], status: int = 200, headers: Any = None) -> Response:
    text = visible_json(finite(document))
    return Response(text, status, headers=headers, media_type="application/json")


def _refusal(refused: Refused) -> Response:
    return _json(refused.document(), refused.status, refused.headers)
