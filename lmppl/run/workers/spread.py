"""A run over workers: rows in shards, results kept as they come, and one posterior in the end.

Draws are keyed by row and purpose, and prompts are run anew where a shard begins, so the posterior
is that of one process, bit for bit, whoever has drawn which shard.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lmppl import ir
from lmppl.data import Row
from lmppl.engines import engine
from lmppl.errors import Diagnostic, LmpplError
from lmppl.findings import run as run_findings
from lmppl.findings import workers as findings
from lmppl.posterior import (
    ABOUT,
    Interruption,
    Keeper,
    Posterior,
    WrittenRow,
    finite,
    read_document,
    write_whole,
)
from lmppl.run.driver import why
from lmppl.run.engine_choice import Setup, configure, prepare
from lmppl.run.provenance import besides, describe_program, made_from
from lmppl.run.request import Request
from lmppl.run.shards import SHARD, shards
from lmppl.run.workers.crew import About, Crew, Opening, Order, Plan, Shard, Ways
from lmppl.run.workers.dispatch import Display, hand_out
from lmppl.run.workers.found import Found, InMemory, OnDisk
from lmppl.screen import Progress, quiet
from lmppl.shapes import Document
from lmppl.storage import CHECKSUM, UNFINISHED, differences, is_broken, sealed
from lmppl.version import VERSION

FORMAT = 1  # of what is kept of a run that has not ended


@dataclass(frozen=True)
class Spread:
    """What is to be run over workers. made_from: all that decides its density."""

    opening: Opening
    rows: Sequence[Row]
    progress: Progress
    about: About
    made_from: Mapping[str, Any]
    started: float = field(default_factory=time.perf_counter)


def require_workers(program: ir.Program, request: Request) -> Setup:
    """What a request comes to. Raises LmpplError where its rows cannot be drawn by several
    processes, before any of them is started.
    """
    setup = prepare(program, replace(request, resume=False))
    if setup.engine.learn is not None and request.adapter is None:
        raise LmpplError(findings.learns_from_all_rows(setup.engine.name))
    if request.budget is not None and request.budget.unit == "seconds":
        raise LmpplError(findings.one_clock(str(request.budget)))
    handed = [name for name, model in request.lms.items() if not isinstance(model, str)]
    if handed:
        raise LmpplError(findings.model_of_this_process(handed[0]))
    return setup


def require_unfinished(request: Request) -> list[Diagnostic]:
    """Notes on a run that is to be gone on with. Raises LmpplError where it has ended."""
    if not request.resume or request.folder is None:
        return []
    if (request.folder / UNFINISHED / ABOUT).exists():
        return []
    if (request.folder / "run.json").exists():
        raise LmpplError(findings.nothing_left(str(request.folder)))
    return [findings.rows_begun_anew(str(request.folder))]


def infer_over(
    start: Callable[[Opening], Crew],
    program: ir.Program,
    rows: Sequence[Row],
    request: Request,
    ways: Ways,
    progress: Progress = quiet,
    cut_short: Callable[[Posterior], None] = lambda posterior: None,
) -> Posterior:
    """Infer every row of a program by the workers that `start` gives. Where the request names a
    folder, rows are kept there as they come, and read from there when they are asked for; with
    `resume` those that are there are not drawn again.

    cut_short: as `infer` has it; it is told of the first rows, up to one that is not done. Raises
    LmpplError.
    """
    require_workers(program, request)
    asked = replace(request, folder=None, resume=False)
    opening = Opening(program, asked, ways)
    crew = start(opening)
    try:
        opened = hand_out(
            crew,
            [Order("open") for _ in range(crew.size)],
            Display(progress, "loading models", 0),
        )
        about = _one_of(opened)
        spread = Spread(opening, rows, progress, about, made_from(program, rows, about.models))
        return _infer(spread, crew, request, cut_short)
    finally:
        crew.close()


def _one_of(opened: Sequence[About]) -> About:
    """What all workers say. Raises LmpplError where they have loaded other models."""
    for about in opened[1:]:
        if found := list(differences(opened[0].models, about.models)):
            raise LmpplError(findings.workers_differ(found))
    return opened[0]


def _infer(
    spread: Spread, crew: Crew, request: Request, cut_short: Callable[[Posterior], None]
) -> Posterior:
    count = len(spread.rows)
    place = None if request.folder is None else request.folder / UNFINISHED
    known = place is not None and request.resume and (place / ABOUT).exists()
    plan = _known_plan(spread, place) if place and known else _plan(spread, crew)
    found: Found = InMemory(plan.engine, count)
    if place is not None:
        found = OnDisk(plan.engine, Keeper(place, count, begin=not known))
    if place is not None and not known:
        about = {**_about(spread), "plan": finite(vars(plan))}
        write_whole(place / ABOUT, json.dumps(sealed(about), ensure_ascii=False, indent=1))
    try:
        _draw(spread, crew, plan, found)
    except (KeyboardInterrupt, Exception) as stopped:
        done = found.first_rows()
        if done:
            cut_short(_posterior(spread, plan, found, Interruption(why(stopped), done, count)))
        raise
    return _posterior(spread, plan, found, None)


def _draw(spread: Spread, crew: Crew, plan: Plan, found: Found) -> None:
    """Draw all rows that are not there."""
    rows = spread.rows
    left = [shard for shard in shards(len(rows)) if not all(map(found.has, shard))]
    parts = [Shard(shard.start, rows[shard.start : shard.stop]) for shard in left]
    total = sum(map(len, left))
    hand_out(
        crew,
        (Order("check", part) for part in parts),
        Display(spread.progress, "reading rows", total),
    )
    everyone = [Order("take", plan) for _ in range(crew.size)]
    hand_out(crew, everyone, Display(spread.progress, "beginning", 0))
    many = f"{crew.size} workers" if crew.size > 1 else "one worker"
    display = Display(spread.progress, f"rows by {many}", len(rows), len(rows) - total)

    def take(row: WrittenRow) -> None:
        found.add(row, found.earlier + time.perf_counter() - spread.started)
        display.done += 1
        display.show()

    hand_out(crew, (Order("draw", part) for part in parts), display, take)


def _plan(spread: Spread, crew: Crew) -> Plan:
    """The engine and its sizes: found by one worker where a budget decides, else as asked for."""
    request, program = spread.opening.request, spread.opening.program
    setup = prepare(program, request)
    plain = Plan(setup.engine.name, setup.reason, request.settings, request.options)
    free = setup.engine.name == "annealed" and request.engine == "auto" and program.engine is None
    if request.budget is None and not (free and request.quick):
        return plain
    display = Display(spread.progress, "looking at the first rows", 0)
    return hand_out(crew, [Order("plan", spread.rows)], display)[0]


# --- going on -------------------------------------------------------------------------------------


def _about(spread: Spread) -> Document:
    """All that decides what is kept: who goes on must agree with it."""
    request = spread.opening.request
    return finite({
        "format": FORMAT,
        "lmppl": VERSION,
        **spread.made_from,
        "learned": _learned(spread),
        "engine": request.engine,
        "settings": dict(request.settings),
        "options": {name: str(value) for name, value in request.options.items()},
        "budget": None if request.budget is None else str(request.budget),
        "quick": request.quick,
        "seed": request.seed,
        "batch_size": request.batch_size,
        "rows": len(spread.rows),
        "shard": SHARD,
    })  # fmt: skip


def _learned(spread: Spread) -> Document:
    request = spread.opening.request
    return besides(spread.made_from, request.options, request.adapter).get("learned", {})


def _known_plan(spread: Spread, place: Path) -> Plan:
    """The plan of the run that is gone on with. Raises LmpplError where it was made from other
    things.
    """
    try:
        document = read_document(place / ABOUT)
        if is_broken(document):
            raise ValueError(f"`{place / ABOUT}` is not the file that was written")
        plan = Plan(**document["plan"])
    except (ValueError, KeyError, TypeError) as reason:
        raise LmpplError(run_findings.run_damaged(place, f"{reason!s:.160}")) from None
    then = {name: value for name, value in document.items() if name not in (CHECKSUM, "plan")}
    if found := list(differences(then, _about(spread))):
        what = f"the rows in `{place}` were"
        raise LmpplError(run_findings.made_from_others("other-rows", what, found))
    return plan


# --- the end --------------------------------------------------------------------------------------


def _posterior(
    spread: Spread, plan: Plan, found: Found, interrupted: Interruption | None
) -> Posterior:
    """What was found, of the first rows where it was cut short."""
    program, asked = spread.opening.program, spread.opening.request
    request = replace(asked, settings=plan.settings, options=plan.options)
    settings, options = configure(program, engine(plan.engine), request)
    cost: dict[str, float] = {"tokens_decoded": 0, "tokens_scored": 0, "forward_passes": 0}
    for name, amount in (*plan.cost.items(), *found.cost.items()):
        cost[name] = cost.get(name, 0) + amount
    seconds = found.earlier + time.perf_counter() - spread.started
    made: dict[str, Any] = {"engine_reason": plan.reason, "params": dict(program.params)}
    if plan.budget is not None:
        made["budget"] = {**plan.budget, "spent": cost["tokens_decoded"] + cost["tokens_scored"]}
    return Posterior(
        describe_program(program),
        plan.engine,
        request.seed,
        spread.about.models,
        {**vars(settings), **vars(options), **made},
        found.rows(found.first_rows()),
        {**cost, "seconds": seconds},
        interrupted,
        besides(spread.made_from, vars(options), request.adapter),
    )
