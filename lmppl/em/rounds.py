"""Expectation-maximisation round by round: E-step, a look at rows held out, M-step; what is done is
not done again.

`rounds/N/draws/` is the run of the E-step under the model of round N, `rounds/N/held-out/` that of
rows held out, and `rounds/N/LM/` the adapter that the M-step has fitted, which makes the model of
round N + 1. Round 0 has the model as it was loaded. `em.json` says what was found. Every step is a
folder that is there as a whole or not at all.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmppl import ir
from lmppl.data import Row
from lmppl.em.cases import Case, case_of
from lmppl.em.findings import best_of, finding, line_of, told
from lmppl.em.maximise import Fit, maximise
from lmppl.engines import engine
from lmppl.errors import LmpplError, error
from lmppl.findings import run as run_findings
from lmppl.lm.transformers import FILES
from lmppl.posterior import Posterior, finite, load, read_document, require_known, save, write_whole
from lmppl.run import (
    Request,
    describe_program,
    learned_before,
    open_session,
    prepare,
    program_files,
    require_trainable,
    run,
)
from lmppl.screen import Progress, quiet
from lmppl.settings import seed_after
from lmppl.shapes import Document
from lmppl.storage import (
    checkpoints,
    differences,
    is_broken,
    locked,
    of_value,
    recover,
    replacing,
    sealed,
)

if TYPE_CHECKING:
    from lmppl.lm import LanguageModel

DOCUMENT, FORMAT = "em.json", 1
PUBLISHED = "learned"  # the folder of what the best round has
POLICY = "policy"  # what the E-step's engine has learned, where it learns
WATCHER = "importance"  # estimates the evidence of rows held out where the E-step's engine has none

Models = Mapping[str, "LanguageModel"]


@dataclass(frozen=True)
class Job:
    """What to do. load: the program's models, some of them with adapters from folders, by name;
    identify: what `origin.describe_model` says of those that are loaded without."""

    program: ir.Program
    rows: Sequence[Row]
    held_out: Sequence[Row]  # the training rows where none are held out
    load: Callable[[Mapping[str, Path]], Models]
    request: Request  # the E-step's engine, settings, options and seed
    fit: Fit = field(default_factory=Fit)
    rounds: int = 4
    patience: int = 1  # rounds without a rise before it is over
    told: Callable[[str], None] = field(default=lambda line: None)  # a line a finished round
    progress: Progress = quiet
    identify: Callable[[], Mapping[str, Any]] = dict

    def about(self) -> dict[str, Any]:
        """What a folder that is taken up again must have been made from. Raises LmpplError."""
        rows = [row.content() for row in self.rows]
        held_out = [row.content() for row in self.held_out]
        return finite({
            "program": describe_program(self.program)["sha256"],
            "params": dict(self.program.params),
            "files": program_files(self.program),
            "models": self.identify(),
            "rows": of_value([rows, held_out]),
            "engine": self.request.engine,
            "settings": dict(self.request.settings),
            "options": {name: str(value) for name, value in self.request.options.items()},
            "seed": self.request.seed,
            "learned": learned_before(self.request.options),
            "fit": asdict(self.fit),
        })  # fmt: skip

    def says(self, what: str) -> Progress:
        return lambda doing, done, total: self.progress(f"{what}: {doing}", done, total)


def expectation_maximisation(job: Job, folder: Path) -> Document:
    """Go on with the rounds in a folder until they stop paying, or all are done; the document.
    Raises LmpplError.
    """
    require_learnable(job.program)
    require_trainable(job.program, job.request.lms)
    prepare(job.program, job.request)
    _require_own(folder)
    with locked(folder, "expectation-maximisation"):
        earlier = _read(folder) or _keep(job, folder, [], False)
        try:
            return _rounds(job, folder, len(earlier["rounds"]))
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"what is done is kept in `{folder}`; the same command goes on"
            ) from None


def _rounds(job: Job, folder: Path, known: int) -> dict[str, Any]:
    """Go through the rounds; known: of how many the document tells already."""
    lines: list[dict[str, Any]] = []
    while True:
        number = len(lines)
        _require_same(job, folder)
        models = cache(
            partial(job.load, _fitted(job.program, folder, number))
        )  # not where all is done already
        found = _expect(job, folder, number, models)
        watched = found if job.held_out is job.rows else _watch(job, folder, number, models, found)
        del models  # the M-step loads its own
        lines.append(line_of(number, found, watched))
        job.told(told(lines[-1]))
        over = number == job.rounds or number - best_of(lines) >= job.patience
        if over:
            _publish(job.program, folder, best_of(lines))
            return _keep(job, folder, lines, over)
        if len(lines) > known:
            _keep(job, folder, lines, over)
        _maximise(job, folder, number, found)


def _require_same(job: Job, folder: Path) -> None:
    """Raise LmpplError where a folder's rounds were made from other things than are there now, at
    its beginning or since."""
    then, now = (_read(folder) or {})["about"], job.about()
    if found := list(differences(then, now)):
        raise LmpplError(
            run_findings.made_from_others("other-rounds", f"the rounds in `{folder}` were", found)
        )


def _keep(
    job: Job, folder: Path, lines: Sequence[Mapping[str, Any]], finished: bool
) -> dict[str, Any]:
    """Write the document, and return it."""
    document = finite({
        "format": FORMAT,
        "about": job.about(),
        "held_out": job.held_out is not job.rows,
        "rounds": list(lines),
        "best": best_of(lines) if lines else 0,
        "finished": finished,
        "finding": finding(lines) if lines else None,
        "learned": list(job.program.learned),
    })  # fmt: skip
    write_whole(
        folder / DOCUMENT,
        json.dumps(sealed(document), ensure_ascii=False, allow_nan=False, indent=1),
    )
    return document


def require_learnable(program: ir.Program) -> None:
    """Raise LmpplError where a program learns nothing."""
    if not program.learned:
        message = "this program has no `learn`: there is nothing to maximise"
        raise LmpplError(
            error(
                "nothing-learned", message, help=f"write `learn {program.models[0].name}` into it"
            )
        )


# --- steps ----------------------------------------------------------------------------------------


def _place(folder: Path, number: int, what: str) -> Path:
    return folder / "rounds" / str(number) / what


def _fitted(program: ir.Program, folder: Path, number: int) -> dict[str, Path]:
    """Adapters of the models of a round: what the round before has fitted."""
    return {name: _place(folder, number - 1, name) for name in program.learned} if number else {}


def _expect(job: Job, folder: Path, number: int, models: Callable[[], Models]) -> Posterior:
    """The E-step's draws for the training rows."""
    place = _place(folder, number, "draws")
    recover(place)
    if (place / "run.json").exists():
        return load(place)
    asked, options = job.request, dict(job.request.options)
    learns = prepare(job.program, asked).engine.learn is not None
    if learns and number:
        options.setdefault("start_from", str(_place(folder, number - 1, "draws")))
    own = {"folder": place, "resume": bool(checkpoints(place))} if learns else {}
    request = Request(
        asked.engine,
        asked.settings,
        options,
        seed_after(asked.seed, number),
        asked.batch_size,
        **own,
    )
    place.mkdir(parents=True, exist_ok=True)
    found = run(job.program, job.rows, models(), request, job.says(f"round {number}, E-step"))
    save(found, place)
    return found


def _watch(
    job: Job, folder: Path, number: int, models: Callable[[], Models], found: Posterior
) -> Posterior:
    """The evidence of rows held out, by what the E-step drew with, where that estimates any."""
    place = _place(folder, number, "held-out")
    recover(place)
    if (place / "run.json").exists():
        return load(place)
    asked = job.request
    request = Request(WATCHER, asked.settings, {}, seed_after(asked.seed, number), asked.batch_size)
    if all(row.log_evidence is not None for row in found.rows):
        learned = engine(found.engine).learn is not None
        adapter = _place(folder, number, "draws") if learned else None
        seed = seed_after(asked.seed, number)
        request = Request(
            found.engine, asked.settings, asked.options, seed, asked.batch_size, adapter=adapter
        )
    watched = run(
        job.program, job.held_out, models(), request, job.says(f"round {number}, rows held out")
    )
    save(watched, place)
    return watched


def _maximise(job: Job, folder: Path, number: int, found: Posterior) -> None:
    """Fit the adapters of the next round's models, each from where it was."""
    wanting = [name for name in job.program.learned if not _place(folder, number, name).exists()]
    if not wanting:
        return
    models = job.load({})
    session = open_session(job.program, job.rows, models, job.request)
    cases = []
    for row, posterior in zip(job.rows, found.rows, strict=True):
        if case := case_of(session.bind(row)[0], posterior):
            cases.append(case)
    if not cases:
        raise LmpplError(run_findings.nothing_drawn(found.engine))
    for name in wanting:
        before = _fitted(job.program, folder, number).get(name)
        _fit(job, cases, name, models[name], before, _place(folder, number, name))


def _fit(
    job: Job,
    cases: Sequence[Case],
    name: str,
    base: LanguageModel,
    before: Path | None,
    place: Path,
) -> None:
    """Fit one model's adapter, fresh or from where it was, into a folder that is there as a whole
    or not at all.
    """
    from lmppl.lm import is_trainable

    assert is_trainable(base)  # as require_trainable has seen
    number, fit, seed = int(place.parent.name), job.fit, job.request.seed
    says = job.says(f"round {number}, M-step of {name}")
    fresh = {"rank": fit.rank, "alpha": fit.alpha, "targets": fit.targets, "seed": seed}
    learned = base.load_adapter(before) if before else base.add_adapter(**fresh)
    try:
        maximise(
            cases,
            name,
            learned,
            fit,
            seed + number,
            lambda step, loss: says("fitting", step, fit.steps),
        )
        partial = place.with_name(f"{name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        learned.save(partial)
        partial.rename(place)
    finally:
        learned.remove()


def _publish(program: ir.Program, folder: Path, best: int) -> None:
    """Put the best round's adapters, and the policy of its E-step, where people look for them: all
    at once.
    """
    sources = {**_fitted(program, folder, best), POLICY: _place(folder, best, "draws")}
    with replacing(folder / PUBLISHED) as (partial, _):
        for name, source in sources.items():
            if (source / FILES[0]).exists():
                (partial / name).mkdir()
                for file in (*FILES, "policy.json"):
                    if (source / file).exists():
                        shutil.copyfile(source / file, partial / name / file)


# --- folders --------------------------------------------------------------------------------------


def learned_adapters(folder: Path) -> dict[str, Path]:
    """Adapters by the name of their model that a folder's best round has; none where round 0 is.
    Raises LmpplError.
    """
    document = _read(folder)
    if document is None or not document.get("finished"):
        message = f"`{folder}` holds no expectation-maximisation that has ended, by its {DOCUMENT}"
        if document is None:
            message = f"`{folder}` holds no {DOCUMENT}: no expectation-maximisation has ended there"
        raise LmpplError(
            error(
                "nothing-learned", message, help="give a folder that `lmppl em --out` has written"
            )
        )
    published = folder / PUBLISHED
    home = published if published.is_dir() else folder  # where earlier versions have put them
    return {name: home / name for name in document["learned"]} if document["best"] else {}


def _read(folder: Path) -> dict[str, Any] | None:
    path = folder / DOCUMENT
    if not path.exists():
        return None
    try:
        document = read_document(path)
        require_known(document, folder, FORMAT)
        named = all(name in document for name in ("about", "rounds", "best", "learned"))
    except (ValueError, TypeError, RecursionError):
        document, named = {}, False
    if is_broken(document) or not named:
        raise LmpplError(
            error("broken-run", f"`{path}` is damaged", help="remove the folder, or name another")
        )
    return document


def _require_own(folder: Path) -> None:
    names = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
    if folder.is_file() or (names - {".lock"} and not names & {DOCUMENT, "rounds"}):
        message = (
            f"`{folder}` exists and is no folder of expectation-maximisation: it is left as it is"
        )
        raise LmpplError(error("folder-in-use", message, help="name another folder with --out"))
