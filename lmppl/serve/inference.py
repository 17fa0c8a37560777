"""Asks of one program as the rows of one inference: in rounds, row by row, until each has what it
asked for or its time is over.

All of it runs in the one thread that models are used from.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lmppl.data import Row
from lmppl.diagnosis import Estimate, Prediction
from lmppl.engines import OutOfTime, traits
from lmppl.errors import LmpplError
from lmppl.posterior import RowPosterior
from lmppl.run import Combination, OpenRow, doubts, open_row
from lmppl.serve.errors import Refused, late, of_error

if TYPE_CHECKING:
    from lmppl.serve.programs import Served

MOST_DRAWS = 2_500  # a chain
LEAST_GROWTH, GROWTH, MARGIN = 1.5, 4.0, 1.1  # of a round over the one before it
Reach = str  # "reached", "time" or "draws": why no more was drawn


@dataclass(frozen=True)
class Reached:
    """How near the answer's standard errors came to the one that was asked for.

    largest: of all probabilities of the answer; None where draws are too few to tell it.
    """

    se: float
    largest: float | None
    ended: Reach
    rounds: int


@dataclass(frozen=True)
class Answered:
    """What was found for one row. law: probabilities of combinations of the answer's names, largest
    first.
    """

    posterior: RowPosterior
    law: Mapping[Combination, Estimate]
    predictions: Mapping[str, Prediction]  # of each of the answer's names
    engine: str
    draws: int  # 0 of a law that is known
    cost: Mapping[str, int]
    seconds: float  # of inference
    rows: int  # that were inferred together
    cut_short: bool  # time was over before all was drawn
    reached: Reached | None


@dataclass(eq=False)
class Ask:
    """A row that somebody waits for. deadline: of drawing, as time.perf_counter has it; gone:
    nobody waits any more.
    """

    served: Served
    row: Row
    seed: int
    number: int  # of the row in a run, for its random numbers
    until: float | None
    deadline: float
    seconds: float  # that it had at first
    deliver: Callable[[Answered | Refused], None]
    gone: bool = False

    @property
    def key(self) -> str:
        """What asks that can be answered together have in common. A law that is known whole hangs
        on no seed.
        """
        whole = traits(self.served.session.engine.name).whole
        drawn = None if whole else [self.seed, self.number]
        return json.dumps([self.row.content(), self.until, drawn])


@dataclass(eq=False)
class _Work:
    """Asks of one content, and what is found for them."""

    asks: list[Ask]
    latest: Callable[[], float]  # when all is to end, as time.perf_counter has it
    rows: int
    opened: OpenRow | None = None
    rounds: int = 0
    seconds: float = 0.0  # of the rounds before
    started: float = 0.0
    share: float = math.inf  # when this round is to end, as time.perf_counter has it
    whole: bool = True  # the last round
    found: RowPosterior | None = None

    def stop(self) -> bool:
        """Whether nobody waits any more, or nobody may."""
        now = time.perf_counter()
        waiting = any(not ask.gone and now < ask.deadline for ask in self.asks)
        return not waiting or now > min(self.share, self.latest())

    def advance(self, turns: int) -> Answered | Refused | None:
        """One more round: what there is to answer, None where more is to be drawn. turns: rows that
        share the time that is left, this one among them.
        """
        self.started = now = time.perf_counter()
        self.share = now + (max(ask.deadline for ask in self.asks) - now) / turns
        try:
            return self._advance()
        except OutOfTime:
            return late(self.asks[0].seconds)
        except (LmpplError, Exception) as reason:
            return of_error(reason)
        finally:
            self.seconds += time.perf_counter() - self.started

    def _advance(self) -> Answered | Refused | None:
        first = self.asks[0]
        served = first.served
        if self.opened is None:
            if self.stop():
                return late(first.seconds)
            self.opened = open_row(served.session, first.row, first.seed, first.number)
            served.lend(self.opened.target)
        opened, most = self.opened, max(MOST_DRAWS, served.session.settings.num_samples)
        draws = self._next()
        self.whole = opened.round(draws, self.stop)
        self.rounds += 1
        if opened.outcome is None and self.whole and first.until is not None and draws < most:
            return None  # all were impossible, and there is time
        self.found = opened.posterior()
        law = self._law(served.answers)
        ended = self._ended(law, draws >= most)
        return None if ended is None else self._answered(law, ended)

    def _next(self) -> int:
        """Draws a chain of the next round: about as many as the standard error asks for."""
        opened, until = self.opened, self.asks[0].until
        assert opened is not None
        settings = opened.session.settings
        if self.rounds == 0 or until is None:
            return settings.num_samples
        before = max(opened.draws, settings.num_samples)
        most = max(MOST_DRAWS, settings.num_samples)
        largest = None if self.found is None else _largest(self._law(self.asks[0].served.answers))
        wanted = GROWTH if largest is None else MARGIN * (largest / until) ** 2
        return min(int(before * min(max(wanted, LEAST_GROWTH), GROWTH)), most)

    def _law(self, names: Sequence[str]) -> Mapping[Combination, Estimate]:
        """Of the answer's names together."""
        assert self.opened is not None
        if len(names) == 1:
            return {(text,): share for text, share in self._prediction(names[0]).outcomes}
        return self.opened.law(names)

    def _prediction(self, name: str) -> Prediction:
        """What the program predicts of a name, else what counting gives."""
        assert self.opened is not None
        assert self.found is not None
        predicted = self.found.predictions.get(name)
        return self.opened.prediction(name) if predicted is None else predicted

    def _ended(self, law: Mapping[Combination, Estimate], most: bool) -> Reach | None:
        """Why no more is to be drawn; None where more is."""
        until = self.asks[0].until
        assert self.found is not None
        largest = _largest(law)
        if not self.whole:
            return "time"
        if until is None or (largest is not None and largest <= until and self._believed):
            return "reached"
        known = self.found.support is not None
        return "draws" if most or known or self.stop() else None

    @property
    def _believed(self) -> bool:
        """Whether no check says that standard errors are not to be believed."""
        return self.found is not None and not any(map(doubts, self.found.checks))

    def _answered(self, law: Mapping[Combination, Estimate], ended: Reach) -> Answered:
        assert self.opened is not None
        assert self.found is not None
        until, engine = self.asks[0].until, self.opened.session.engine.name
        reached = None if until is None else Reached(until, _largest(law), ended, self.rounds)
        predictions = {name: self._prediction(name) for name in self.asks[0].served.answers}
        draws = 0 if self.found.support is not None else len(self.found.draws)
        seconds = self.seconds + time.perf_counter() - self.started
        return Answered(
            self.found, law, predictions, engine, draws, self.opened.cost, seconds, self.rows,
            not self.whole, reached,
        )  # fmt: skip


def infer(asks: Sequence[Ask], latest: Callable[[], float]) -> None:
    """Answer asks of one program, each as soon as it has what it asked for. Rows take turns, so
    that one that needs many rounds keeps no other waiting, and share the time.

    latest: when all is to end. Those that ask the same are answered together.
    """
    together: dict[str, list[Ask]] = {}
    for ask in asks:
        together.setdefault(ask.key, []).append(ask)
    left = [_Work(same, latest, len(together)) for same in together.values()]
    while left:
        still = []
        for place, work in enumerate(left):
            answer = work.advance(len(left) - place)
            if answer is None:
                still.append(work)
                continue
            for ask in work.asks:
                ask.deliver(answer)
        left = still


def _largest(law: Mapping[Combination, Estimate]) -> float | None:
    """The largest standard error of a law; None where one is not known."""
    known = [share.error for share in law.values() if share.error is not None]
    return max(known, default=0.0) if len(known) == len(law) else None
