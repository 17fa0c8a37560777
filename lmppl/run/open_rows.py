"""Rows that come one by one, to a session that stays open: each is inferred in rounds, of which a
later one has more draws than the one before, until somebody says stop.

A row has its own random numbers, so what it gives hangs neither on the rows beside it nor on those
before it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from lmppl.data import Row
from lmppl.decoding import Randomness
from lmppl.density import State, Target
from lmppl.diagnosis import Estimate, Prediction, Sampling, counted
from lmppl.engines import Interrupted, Outcome, OutOfTime, RowJob, sampling, traits
from lmppl.errors import Diagnostic, LmpplError
from lmppl.expressions import shown
from lmppl.lm import Cost, nothing
from lmppl.posterior import RowPosterior
from lmppl.run.driver import drawn_row, judged_row, nothing_to_infer, worth_saying
from lmppl.run.session import Session, cost_of, forget_prompts

Stop = Callable[[], bool]  # whether a row is to be left as it is
Combination = tuple[str | None, ...]  # values of some names; None: there is none
NO_SUPPORT = "no-support"  # what is found where every draw was impossible: more may find one


@dataclass
class OpenRow:
    """A row that is inferred in rounds. draws: a chain, of the last round that gave something."""

    session: Session
    row: Row
    randomness: Randomness
    target: Target
    findings: Sequence[Diagnostic] = ()
    outcome: Outcome | None = None
    impossible: LmpplError | None = None  # the last round's: all its draws were impossible
    draws: int = 0
    cost: dict[str, int] = field(default_factory=dict)  # of all rounds

    def round(self, draws: int, stop: Stop) -> bool:
        """So many draws a chain, in place of those before; engines that can go on from them do.

        stop: asked before every pass of a model. Gives whether the round is whole: one that was
        stopped leaves the draws that it has, if these are more than there were. Raises LmpplError,
        but not where all draws are impossible: `impossible` is that.
        """
        before = cost_of(self.session.models)
        try:
            return self._round(draws, stop)
        finally:
            after = cost_of(self.session.models)
            self.cost = {key: self.cost.get(key, 0) + after[key] - before[key] for key in after}

    def _round(self, draws: int, stop: Stop) -> bool:
        session = self.session
        if not self.target.latents:
            self.outcome, self.draws = nothing_to_infer(self.target), 1
            return True
        job = RowJob([self.target], 0, self.randomness, earlier=self.outcome)
        settings = replace(session.settings, num_samples=draws)
        try:
            with _watching(session, job, stop) as seen:
                found = session.engine.infer(seen, settings, session.options)
        except OutOfTime:
            forget_prompts(session.models)  # one may be half of what it should be
            return False
        except Interrupted as early:
            forget_prompts(session.models)
            kept = 0 if self.outcome is None else len(self.outcome.samples)
            if len(early.outcome.samples) > kept:
                self.outcome = early.outcome
                self.draws = len(early.outcome.samples) // session.settings.chains
            return False
        except LmpplError as reason:
            if any(one.code != NO_SUPPORT for one in reason.diagnostics):
                raise
            self.impossible = LmpplError(*reason.diagnostics, *self.findings)
            return True
        self.outcome, self.draws, self.impossible = found, draws, None
        return True

    def posterior(self) -> RowPosterior:
        """What the rounds have found, with its checks. Raises LmpplError where that is nothing."""
        if self.outcome is None:
            raise self.impossible or OutOfTime()
        name = self.session.engine.name
        warnings = [one.message for one in self.findings if worth_saying(one, name)]
        drawn = drawn_row(self.target, self.row, self.outcome, warnings)
        return judged_row(drawn, self.target, self.outcome, name, self.findings)

    def prediction(self, name: str) -> Prediction:
        """Probabilities of the values of a latent or derived value, by counting its draws. Of an
        observed latent, all is on its one value.
        """
        return self._counted([name], lambda values: values[0])

    def law(self, names: Sequence[str]) -> Mapping[Combination, Estimate]:
        """Probability of every combination of values of some latents and derived values, with its
        standard error, largest first.
        """
        outcomes = self._counted(names, json.dumps).outcomes
        return {tuple(json.loads(key or "[]")): share for key, share in outcomes}

    def _counted(
        self, names: Sequence[str], key: Callable[[Combination], str | None]
    ) -> Prediction:
        assert self.outcome is not None
        if not self.target.latents or {*names} <= self.row.observed.keys():
            only = key(self._values(names, self.outcome.samples[0].state))
            return counted([only], Sampling(np.ones(1), np.zeros(1, dtype=np.int64), "law"))
        places, found = sampling(self.outcome, traits(self.session.engine.name))
        return counted(
            [key(self._values(names, _state(self.outcome, place))) for place in places], found
        )

    def _values(self, names: Sequence[str], state: State) -> Combination:
        texts = {**self.row.observed, **self.target.texts_of(state)}
        derived = {name: shown(value) for name, value in self.target.derived(state).items()}
        return tuple({**texts, **derived}[name] for name in names)


def open_row(session: Session, row: Row, seed: int, number: int = 0) -> OpenRow:
    """Bind a row, whose random numbers are those of row `number` of a run. Raises LmpplError."""
    target, findings = session.bind(row)
    return OpenRow(session, row, Randomness(seed, number), target, findings)


def _state(outcome: Outcome, place: int) -> State:
    if outcome.support is not None:
        return outcome.support[place][0]
    return outcome.samples[place].state


@contextmanager
def _watching(session: Session, row_job: RowJob, stop: Stop) -> Iterator[RowJob]:
    """The row, whose run OutOfTime ends where it is to stop: raised by its progress, or before a
    pass of a model.
    """

    def watch() -> None:
        if stop():
            raise OutOfTime

    def report(what: str, done: int, total: int) -> None:
        if done < total:
            watch()

    costs = _costs(session)
    for cost in costs:
        cost.watch = watch
    try:
        yield replace(row_job, progress=report)
    finally:
        for cost in costs:
            cost.watch = nothing


def _costs(session: Session) -> list[Cost]:
    """Those of all models, each once."""
    return [*{id(model.cost): model.cost for model in session.models.values()}.values()]
