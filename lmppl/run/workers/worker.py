"""A worker: a session of its own, which draws the shards that it is given.

It knows no pipes and no clusters: `tell` takes what it has to say.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lmppl.errors import loss_behind
from lmppl.posterior import RowPosterior, written
from lmppl.run.workers.crew import About, Done, Failed, Opening, Order, Plan, Shard, Told, portable

if TYPE_CHECKING:
    from lmppl.data import Row
    from lmppl.engines import RowJob
    from lmppl.run.planning import Draw, Job

EVERY = 0.5  # seconds between words about progress


class Worker:
    """Obeys orders, one after the other."""

    def __init__(self, opening: Opening, tell: Callable[[object], None]) -> None:
        self._opening, self._tell = opening, tell
        self._resources = ExitStack()
        self._told = 0.0
        self._job: Job | None = None
        self._row: int | None = None  # that is being drawn

    def obey(self, order: Order) -> Done | Failed:
        """Carry out an order."""
        self._row = None
        try:
            method: Callable[[Any], Any] = getattr(self, f"_{order.verb}")
            return Done(method(order.about))
        except KeyboardInterrupt as stopped:  # what a server that is lost ends an engine by
            if (lost := loss_behind(stopped)) is None:
                raise
            return Failed(portable(lost), self._row)
        except Exception as reason:
            return Failed(portable(reason), self._row)

    def _open(self, _: None) -> About:
        """Load the models and open a session."""
        from lmppl.lm import load_models
        from lmppl.run.driver import described
        from lmppl.run.planning import Job
        from lmppl.run.session import open_session

        opening, ways = self._opening, self._opening.ways
        program, request = opening.program, opening.request
        models = load_models(
            program, request.lms, ways.device, self._report, ways.learned,
            ways.torch_compile, ways.cuda_graphs,
        )  # fmt: skip
        self._session = open_session(program, [], models, request, self._report)
        self._job = Job(self._session)
        return About(described(models), any(model.slow for model in models.values()))

    def _check(self, shard: Shard) -> None:
        """Bind rows, so that what is wrong with one is said before any is drawn."""
        for number, row in enumerate(shard.rows):
            self._row = shard.first + number
            self._session.bind(row)
        self._row = None

    def _plan(self, rows: Sequence[Row]) -> Plan:
        """The sizes that a budget has room for in all rows."""
        from lmppl.decoding import Randomness
        from lmppl.engines import RowJob
        from lmppl.run.bound_rows import BoundRows
        from lmppl.run.planning import Job, planned
        from lmppl.run.session import cost_of

        session = replace(self._session, rows=rows)
        before = cost_of(session.models)
        targets = BoundRows(rows, session.bind, self._report)
        targets.lent(self._lender())
        row_jobs = [
            RowJob(targets, number, Randomness(session.request.seed, number), self._report)
            for number in targets.open
        ]
        job = planned(Job(session), targets, row_jobs)
        settings, options = job.sized or (session.request.settings, session.request.options)
        chosen = job.session
        spent = {name: value - before[name] for name, value in cost_of(session.models).items()}
        budget = job.document().get("budget")
        return Plan(chosen.engine.name, chosen.reason, settings, options, budget, spent)

    def _take(self, plan: Plan) -> None:
        """Draw by this plan from now on."""
        from lmppl.engines import engine
        from lmppl.run.planning import Job

        request = replace(
            self._session.request, settings=plan.settings, options=plan.options, budget=None
        )
        session = self._session.changed(engine(plan.engine), plan.reason, request)
        self._resources.close()
        self._job = Job(session)
        self._lend, self._draw_rows = self._lender(), self._drawer()

    def _lender(self) -> Callable[[Any], None]:
        """What lends targets a trained proposal, where one is asked for."""
        assert self._job is not None
        return self._resources.enter_context(self._job.session.proposals())

    def _drawer(self) -> Draw:
        """What draws rows: the engine, or what it has learned before."""
        from lmppl.run.training_data import TrainingData, runner

        assert self._job is not None
        data = TrainingData(self._job.session)
        return self._resources.enter_context(runner(data, [])).draw

    def _draw(self, shard: Shard) -> None:
        """Draw the rows of a shard, and tell each once it is done."""
        from lmppl.decoding import Randomness
        from lmppl.engines import RowJob
        from lmppl.run.bound_rows import BoundRows
        from lmppl.run.driver import infer_rows
        from lmppl.run.session import cost_of, forget_all_but_stems

        assert self._job is not None
        job = replace(self._job, session=replace(self._job.session, rows=shard.rows))
        models, seed = job.session.models, job.session.request.seed
        forget_all_but_stems(models)
        targets = BoundRows(shard.rows, job.session.bind, self._report, len(shard.rows))
        targets.lent(self._lend)
        row_jobs: list[RowJob] = []
        for number in targets.open:
            randomness = Randomness(seed, shard.first + number)
            row_jobs.append(RowJob(targets, number, randomness, self._report))
        results: list[RowPosterior] = []
        self._row, before = shard.first, cost_of(models)
        outcomes = job.outcomes(self._draw_rows, targets, row_jobs)
        for _ in infer_rows(job, outcomes, targets, results):
            now = cost_of(models)
            spent = {name: value - before[name] for name, value in now.items()}
            self._tell(written(self._row, results[-1], spent))
            results[-1:] = [RowPosterior({}, [])]  # sent: it need not be held
            self._row, before = self._row + 1, now

    def _report(self, what: str, done: int, total: int) -> None:
        """Progress, now and then."""
        if (now := time.monotonic()) - self._told >= EVERY:
            self._told = now
            row = f"row {self._row + 1}: " if self._row is not None else ""
            self._tell(Told(f"{row}{what}", done, total))
