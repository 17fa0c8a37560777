"""Requests to one server, many in flight together; where it does not answer, they are sent again.

A request is the same each time, seed included, so that what comes back is what would have come. A
server that is silent is waited for. One that comes back has to be the same as before.
"""

from __future__ import annotations

import asyncio
import json
import time
import weakref
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx2

from lmppl.errors import Diagnostic, LmpplError, Lost, first_line
from lmppl.findings import servers as findings
from lmppl.lm.http.background import background
from lmppl.lm.http.completions import Asked
from lmppl.lm.http.room import Room
from lmppl.shapes import Document

MOST_TOKENS = 8192  # in flight: larger batches of seeded rows have ended servers
MOST_REQUESTS = 256  # in flight
PATIENCE = 300.0  # seconds that a silent server is waited for
FIRST_PATIENCE = 20.0  # and one that has never answered, whose address may be wrong
ANSWER_SECONDS = 600.0  # after which a request is sent again
CONNECT_SECONDS = 10.0
IDLE_SECONDS = 2.0  # servers close idle connections after five
QUIET_SECONDS = 1.0  # of silence, before it is told of
PAUSES = (0.1, 0.5, 1.0, 2.0)  # seconds between attempts, the last again and again
SUSPECT, GUILTY = 2, 4  # times that a server breaks on a request: it is then sent alone; no more
AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})  # status of a server that may recover
BUSY = frozenset({425, 429, 503})  # of one that has not broken
Tell = Callable[[str], None]
Recognise = Callable[["Wire"], Awaitable[None]]  # raises LmpplError where a server is another one


@dataclass
class _Failure(Exception):
    """A request has no answer. broke: while the server was at it."""

    reason: str
    broke: bool


@dataclass
class _GivenUp(Exception):
    """A server has been silent for too long. A loop takes no KeyboardInterrupt, which Lost is."""

    finding: Diagnostic


class Wire:
    """One server, over HTTP."""

    def __init__(
        self, base: str, key: str | None, tell: Tell, patience: float | None = None
    ) -> None:
        """base: address of its routes; key: a secret that it is shown; tell: is told where it is
        waited for; patience: seconds that it is waited for.
        """
        self.base, self.tell = base, tell
        self.patience = PATIENCE if patience is None else patience
        self._first_patience = FIRST_PATIENCE if patience is None else patience
        self._met = False  # whether it has ever answered
        self.recognise: Recognise | None = None
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._opened: list[httpx2.AsyncClient] = []
        weakref.finalize(self, _close, self._opened)
        self._room = Room(MOST_TOKENS)
        self._silent_since: float | None = None
        self._reason = ""
        self._told = False
        self._recognising = asyncio.Lock()

    def ask(self, url: str, body: Mapping[str, Any] | None = None) -> Document:
        """What one route answers: to GET where there is no body. Raises LmpplError, and Lost."""
        asked = Asked(body or {}, 0)
        method = "GET" if body is None else "POST"
        return self._run(self._all(method, url, [asked]), self._look)[0]

    def post_all(
        self, route: str, asked: Sequence[Asked], watch: Callable[[], None]
    ) -> list[Document]:
        """Answers in the order of the requests. watch: looks at the clock meanwhile, and may
        raise. Raises LmpplError, and Lost where the server stays silent.
        """

        def look() -> None:
            watch()
            self._look()

        return self._run(self._all("POST", f"{self.base}{route}", asked), look)

    def _run(self, coroutine: Any, look: Callable[[], None]) -> list[Document]:
        try:
            return background().run(coroutine, look)
        except _GivenUp as reason:
            raise Lost(reason.finding) from None

    def _look(self) -> None:
        """Say that the server is silent, or that it answers again."""
        since = self._silent_since
        if since is not None and not self._told and time.monotonic() - since > QUIET_SECONDS:
            self._told = True
            self.tell(f"waiting for the server at {self.base} ({self._reason:.80})")
        elif since is None and self._told:
            self._told = False
            self.tell(f"the server at {self.base} answers again")

    # --- in the loop of the background ------------------------------------------------------------

    async def _all(self, method: str, url: str, asked: Sequence[Asked]) -> list[Document]:
        answers: list[Document] = [{}] * len(asked)
        waiting = iter(enumerate(asked))
        workers = min(len(asked), MOST_REQUESTS)
        work = [
            asyncio.create_task(self._work(method, url, waiting, answers)) for _ in range(workers)
        ]
        try:
            await asyncio.gather(*work)
        finally:  # one that fails ends the others
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
        return answers

    async def _work(
        self, method: str, url: str, waiting: Iterator[tuple[int, Asked]], answers: list[Document]
    ) -> None:
        for number, one in waiting:
            answers[number] = await self._answered(method, url, one)

    async def _answered(self, method: str, url: str, one: Asked) -> Document:
        broken = attempts = 0
        while True:
            alone = broken >= SUSPECT
            try:
                async with self._room.taken(self._room.size if alone else one.tokens):
                    await self._know_again()
                    answer = await self._sent(method, url, one.body)
                self._silent_since, self._met = None, True
                return answer
            except _Failure as failure:
                # of a server that is silent already, this request has broken nothing
                broken += failure.broke and self._silent_since is None
                if broken >= GUILTY:
                    raise LmpplError(
                        findings.breaks(self.base, one.tokens, failure.reason)
                    ) from None
                await self._wait(failure.reason, attempts)
                attempts += 1

    async def _wait(self, reason: str, attempts: int) -> None:
        """A pause before the next attempt, if there is to be one."""
        now = time.monotonic()
        if self._silent_since is None:
            self._silent_since = now
        self._reason = reason
        patience = self.patience if self._met else self._first_patience
        if now - self._silent_since >= patience:
            raise _GivenUp(findings.silent(self.base, now - self._silent_since, reason)) from None
        await asyncio.sleep(PAUSES[min(attempts, len(PAUSES) - 1)])

    async def _know_again(self) -> None:
        """Where the server has been silent, see whether it is still the same."""
        if self._silent_since is None or self.recognise is None:
            return
        async with self._recognising:
            if self._silent_since is not None:
                await self.recognise(self)
                self._silent_since = None

    async def once(self, method: str, url: str, body: Mapping[str, Any] | None = None) -> Document:
        """What a route answers now: for who recognises a server."""
        return await self._sent(method, url, body or {})

    async def _sent(self, method: str, url: str, body: Mapping[str, Any]) -> Document:
        try:
            content = body if method == "POST" else None
            answer = await self._open().request(method, url, json=content)
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as reason:
            raise _Failure(first_line(reason), broke=False) from None
        except httpx2.TransportError as reason:
            raise _Failure(first_line(reason), broke=True) from None
        if answer.status_code in AGAIN:
            reason = f"status {answer.status_code}: {_said(answer)}"
            raise _Failure(reason, broke=answer.status_code not in BUSY)
        if answer.status_code != 200:
            raise LmpplError(findings.refused(self.base, answer.status_code, _said(answer)))
        try:
            document = answer.json()
        except ValueError as reason:
            raise LmpplError(findings.odd_answer(self.base, first_line(reason))) from None
        if not isinstance(document, dict):
            raise LmpplError(findings.odd_answer(self.base, "it is no JSON object"))
        return document

    def _open(self) -> httpx2.AsyncClient:
        if not self._opened:
            seconds = httpx2.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)
            limits = httpx2.Limits(
                max_connections=MOST_REQUESTS + 1,
                max_keepalive_connections=MOST_REQUESTS,
                keepalive_expiry=IDLE_SECONDS,
            )
            own = httpx2.AsyncClient(headers=self._headers, timeout=seconds, limits=limits)
            self._opened.append(own)
        return self._opened[0]


def _close(opened: list[httpx2.AsyncClient]) -> None:
    """Close the connections of a wire that nobody has any more."""
    for client in opened:
        background().begin(client.aclose())


def _said(answer: httpx2.Response) -> str:
    """What a server says of what is wrong: its message where it sends one."""
    try:
        document = json.loads(answer.text)
        told = document.get("error", document)
        return str(told.get("message", told) if isinstance(told, dict) else told)
    except (ValueError, AttributeError):
        return answer.text.strip() or answer.reason_phrase
