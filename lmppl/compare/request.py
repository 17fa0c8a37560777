"""A comparison as it is asked for, in files, names and texts; the job that becomes of it, and its
run in a folder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lmppl.compare.entries import parse_entries, require_options
from lmppl.compare.runs import Job
from lmppl.compile import CompiledProgram, Data, as_records
from lmppl.data import rename
from lmppl.errors import Diagnostic, LmpplError, did_you_mean, error
from lmppl.expressions import Record
from lmppl.screen import Progress, quiet
from lmppl.settings import Budget
from lmppl.shapes import Document


@dataclass(frozen=True)
class ComparisonRequest:
    """What to compare. data: rows; train: rows for engines that learn, `data` where it is None;
    columns: of givens and latents, their columns in both.

    engines and options: as `entries.parse_entries` reads them; hold_out: columns that are compared
    with, not observed; lms: identifiers in place of the program's, by name; learned: adapters that
    `lmppl em` has fitted, by model.
    """

    engines: str
    options: Sequence[str] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    data: Data | None = None
    train: Data | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    hold_out: Sequence[str] = ()
    budget: Budget | None = None
    seeds: int = 4
    seed: int = 0
    batch_size: int = 64
    against: str = "auto"
    bounds: bool = True
    lms: Mapping[str, str] = field(default_factory=dict)
    learned: Mapping[str, Path] = field(default_factory=dict)
    device: str = "auto"
    torch_compile: bool = False
    cuda_graphs: bool = True


def prepare(
    compiled: CompiledProgram, request: ComparisonRequest
) -> tuple[Job, Sequence[Diagnostic]]:
    """The job of a request, which has no models yet, and warnings about the data. Reads rows and
    entries. Raises LmpplError.
    """
    latents = {latent.shown: latent for latent in compiled.program.latents}
    derived = [one.name for one in compiled.program.derived]

    def read(data: Data | None) -> list[Record]:
        return (
            rename(compiled.program, as_records(data), request.columns) if data is not None else []
        )

    rest, held_out = _hold_out(read(request.data), request.hold_out, [*latents, *derived])
    program, rows, warnings = compiled.configure(request.settings, rest)
    examples, lessons = rows, rows
    if (
        request.train is not None
    ):  # labels are learned from, texts of latents are for those who imitate
        taught = read(request.train)
        labels = compiled.program.predictions
        texts = [
            name
            for name in request.hold_out
            if latents.get(name) in compiled.program.texts and name not in labels
        ]
        examples = compiled.configure(request.settings, taught)[1]
        lessons = compiled.configure(
            request.settings, [_without(record, texts) for record in taught]
        )[1]
    entries = parse_entries(request.engines, request.options)
    require_options(program, entries, request.seed, request.batch_size)
    job = Job(
        program, rows, lessons, examples, held_out or [{} for _ in rows], {}, entries,
        request.budget, request.seeds, request.seed, request.batch_size, request.against,
        request.bounds,
    )  # fmt: skip
    return job, warnings


def run(
    request: ComparisonRequest,
    job: Job,
    folder: Path,
    command: str = "",
    told: Callable[[str], None] = lambda line: None,
    progress: Progress = quiet,
) -> Document:
    """The document of the comparison, whatever of it is not yet in the folder being run first.

    job: what `prepare` has made of the request; command: the line that asked for it; told: is told
    a line a finished run. Raises LmpplError.
    """
    from lmppl.compare.comparison import compare
    from lmppl.compare.store import opened
    from lmppl.lm import load_models

    with opened(folder) as store:
        models = load_models(
            job.program, request.lms, request.device, progress, request.learned,
            request.torch_compile, request.cuda_graphs
        )  # fmt: skip
        try:
            return compare(
                replace(job, models=models, told=told, progress=progress), store, command
            )
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"what is done is kept in `{folder}`; the same command goes on"
            ) from None


def _hold_out(
    records: Sequence[Record], names: Sequence[str], latents: Sequence[str]
) -> tuple[list[Record], list[Mapping[str, str]]]:
    """Records without the columns held out, and those columns. Raises LmpplError where there is no
    such column.
    """
    columns = {name for record in records for name in record.values}
    for name in names:
        if name not in latents or name not in columns:
            known = [latent for latent in latents if latent in columns]
            message = (
                f"`--hold-out {name}` is no latent or derived value that the data have a column of"
            )
            raise LmpplError(error("no-column", message, help=did_you_mean(name, known)))
    kept = [_without(record, names) for record in records]
    held: list[Mapping[str, str]] = [_of(record, names) for record in records]
    return kept, held


def _of(record: Record, names: Sequence[str]) -> dict[str, str]:
    """The texts that a record has in some columns."""
    texts = record.texts()
    return {name: texts[name] for name in names if name in texts}


def _without(record: Record, names: Sequence[str]) -> Record:
    return replace(record, values={k: v for k, v in record.values.items() if k not in names})
