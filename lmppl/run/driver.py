"""The driver: from a lowered program, data rows and flags to a posterior.

It picks the engine, loads models, binds rows, owns seeds, options, progress, cost and collection.
It knows no sampling: engines do that. It prints nothing: progress is a callback.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from lmppl import ir
from lmppl.density import Repeated, each, paired
from lmppl.diagnosis import Diagnostics, Draw, diagnose
from lmppl.engines import (
    ENGINE_NAMES,
    Engine,
    Interrupted,
    Outcome,
    Sample,
    Settings,
    Turn,
    engine,
    parse_options,
    require_ranges,
    require_together,
    traits,
)
from lmppl.errors import Diagnostic, LmpplError, first_line
from lmppl.findings import learning as learning_findings
from lmppl.findings import run as run_findings
from lmppl.lm import describe_model
from lmppl.posterior import Interruption, Posterior, RowPosterior, Supported
from lmppl.run.bound_rows import HELD, BoundRows
from lmppl.run.memory import require_memory
from lmppl.run.provenance import besides, describe_program, origin
from lmppl.run.requirements import require_capabilities
from lmppl.run.training_data import Course, Request, cost_of, forget_prompts, runner
from lmppl.run.undefined_statistics import said
from lmppl.screen import Progress, quiet
from lmppl.storage import checkpoints

if TYPE_CHECKING:
    from lmppl.data import Row
    from lmppl.density import State, Target
    from lmppl.lm import LanguageModel
    from lmppl.run.planning import Plan

MOST_CHOICES = 4096  # combinations of choices that `auto` enumerates


def pick_engine(program: ir.Program, name: str) -> tuple[str, str]:
    """The engine to use and why, from what was asked and what the program is. Raises LmpplError."""
    if name == "auto" and program.engine is not None:
        return program.engine.engine, "the program says so"
    if name != "auto":
        if name not in ENGINE_NAMES:
            raise LmpplError(run_findings.unknown_engine(name, (*ENGINE_NAMES, "auto")))
        return name, "asked for"
    for latent in program.texts:
        return "annealed", f"`{latent.name}` is a text, whose values are too many to enumerate"
    combinations = math.prod(len(latent.options) for latent in program.choices)
    if combinations > MOST_CHOICES:
        return "annealed", f"{combinations} combinations of choices are too many to enumerate"
    return "exact", f"all latents are choices: {combinations} combinations"


def run(
    program: ir.Program,
    rows: Sequence[Row],
    models: Mapping[str, LanguageModel],
    request: Request,
    progress: Progress = quiet,
    cut_short: Callable[[Posterior], None] = lambda posterior: None,
) -> Posterior:
    """Infer every row. Raises LmpplError.

    Where a run ends early, by Ctrl-C or an error, `cut_short` is told what there is, if there is
    anything, before the reason goes on its way.
    """
    from lmppl.decoding import Randomness
    from lmppl.density import bind, load_helpers  # brings torch
    from lmppl.engines.amortised import lender
    from lmppl.run.planning import Plan, planned

    request = replace(request, lms=models)
    chosen, reason, settings, options = prepare(program, request)
    forget_prompts(models)
    before, started = cost_of(models), time.perf_counter()
    helpers = load_helpers(program)
    # learning goes over all rows, again and again
    hold = HELD if chosen.learn is None else len(rows)
    targets = BoundRows(
        rows, lambda row: bind(program, models, row, helpers, request.batch_size), progress, hold
    )
    made_from = origin(program, rows, models)
    course = Course(program, rows, models, helpers, request, settings, options, made_from, progress)
    turns = [
        Turn(
            targets,
            number,
            Randomness(request.seed, number),
            _numbered(progress, number, len(rows)),
        )
        for number in targets.open
    ]
    results: list[RowPosterior] = []
    done = 0
    with lender(program, options) as lend:
        targets.lent(lend)
        plan = planned(Plan(chosen, reason, course, partial(configure, program)), targets, turns)

        earlier: Mapping[str, float] = {}

        def found(interrupted: Interruption | None = None) -> Posterior:
            cost = {
                key: value - before[key] + earlier.get(key, 0)
                for key, value in cost_of(models).items()
            }
            seconds = time.perf_counter() - started + earlier.get("seconds", 0)
            settings, options = plan.course.settings, plan.course.options
            made = {"engine_reason": plan.reason, "params": dict(program.params), **plan.document()}
            return Posterior(
                describe_program(program),
                plan.chosen.name,
                request.seed,
                {key: describe_model(model) for key, model in models.items()},
                {**vars(settings), **vars(options), **made},
                results,
                {**cost, "seconds": seconds},
                interrupted,
                besides(made_from, vars(options), request.adapter),
            )

        try:
            with runner(plan.chosen, targets, plan.course) as running:
                earlier = running.earlier
                for _ in _infer_rows(
                    plan, plan.outcomes(running.draw, targets, turns), rows, targets, results
                ):
                    done += 1
        except (KeyboardInterrupt, Exception) as stopped:
            if any(row.draws for row in results):
                cut_short(found(Interruption(_why(stopped), done, len(rows))))
            raise
    return found()


def _why(stopped: BaseException) -> str:
    if isinstance(stopped, KeyboardInterrupt):
        return "interrupted"
    return stopped.message if isinstance(stopped, LmpplError) else first_line(stopped)


def _infer_rows(
    plan: Plan,
    outcomes: Iterator[Outcome],
    rows: Sequence[Row],
    targets: BoundRows,
    results: list[RowPosterior],
) -> Iterator[None]:
    """Add each row's posterior to `results`, and yield once it is whole. A row that ends early
    leaves what it has.
    """
    for number, row in enumerate(rows):
        if plan.course.request.only_learn:
            results.append(RowPosterior({**row.givens, **row.observed}, []))
            continue
        target, findings = targets[number], targets.findings(number)
        try:
            outcome = _next(outcomes, findings) if target.latents else _nothing_to_infer(target)
        except Interrupted as early:
            forget_prompts(plan.course.models)  # one may be half of what it should be
            _add_row(results, plan, target, row, early.outcome, findings)
            raise
        _add_row(results, plan, target, row, outcome, findings)
        yield


def _add_row(
    results: list[RowPosterior],
    plan: Plan,
    target: Target,
    row: Row,
    outcome: Outcome,
    findings: Sequence[Diagnostic],
) -> None:
    """Add what an engine found for a row: its draws first, so that nothing that fails on them later
    loses them.
    """
    warnings = [finding.message for finding in findings if _matters(finding, plan.chosen.name)]
    drawn = drawn_row(target, row, outcome, warnings)
    results.append(drawn)
    judged = judged_row(drawn, target, outcome, plan.chosen.name, findings)
    results[-1] = replace(judged, warnings=[*judged.warnings, *plan.needs(judged)])


def prepare(program: ir.Program, request: Request) -> tuple[Engine, str, Settings, Any]:
    """The engine, why it is taken, and its settings and options. Raises LmpplError, before any
    model is loaded.
    """
    learned = request.adapter is not None or request.resume
    written = program.engine.engine if program.engine else None
    if (
        learned
        and request.engine == "auto"
        and not (written in ENGINE_NAMES and engine(written).learn)
    ):
        name, reason = "gflownet", "what was learned before is given"
    else:
        name, reason = pick_engine(program, request.engine)
    chosen = engine(name)
    settings, options = configure(program, chosen, request)
    require_memory(name, settings, options)
    if learned and chosen.learn is None:
        raise LmpplError(learning_findings.engine_learns_nothing(name))
    if request.adapter is not None and request.resume:
        raise LmpplError(learning_findings.adapter_and_resume())
    if problem := chosen.cannot(program):
        raise LmpplError(run_findings.engine_cannot(name, problem, program.source))
    require_capabilities(program, chosen, options, request.lms)
    if request.adapter is not None:
        from lmppl.engines.amortised import require_learned

        require_learned(program, request.adapter)
    return chosen, reason, settings, options


def begun(request: Request, chosen: Engine) -> tuple[Request, list[Diagnostic]]:
    """The request, that of a new run where it asks to go on with training that has kept nothing
    yet; and a note.
    """
    folder = request.folder
    if (
        not request.resume
        or folder is None
        or checkpoints(folder)
        or (folder / "run.json").exists()
    ):
        return request, []
    return replace(request, engine=chosen.name, resume=False), [
        learning_findings.begun_anew(str(folder))
    ]


def configure(program: ir.Program, chosen: Engine, request: Request) -> tuple[Settings, Any]:
    """Settings and options: defaults, then the program's `infer`, then what was asked for. Raises
    LmpplError.
    """
    written = program.engine if program.engine and program.engine.engine == chosen.name else None
    own = dict(written.options) if written else {}
    span = written.span if written else None
    names = [field.name for field in fields(Settings)]
    in_program = {name: value for name, value in own.items() if name in names}
    require_ranges(chosen.name, request)
    settings = parse_options(chosen.name, Settings(), in_program, program.source, span)
    settings = parse_options(chosen.name, settings, request.settings)
    rest = {name: value for name, value in own.items() if name not in names}
    options = parse_options(chosen.name, chosen.options(), rest, program.source, span)
    options = parse_options(chosen.name, options, request.options)
    require_together(chosen.name, options)
    if vars(options).get("proposal"):
        from lmppl.engines.amortised import require_proposal

        require_proposal(program, options)
    return settings, options


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
    from lmppl.engines import predictions

    def measured(draw: Draw, sample: Sample) -> Draw:
        return replace(draw, statistics=target.statistics(sample.state))

    draws, support = drawn.draws, drawn.support
    if target.program.statistics:
        draws = paired(draws, outcome.samples, measured)
        support = _support(target, outcome, draws)
    diagnostics = replace(_diagnostics(target, outcome), unguided=_unguided(findings))
    checks = diagnose(
        _judged(target, draws), diagnostics, traits(engine), _limits(target), _choices(target)
    ).checks
    law = predictions(target, outcome)
    warnings = [*drawn.warnings, *_said(target, outcome, draws)]
    return replace(
        drawn,
        draws=draws,
        support=support,
        predictions=law,
        prior=outcome.prior or _prior(target),
        diagnostics=diagnostics,
        checks=checks,
        warnings=warnings,
    )


def _diagnostics(target: Target, outcome: Outcome) -> Diagnostics:
    """What the engine reports, and what is measured of every engine."""
    from lmppl.engines import score_mismatch

    mismatch = score_mismatch(target, outcome.samples)
    return replace(outcome.diagnostics, score_mismatch=mismatch)


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
    """What there is to say of declared statistics."""

    def reasons(place: int) -> dict[str, str]:
        return {
            name: found.reason
            for name, found in target.numbers(outcome.samples[place].state).items()
        }

    return said(target.program, draws, reasons)


def _limits(target: Target) -> dict[str, int]:
    """Most tokens of the texts that end with their limit or the end token."""
    texts = target.texts
    return {latent.name: latent.maximum for latent in texts if latent.until is None}


def _choices(target: Target) -> list[str]:
    return [latent.name for latent in target.choices]


def _nothing_to_infer(target: Target) -> Outcome:
    """Every latent is observed: the evidence is the density itself."""
    density = target.log_density([{}])
    factors = {name: float(values[0]) for name, values in density.factors.items()}
    total = float(density.total[0])
    return Outcome(
        [Sample(0, 0, {}, total, factors)],
        total,
        0.0,
        diagnostics=Diagnostics(method="all latents are observed"),
    )


def _draw(target: Target, sample: Sample) -> Draw:
    return Draw(
        _values(target, sample.state),
        _tokens(target, sample.state),
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
        return Supported(_values(target, state), _tokens(target, state), mass)
    return Supported(
        draw.values, draw.tokens, mass, draw.log_density, draw.factors, draw.statistics
    )


def _judged(target: Target, draws: Sequence[Draw]) -> Sequence[Draw]:
    """Draws that checks look at: of a law over choices that is known, no draw tells anything that
    it does not.
    """
    return draws if target.texts or not isinstance(draws, Repeated) else []


def _values(target: Target, state: State) -> dict[str, str]:
    return {name: target.text(name, value) for name, value in state.items()}


def _tokens(target: Target, state: State) -> dict[str, list[int]]:
    return {name: list(target.tokens(name, value)) for name, value in state.items()}


def _next(outcomes: Iterator[Outcome], findings: Sequence[Diagnostic]) -> Outcome:
    """The next row's outcome. Where it fails, what binding the row has found may say why. Raises
    LmpplError.
    """
    try:
        return next(outcomes)
    except LmpplError as reason:
        raise LmpplError(*reason.diagnostics, *findings) from None


def _matters(finding: Diagnostic, engine: str) -> bool:
    """Whether a finding is worth saying: an engine that finds the whole law needs no guide."""
    return finding.code != "unguided" or not traits(engine).whole


def _numbered(progress: Progress, number: int, total: int) -> Progress:
    """Progress that says which row it is about, where there are several."""
    if total == 1:
        return progress
    return lambda what, done, of: progress(f"row {number + 1} of {total}: {what}", done, of)
