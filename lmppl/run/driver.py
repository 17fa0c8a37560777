"""The driver: from a lowered program, data rows and flags to a posterior.

It binds rows, owns seeds, progress, cost and collection.
It knows no sampling: engines do that. It prints nothing: progress is a callback.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lmppl import ir
from lmppl.density import Repeated, each, paired
from lmppl.diagnosis import (
    Check,
    Diagnostics,
    Draw,
    Estimate,
    Prediction,
    Traits,
    diagnose,
    slopes,
)
from lmppl.engines import (
    Interrupted,
    Outcome,
    RowJob,
    Sample,
    traits,
)
from lmppl.errors import Diagnostic, LmpplError, first_line, loss_behind
from lmppl.expressions import Absent, shown
from lmppl.lm import describe_model
from lmppl.posterior import Interruption, Posterior, RowPosterior, Supported
from lmppl.run.bound_rows import HELD, BoundRows
from lmppl.run.cut_options import cut_options
from lmppl.run.provenance import besides, describe_program, origin
from lmppl.run.request import Request
from lmppl.run.session import (
    Session,
    cost_of,
    forget_all_but_stems,
    forget_prompts,
    open_session,
)
from lmppl.run.shards import begins_shard
from lmppl.run.training_data import TrainingData, runner
from lmppl.run.undefined_statistics import absences, said
from lmppl.screen import Progress, quiet

if TYPE_CHECKING:
    from lmppl.data import Row
    from lmppl.density import State, Target
    from lmppl.lm import LanguageModel
    from lmppl.run.planning import Job


def run(
    program: ir.Program,
    rows: Sequence[Row],
    models: Mapping[str, LanguageModel],
    request: Request,
    progress: Progress = quiet,
    cut_short: Callable[[Posterior], None] = lambda posterior: None,
) -> Posterior:
    """Infer every row of a program as a request says: `infer` on its session.

    rows: of data; models: by name; progress: is told what is done; cut_short: as `infer` has it.
    Raises LmpplError.
    """
    return infer(open_session(program, rows, models, request, progress), cut_short)


def infer(
    session: Session, cut_short: Callable[[Posterior], None] = lambda posterior: None
) -> Posterior:
    """Infer every row of a session. Raises LmpplError.

    Where a run ends early, by Ctrl-C or an error, `cut_short` is told what there is, if there is
    anything, before the reason goes on its way.
    """
    from lmppl.decoding import Randomness
    from lmppl.run.planning import Job, planned

    rows, request, progress = session.rows, session.request, session.progress
    forget_prompts(session.models)
    before, started = cost_of(session.models), time.perf_counter()
    # learning goes over all rows, again and again
    hold = HELD if session.engine.learn is None else len(rows)
    targets = BoundRows(rows, session.bind, progress, hold)
    made_from = origin(session.program, rows, session.models)
    row_jobs = []
    for number in targets.open:
        randomness = Randomness(request.seed, number)
        row_jobs.append(RowJob(targets, number, randomness, _numbered(progress, number, len(rows))))
    results: list[RowPosterior] = []
    done = 0
    with session.proposals() as lend:
        targets.lent(lend)
        job = planned(Job(session, made_from), targets, row_jobs)
        earlier: Mapping[str, float] = {}

        def found(interrupted: Interruption | None = None) -> Posterior:
            spent = cost_of(session.models)
            cost = {key: value - before[key] + earlier.get(key, 0) for key, value in spent.items()}
            seconds = time.perf_counter() - started + earlier.get("seconds", 0)
            return _posterior(job, results, {**cost, "seconds": seconds}, interrupted)

        try:
            with runner(TrainingData(job.session, made_from), targets) as running:
                earlier = running.earlier
                outcomes = job.outcomes(running.draw, targets, row_jobs)
                for _ in infer_rows(job, outcomes, targets, results):
                    done += 1
        except (KeyboardInterrupt, Exception) as stopped:
            if any(row.draws for row in results):
                cut_short(found(Interruption(why(stopped), done, len(rows))))
            if lost := loss_behind(stopped):
                raise lost from None
            raise
    return found()


def _posterior(
    job: Job,
    results: Sequence[RowPosterior],
    cost: Mapping[str, float],
    interrupted: Interruption | None,
) -> Posterior:
    session = job.session
    program, options = session.program, vars(session.options)
    made = {"engine_reason": session.reason, "params": dict(program.params), **job.document()}
    return Posterior(
        describe_program(program),
        session.engine.name,
        session.request.seed,
        described(session.models),
        {**vars(session.settings), **options, **made},
        results,
        cost,
        interrupted,
        besides(job.made_from, options, session.request.adapter),
    )


def described(models: Mapping[str, LanguageModel]) -> dict[str, dict[str, Any]]:
    """What a run says of its models, by name."""
    return {name: {**describe_model(model), **_law(model)} for name, model in models.items()}


def _law(model: LanguageModel) -> dict[str, str]:
    """The local law of a model, in words, where it has one."""
    return {} if model.local_law is None else {"local_law": str(model.local_law)}


def why(stopped: BaseException) -> str:
    """Why a run ends early, in a few words."""
    if lost := loss_behind(stopped):
        return lost.message
    if isinstance(stopped, KeyboardInterrupt):
        return "interrupted"
    return stopped.message if isinstance(stopped, LmpplError) else first_line(stopped)


def infer_rows(
    job: Job,
    outcomes: Iterator[Outcome],
    targets: BoundRows,
    results: list[RowPosterior],
) -> Iterator[None]:
    """Add each row's posterior to `results`, and yield once it is whole. A row that ends early
    leaves what it has.
    """
    for number, row in enumerate(job.session.rows):
        if job.session.request.only_learn:
            results.append(RowPosterior({**row.givens, **row.observed}, []))
            continue
        if number and begins_shard(number) and job.session.engine.learn is None:
            forget_all_but_stems(job.session.models)
        target, findings = targets[number], targets.findings(number)
        try:
            outcome = _next(outcomes, findings) if target.latents else nothing_to_infer(target)
        except Interrupted as early:
            forget_prompts(job.session.models)  # one may be half of what it should be
            _add_row(results, job, target, row, early.outcome, findings)
            raise
        _add_row(results, job, target, row, outcome, findings)
        yield


def _add_row(
    results: list[RowPosterior],
    job: Job,
    target: Target,
    row: Row,
    outcome: Outcome,
    findings: Sequence[Diagnostic],
) -> None:
    """Add what an engine found for a row: its draws first, so that nothing that fails on them later
    loses them.
    """
    name = job.session.engine.name
    warnings = [finding.message for finding in findings if worth_saying(finding, name)]
    drawn = drawn_row(target, row, outcome, warnings)
    results.append(drawn)
    judged = judged_row(drawn, target, outcome, name, findings)
    needs = job.needs(judged)
    results[-1] = replace(judged, warnings=[*judged.warnings, *needs]) if needs else judged


def drawn_row(
    target: Target, row: Row, outcome: Outcome, warnings: Sequence[str] = ()
) -> RowPosterior:
    """The draws of one row, and the evidence, as an engine gave them. warnings: the row's own,
    before the engine's.
    """
    draws = each(outcome.samples, lambda sample: _draw(target, sample))
    return RowPosterior(
        {**row.givens, **row.observed},
        draws,
        outcome.log_evidence,
        outcome.log_evidence_se,
        _support(target, outcome, draws),
        warnings=[*warnings, *outcome.warnings],
    )


def judged_row(
    drawn: RowPosterior,
    target: Target,
    outcome: Outcome,
    engine: str,
    findings: Sequence[Diagnostic] = (),
) -> RowPosterior:
    """The posterior of one row with statistics, predictions, diagnostics and checks. findings: of
    binding the row.
    """

    def measured(draw: Draw, sample: Sample) -> Draw:
        derived = {name: shown(value) for name, value in target.derived(sample.state).items()}
        return replace(draw, statistics=target.statistics(sample.state), derived=derived)

    draws, support = drawn.draws, drawn.support
    if target.program.statistics or target.program.derived:
        draws = paired(draws, outcome.samples, measured)
        support = _support(target, outcome, draws)
    diagnostics = _diagnostics(target, outcome, findings)
    checks = diagnose(
        _judged(target, draws), diagnostics, traits(engine), _limits(target), _choices(target)
    ).checks
    warnings = [*drawn.warnings, *_said(target, outcome, draws)]
    predicted, steep = _believed(target, outcome, support or draws, traits(engine), checks)
    return replace(
        drawn,
        draws=draws,
        support=support,
        predictions=predicted,
        slopes=steep,
        prior=outcome.prior or _prior(target),
        diagnostics=diagnostics,
        checks=checks,
        warnings=warnings,
    )


def _believed(
    target: Target,
    outcome: Outcome,
    states: Sequence[Draw] | Sequence[Supported],
    own: Traits,
    checks: Sequence[Check],
) -> tuple[dict[str, Prediction], dict[str, Estimate]]:
    """Predictions, with the checks that say that their errors are not to be believed; and slopes.
    Where a guide's draws count alike, no weight is in doubt.
    """
    if not (target.program.predictions or target.program.statistics):
        return {}, {}
    from lmppl.engines import predictions, sampling

    found_doubts = () if outcome.guided else tuple(one.name for one in checks if doubts(one))
    places, found = drawn = sampling(outcome, own)
    alike = sampling(outcome, own, alike=True) if outcome.guided else drawn
    predicted = predictions(target, outcome, alike)
    steep = slopes([states[place] for place in places], found) if target.program.statistics else {}
    return {name: replace(one, doubts=found_doubts) for name, one in predicted.items()}, steep


def doubts(check: Check) -> bool:
    """Whether a check says that errors of means are not to be believed."""
    return check.status == "fail" or (check.name == "pareto_k" and check.status != "pass")


def _diagnostics(target: Target, outcome: Outcome, findings: Sequence[Diagnostic]) -> Diagnostics:
    """What the engine reports, and what is measured of every engine."""
    from lmppl.engines import score_mismatch

    measured = {
        "score_mismatch": score_mismatch(target, outcome.samples) if target.texts else None,
        "unguided": _unguided(findings),
    }
    known = {name: value for name, value in measured.items() if value is not None}
    return replace(outcome.diagnostics, **known) if known else outcome.diagnostics


def _prior(target: Target) -> dict[str, dict[str, float]]:
    """Probabilities of the options of a choice that is all there is to infer, before any
    evidence.
    """
    choices = target.choices
    if len(choices) != 1 or len(target.latents) != 1:
        return {}
    (choice,) = choices
    states = [{choice.name: number} for number in range(len(choice.options))]
    mass = map(math.exp, target.log_prior(choice.name, states))
    return {choice.name: dict(zip(choice.options, mass, strict=True))}


def _unguided(findings: Sequence[Diagnostic]) -> list[tuple[str, int]] | None:
    """Constraints that nothing guides draws to: each its text and its line; None where all do."""
    places = [(one.source, one.span) for one in findings if one.code == "unguided"]
    found = [
        (source.slice(span), source.position(span.start)[0])
        for source, span in places
        if source and span
    ]
    return found or None


def _said(target: Target, outcome: Outcome, draws: Sequence[Draw]) -> list[str]:
    """What there is to say of declared statistics, of what could not be derived, and of options
    that cannot be.
    """

    def reasons(place: int) -> dict[str, str]:
        state = outcome.samples[place].state
        numbers = {name: found.reason for name, found in target.numbers(state).items()}
        values = target.derived(state).items()
        return numbers | {name: value.reason for name, value in values if isinstance(value, Absent)}

    return [
        *said(target.program, draws, reasons),
        *absences(target.program, draws, reasons),
        *cut_options(target, outcome.samples),
    ]


def _limits(target: Target) -> dict[str, int]:
    """Most tokens of the texts that end with their limit or the end token."""
    texts = target.texts
    return {latent.shown: latent.maximum for latent in texts if latent.until is None}


def _choices(target: Target) -> list[str]:
    return [latent.shown for latent in target.choices]


def nothing_to_infer(target: Target) -> Outcome:
    """Every latent is observed: the evidence is the density itself."""
    density = target.log_density([{}])
    factors = density.parts(0)
    total = float(density.total[0])
    return Outcome(
        [Sample(0, 0, {}, total, factors)],
        total,
        0.0,
        diagnostics=Diagnostics(method="all latents are observed"),
    )


def _draw(target: Target, sample: Sample) -> Draw:
    return Draw(
        target.texts_of(sample.state),
        target.tokens_of(sample.state),
        sample.log_density,
        sample.factors,
        sample.log_weight,
        sample.log_proposal,
        sample.chain,
        sample.draw,
    )


def _support(target: Target, outcome: Outcome, draws: Sequence[Draw]) -> list[Supported] | None:
    """States of a law that is known, with their densities where the draws tell them."""
    if outcome.support is None:
        return None
    known: dict[int, Draw] = {}
    if isinstance(outcome.samples, Repeated) and isinstance(draws, Repeated):
        known = {
            id(kind.state): draw
            for kind, draw in zip(outcome.samples.kinds, draws.kinds, strict=True)
        }
    return [
        _supported(target, state, mass, known.get(id(state))) for state, mass in outcome.support
    ]


def _supported(target: Target, state: State, mass: float, draw: Draw | None) -> Supported:
    if draw is None:
        return Supported(target.texts_of(state), target.tokens_of(state), mass)
    return Supported(
        draw.values,
        draw.tokens,
        mass,
        draw.log_density,
        draw.factors,
        draw.statistics,
        draw.derived,
    )


def _judged(target: Target, draws: Sequence[Draw]) -> Sequence[Draw]:
    """Draws that checks look at: of a law over choices that is known, no draw tells anything that
    it does not.
    """
    return draws if target.texts or not isinstance(draws, Repeated) else []


def _next(outcomes: Iterator[Outcome], findings: Sequence[Diagnostic]) -> Outcome:
    """The next row's outcome. Where it fails, what binding the row has found may say why. Raises
    LmpplError.
    """
    try:
        return next(outcomes)
    except LmpplError as reason:
        raise LmpplError(*reason.diagnostics, *findings) from None


def worth_saying(finding: Diagnostic, engine: str) -> bool:
    """Whether a finding is worth saying: an engine that finds the whole law needs no guide."""
    return finding.code != "unguided" or not traits(engine).whole


def _numbered(progress: Progress, number: int, total: int) -> Progress:
    """Progress that says which row it is about, where there are several."""
    if total == 1:
        return progress
    return lambda what, done, of: progress(f"row {number + 1} of {total}: {what}", done, of)
