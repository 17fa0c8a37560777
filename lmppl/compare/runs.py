"""The comparison itself: a reference, then every entry at its sizes under every seed, then one
document.

Everything that takes a model's work is a run in the store, so whatever was done before is read and
not repeated.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmppl import ir
from lmppl.compare import reference as references
from lmppl.compare.columns import COLUMNS
from lmppl.compare.entries import Entry
from lmppl.compare.measure import measure, names_of
from lmppl.compare.reference import Reference
from lmppl.compare.sizes import settings_of, sizes
from lmppl.compare.store import SHOWN, Store, digest, key_of_texts, read_json
from lmppl.engines import ENGINE_NAMES, engine, traits
from lmppl.engines.mcmc_kernel import PEAKED
from lmppl.errors import LmpplError, first_line, ran_out_of_memory
from lmppl.findings import run as run_findings
from lmppl.posterior import RowPosterior, load, require_whole, save
from lmppl.run import (
    Request,
    forget_prompts,
    learned_before,
    of_learned,
    origin,
    prepare,
)
from lmppl.run import run as infer
from lmppl.screen import Progress, quiet
from lmppl.settings import Budget, seed_after
from lmppl.storage import checkpoints, recover

if TYPE_CHECKING:
    from lmppl.data import Row
    from lmppl.lm import LanguageModel

GOLD = "annealed"
NONE = "none"  # no reference, and no bounds
GOLD_SHARE = 4  # budgets that the gold engine gets
GOLD_SEED = 1_000_000  # apart from the seeds of the entries
SEARCHED = 2_000  # prefixes that the exact posterior may take where it was not asked for
PINNED = 200  # draws of the bounds on the evidence
SIMULATIONS = 5
OF_FILES = (  # findings that speak of files, and of no engine
    "adapter-missing", "adapter-unusable", "broken-checkpoint", "broken-run", "checkpoint-differs",
    "folder-in-use",
    "model-unusable", "newer-format", "no-run", "unwritable-folder",
)  # fmt: skip
# at one simulation, where bounds were not asked for: rare constraints would hold everything up
ATTEMPTS = 256


@dataclass(frozen=True)
class Job:
    """What is to be compared.

    rows: what engines see; lessons: the rows that engines which learn are trained on; examples:
    those with the texts of latents as well, for engines that imitate.
    """

    program: ir.Program
    rows: Sequence[Row]
    lessons: Sequence[Row]
    examples: Sequence[Row]
    held_out: Sequence[Mapping[str, str]]  # texts and labels of latents, by name, a row
    models: Mapping[str, LanguageModel]
    entries: Sequence[Entry]
    budget: Budget | None = None
    seeds: int = 4
    seed: int = 0
    batch_size: int = 64
    against: str = "auto"  # auto, exact, bounds, none, or an engine
    bounds: bool = True  # of the evidence, where there is no exact posterior
    told: Callable[[str], None] = field(default=lambda line: None)  # a line a finished run
    progress: Progress = quiet

    def content(self, rows: Sequence[Row]) -> dict[str, Any]:
        """What decides draws, beside an engine and its options."""
        from lmppl.version import VERSION

        made = {"lmppl": VERSION, "factors": repr(self.program.factors)}
        return {**made, **origin(self.program, rows, self.models)}

    def says(self, what: str) -> Progress:
        """Progress under a heading."""
        return lambda doing, done, total: self.progress(f"{what}: {doing}", done, total)


@dataclass(frozen=True)
class Result:
    """An entry's runs: of every size, smallest first, one a seed. fits: what was learned, one a
    seed.
    """

    entry: Entry
    places: Sequence[Sequence[Path]] = ()
    fits: Sequence[Path] = ()
    reason: str | None = None  # why there are none
    bug: str | None = None  # what of lmppl's failed, where that is the reason

    def last(self) -> list[Path]:
        """The runs of the largest size."""
        return list(self.places[-1]) if self.places else []


# --- one run --------------------------------------------------------------------------------------


def place_of(
    job: Job, store: Store, entry: Entry, seed: int, draws: int | None, fit: Path | None
) -> Path:
    """Where the run of this size belongs."""
    settings, options = _sized(entry, draws)
    made = {**job.content(job.rows), "settings": settings, "options": options, "seed": seed}
    made["learned"] = learned_before(options)
    if fit is not None:
        made["fit"] = of_learned(fit)
    return store.place("runs", entry.engine, made)


def _sized(entry: Entry, draws: int | None) -> tuple[Mapping[str, int], Mapping[str, Any]]:
    return (entry.settings, entry.options) if draws is None else settings_of(entry, draws)


def _runs(
    job: Job, store: Store, entry: Entry, draws: int | None, fits: Sequence[Path]
) -> list[Path]:
    """The runs of one size, one a seed."""
    places = []
    for n in range(job.seeds):
        fit = fits[n] if fits else None
        places.append(_run(job, store, entry, seed_after(job.seed, n), draws, fit))
    return places


def _run(
    job: Job, store: Store, entry: Entry, seed: int, draws: int | None, fit: Path | None
) -> Path:
    """The place of a run that is done, made first where it is not."""
    place = place_of(job, store, entry, seed, draws, fit)
    recover(place)
    if not (place / "run.json").exists():
        settings, options = _sized(entry, draws)
        request = Request(entry.engine, settings, options, seed, job.batch_size, adapter=fit)
        heading = f"{entry.label}, seed {seed - job.seed + 1}"
        save(infer(job.program, job.rows, job.models, request, job.says(heading)), place)
        job.told(
            f"{heading}: {_cost(place, 'tokens'):,.0f} tokens a row, "
            f"{_cost(place, 'seconds'):.1f} s"
        )
    else:
        require_whole(place)
    return place


def _cost(place: Path, unit: str) -> float:
    """What a data row has cost in a run that is done; its draws are not read for that."""
    document = read_json(place / "run.json")
    cost = document["cost"]
    total = cost["seconds"] if unit == "seconds" else cost["tokens_decoded"] + cost["tokens_scored"]
    return total / max(len(document["rows"]), 1)


def _fit(job: Job, store: Store, entry: Entry, seed: int) -> Path:
    """The folder of what an engine has learned, trained first, or further, where it is not done."""
    from lmppl.engines.amortised import DRAWING

    options = {name: value for name, value in entry.options.items() if name not in DRAWING}
    rows = job.examples if engine(entry.engine).imitates else job.lessons
    made = {
        **job.content(rows),
        "options": options,
        "learned": learned_before(options),
        "seed": seed,
    }
    place = store.place("fits", entry.engine, made)
    recover(place)
    if not (place / "run.json").exists():
        request = Request(
            entry.engine, {}, options, seed, job.batch_size,
            folder=place, resume=bool(checkpoints(place)), only_learn=True,
        )  # fmt: skip
        heading = f"{entry.label}, seed {seed - job.seed + 1}, training"
        place.mkdir(parents=True, exist_ok=True)
        posterior = infer(job.program, rows, job.models, request, job.says(heading))
        save(posterior, place)
        job.told(f"{heading}: {posterior.cost['seconds']:.0f} s")
    return place


# --- one entry ------------------------------------------------------------------------------------


def run_entry(job: Job, store: Store, entry: Entry) -> Result:
    """All runs of an entry; a reason in their place where it cannot be run. Raises LmpplError where
    files are damaged, or cannot be written: that says nothing of an engine. With LMPPL_TRACEBACK
    set, a bug is raised as it is."""
    bug = None
    try:
        prepare(job.program, Request(entry.engine, entry.settings, entry.options, lms=job.models))
        fits = (
            [_fit(job, store, entry, seed_after(job.seed, n)) for n in range(job.seeds)]
            if entry.learns
            else []
        )
        counts = _counts(job, store, entry, fits[0] if fits else None)
        places = [_runs(job, store, entry, draws, fits) for draws in counts]
        return Result(entry, places, fits)
    except LmpplError as failure:
        if _speaks_of_files(failure):
            raise
        reason = "; ".join(_said(diagnostic) for diagnostic in failure.diagnostics)
    except (KeyboardInterrupt, OSError):
        raise
    except Exception as failure:  # a bug of one engine's is no reason to lose the others' work
        if "LMPPL_TRACEBACK" in os.environ:
            raise
        if ran_out_of_memory(failure):
            reason = f"memory ran out: {first_line(failure)}"
        else:
            bug = f"{type(failure).__name__}: {failure}"
            reason = f"a bug in lmppl: {bug}"
    job.told(f"{entry.label}: {reason}")
    return Result(entry, reason=reason, bug=bug)


def _speaks_of_files(failure: LmpplError) -> bool:
    return any(diagnostic.code in OF_FILES for diagnostic in failure.diagnostics)


def _said(diagnostic: Any) -> str:
    return f"{diagnostic.message}. {diagnostic.help}" if diagnostic.help else diagnostic.message


def _counts(job: Job, store: Store, entry: Entry, fit: Path | None) -> Sequence[int | None]:
    """Draws a chain of every size; None: the engine's own."""
    if job.budget is None or traits(entry.engine).whole:
        return [None]
    unit = job.budget.unit

    def cost_of(draws: int) -> float:
        return _cost(_run(job, store, entry, job.seed, draws, fit), unit)

    return sizes(cost_of, job.budget)


def measured(job: Job, store: Store, place: Path, reference: Reference) -> dict[str, Any]:
    """What measure.measure finds of a run, worked out once, and again where columns are others."""
    truths = [_identity(truth) for truth in reference.truths]
    columns = [column.key for column in COLUMNS]
    key = digest([place.name, reference.title, truths, job.held_out, columns])
    return store.kept(
        place / "measures.json",
        key,
        lambda: measure(load(place), reference, job.held_out, names_of(job.program)),
    )


def _identity(truth: references.Truth | None) -> Any:
    if truth is None:
        return None
    return [truth.log_evidence, len(truth.weights), float(truth.weights @ truth.lengths)]


# --- the reference --------------------------------------------------------------------------------


def find_reference(job: Job, store: Store) -> Reference:
    """The exact posterior, or gold, or nothing, as was asked for. Raises LmpplError where that
    cannot be had.
    """
    known = {entry.label: entry for entry in job.entries}
    if job.against in known or (job.against in ENGINE_NAMES and job.against != "exact"):
        return _gold(job, store, known.get(job.against) or Entry(job.against, job.against))
    if job.against == NONE:
        return references.nothing(len(job.rows), "No reference was asked for.")
    if job.against == "bounds":
        return references.nothing(
            len(job.rows), "No reference was asked for, but bounds of the evidence."
        )
    if job.against not in ("auto", "exact"):
        raise LmpplError(
            run_findings.unknown_engine(
                job.against, [*ENGINE_NAMES, *known, "auto", "bounds", NONE]
            )
        )
    asked = next((entry for entry in job.entries if entry.engine == "exact"), None)
    limits = (
        {"max_evaluations": SEARCHED if _peaked(job.program) else 0}
        if job.against == "auto"
        else {}
    )
    entry = asked or Entry("exact", "exact", {"chains": 1, "num_samples": 100}, limits)
    try:
        prepare(job.program, Request("exact", entry.settings, entry.options, lms=job.models))
        place = _run(job, store, entry, job.seed, None, None)
        found = references.exact(load(place), place)
    except LmpplError as failure:
        if job.against == "exact" or any(
            diagnostic.code != "engine-cannot" for diagnostic in failure.diagnostics
        ):
            raise
        found = None
    if found is None and job.against == "exact":
        reason = "the search was cut short; allow more with -o exact.max_evaluations=N"
        raise LmpplError(run_findings.engine_cannot("exact", reason, job.program.source))
    return found or _gold(job, store, known.get(GOLD) or Entry(GOLD, GOLD))


def _peaked(program: ir.Program) -> bool:
    """Whether a search has a chance: powers below PEAKED leave too many texts probable."""
    return all(latent.total_power >= PEAKED for latent in program.texts)


def _gold(job: Job, store: Store, entry: Entry) -> Reference:
    """A run of GOLD_SHARE budgets, under a seed of its own."""
    seed = seed_after(job.seed, GOLD_SEED)
    fit = _fit(job, store, entry, seed) if engine(entry.engine).learn is not None else None
    larger = (
        None if job.budget is None else replace(job.budget, amount=GOLD_SHARE * job.budget.amount)
    )
    golden = replace(job, budget=larger, seed=seed)
    counts = _counts(golden, store, replace(entry, label=f"gold ({entry.label})"), fit)
    place = _run(golden, store, entry, seed, counts[-1], fit)
    return references.gold(load(place), entry.label, place)


def evidence_bounds(job: Job, store: Store) -> dict[str, Any] | None:
    """Two-sided bounds of the log evidence on data that the program simulates; None where it
    cannot.

    Raises LmpplError where they were asked for and cannot be had.
    """
    from lmppl.validation import MOST_ATTEMPTS, PROPOSER, certify, require_simulation

    if job.against == NONE:
        return None
    asked = job.against == "bounds"
    made = {**job.content(job.rows), "seed": job.seed, "shape": [PINNED, SIMULATIONS, asked]}
    request = Request(
        PROPOSER,
        {"chains": 1, "num_samples": PINNED},
        seed=job.seed,
        batch_size=job.batch_size,
    )

    def make() -> dict[str, Any] | None:
        forget_prompts(job.models)
        try:
            require_simulation(job.program)
            found = certify(
                job.program, job.rows, job.models, request, SIMULATIONS, job.says("bounds"),
                MOST_ATTEMPTS if asked else ATTEMPTS,
            )  # fmt: skip
            return found.document()
        except LmpplError as failure:
            if asked or _speaks_of_files(failure):
                raise
            return None

    return store.kept(store.folder / "bounds.json", digest(made), make)


# --- texts ----------------------------------------------------------------------------------------


def shown_texts(job: Job, store: Store, results: Sequence[Result]) -> None:
    """Work out `texts.json`: log probabilities, token by token, of the texts that a page shows."""
    from lmppl.compare.texts import chosen, per_token
    from lmppl.density import Binding

    first = {result.entry.label: result.last()[0] for result in results if result.last()}

    def make() -> list[list[dict[str, Any]]]:
        forget_prompts(job.models)
        posteriors = {label: load(place) for label, place in first.items()}
        binding = Binding.of(job.program, job.models, batch_size=job.batch_size)
        found = []
        for number, row in enumerate(job.rows):
            own: dict[str, RowPosterior] = {
                label: one.rows[number] for label, one in posteriors.items()
            }
            draws = [draw for draw in chosen(own).values() if draw.values]
            target, _ = binding.bind(row)
            tokens = per_token(target, draws)
            found.append([_text(draw, each) for draw, each in zip(draws, tokens, strict=True)])
            job.progress("reading the texts that a page shows", number + 1, len(job.rows))
        return found

    store.kept(store.folder / SHOWN, key_of_texts(place.name for place in first.values()), make)


def _text(draw: Any, tokens: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "values": draw.values,
        "log_density": draw.log_density,
        "factors": draw.factors,
        "tokens": tokens,
    }
