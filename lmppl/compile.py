"""The stages in order: text → tree → findings → IR → rows and models → posterior. What the command
and Python share.

Reading and checking bring no torch; only `infer` and what follows it do.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmppl import ir
from lmppl.data import Row, make_rows, read_records, read_text, records_of, rename, split_settings
from lmppl.engines import ENGINE_NAMES
from lmppl.errors import Diagnostic, LmpplError, raise_errors
from lmppl.expressions import Record
from lmppl.findings import learning as learning_findings
from lmppl.findings import run as run_findings
from lmppl.language import ast, check, lower, parse
from lmppl.lm import identifier_of
from lmppl.screen import Progress, progress_of, quiet
from lmppl.settings import Budget, as_int, asked_for, parse_budget
from lmppl.source import Source
from lmppl.storage import held, writing

if TYPE_CHECKING:
    from lmppl.density import Target
    from lmppl.lm import Chosen, LanguageModel
    from lmppl.posterior import Posterior
    from lmppl.run import Request
    from lmppl.run.workers import Crew, Opening, Ways

Values = Mapping[str, Any]
Data = Any  # a file's name, mappings, a mapping of lists, or a table of pandas or Arrow


@dataclass(frozen=True)
class Analysis:
    """What is known of a text without running it. `program` is None where there is an error."""

    source: Source
    folder: str
    tree: ast.Program
    program: ir.Program | None
    findings: tuple[Diagnostic, ...]


def analyse(
    source: Source, folder: str | Path, params: Mapping[str, float] | None = None
) -> Analysis:
    """Parse, check and lower. All findings of a stage at once; a stage with errors is the last."""
    with _no_collection():
        return _analyse(source, folder, params)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Nearly all that is made of a text stays, and to look for garbage in it would take half of the
    time.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _analyse(source: Source, folder: str | Path, params: Mapping[str, float] | None) -> Analysis:
    tree, findings = parse(source)
    if not findings:
        findings = check(tree, source, folder, ENGINE_NAMES)
    if any(finding.severity == "error" for finding in findings):
        return Analysis(source, str(folder), tree, None, tuple(sorted(findings, key=_place)))
    program, more = lower(tree, source, folder, params)
    findings = tuple(sorted((*findings, *more), key=_place))
    broken = any(finding.severity == "error" for finding in findings)
    return Analysis(source, str(folder), tree, None if broken else program, findings)


def _place(finding: Diagnostic) -> tuple[int, int]:
    return (finding.span.start, finding.span.end) if finding.span else (0, 0)


@dataclass(frozen=True)
class CompiledProgram:
    """A program without errors, ready to be run."""

    analysis: Analysis

    @property
    def warnings(self) -> tuple[Diagnostic, ...]:
        """Findings that are no errors."""
        return self.analysis.findings

    @property
    def program(self) -> ir.Program:
        """The IR under the params that the text gives."""
        assert self.analysis.program is not None
        return self.analysis.program

    def parametrised(self, settings: Mapping[str, object]) -> tuple[ir.Program, Mapping[str, str]]:
        """The IR under the params among these settings, and the texts that are the others. Raises
        LmpplError.
        """
        params = [name for name, _ in self.program.params]
        others = [*self.program.givens, *self.program.names]
        numbers, texts = split_settings(settings, params, others)
        program, findings = lower(
            self.analysis.tree, self.analysis.source, self.analysis.folder, numbers
        )
        raise_errors(findings)
        return program, texts

    def configure(
        self,
        settings: Mapping[str, object],
        records: Sequence[Record],
        columns: Mapping[str, str] | None = None,
    ) -> tuple[ir.Program, list[Row], tuple[Diagnostic, ...]]:
        """The IR under these settings, its rows, and warnings about the data. Raises LmpplError.

        columns: of givens and latents, the columns of the records that hold them, where these have
        other names.
        """
        program, texts = self.parametrised(settings)
        rows, warnings = make_rows(program, rename(program, records, columns or {}), texts)
        return program, rows, warnings

    def infer(
        self,
        engine: str = "auto",
        *,
        data: Data | None = None,
        columns: Mapping[str, str] | None = None,
        chains: int | None = None,
        num_samples: int | None = None,
        num_warmup: int | None = None,
        thin: int | None = None,
        budget: str | None = None,
        seed: int = 0,
        options: Mapping[str, Any] | None = None,
        lms: Chosen | None = None,
        learned: str | Path | None = None,
        device: str = "auto",
        torch_compile: bool = False,
        cuda_graphs: bool = True,
        batch_size: int = 64,
        folder: str | Path | None = None,
        adapter: str | Path | None = None,
        resume: bool = False,
        workers: int | None = None,
        ray: str | None = None,
        progress: bool | Progress = False,
        givens: Values | None = None,
        **values: str | float | None,
    ) -> Posterior:
        """Posterior of every row of `data`, or of one row made of `values` (givens, params,
        observed latents).

        data: a .jsonl, .csv or .tsv file, a list of mappings, a mapping of lists, or a table of
        pandas or Arrow; None and NaN are missing values. columns: of givens and latents, their
        columns in the data. givens: more values by name, for those that are named like an argument
        here. lms: identifiers in place of the program's, or models themselves, by name. learned: a
        folder of `lmppl em`, whose models are taken. budget: "60s" or "20000tokens" for all rows
        together, by which what is not asked for is sized; "none": nothing is. torch_compile: decode
        by a compiled step, which pays in long runs. cuda_graphs: where there is CUDA, record
        decoding steps and replay them. progress: show on standard error what is being done, or a
        function (what, done, total)
        that is told. For engines that learn: folder, where checkpoints and the adapter are kept;
        resume, go on from its last checkpoint; adapter, a folder to draw from without learning.
        workers: draw rows by so many processes, which load the models themselves; then `folder` is
        the run's, where rows are kept as they come, and `resume` draws those that it has not. ray:
        the address of a Ray cluster whose actors the workers are.

        Ctrl-C gives what there is, with a warning, where there is something:
        `Posterior.interrupted` tells. Raises LmpplError, whose `posterior` has the rows that were
        done before it.
        """
        program, rows, _ = self.configure(_settings(givens, values), as_records(data), columns)
        settings = asked_for(
            chains=chains, num_samples=num_samples, num_warmup=num_warmup, thin=thin
        )
        with progress_of(progress) as report:
            # before torch is, which takes seconds
            report(f"loading {first_model(program, lms or {})}", 0, 0)
            from lmppl.em import learned_adapters
            from lmppl.lm import load_models
            from lmppl.run import Request, begun, prepare

            request = Request(
                engine, settings, dict(options or {}), as_int(seed), as_int(batch_size),
                folder=None if folder is None else Path(folder),
                adapter=None if adapter is None else Path(adapter),
                resume=resume, budget=_budget(budget), quick=budget is None, lms=lms or {},
            )  # fmt: skip
            adapters = learned_adapters(Path(learned)) if learned else {}
            if workers is not None or ray is not None:
                from lmppl.run.workers import Ways, over_cluster, over_processes

                ways, count = (
                    Ways(device, adapters, torch_compile, cuda_graphs),
                    as_int(workers or 1),
                )
                start = over_cluster(ray, count) if ray is not None else over_processes(count)
                return _run_by_workers(start, program, rows, request, ways, report)
            # what cannot run is said before any model is loaded
            chosen = prepare(program, request).engine
            with nullcontext() if folder is None else held(folder):
                request, notes = begun(request, chosen)
                for note in notes:
                    warnings.warn(note.message, stacklevel=2)
                models = load_models(
                    program, lms or {}, device, report, adapters, torch_compile, cuda_graphs
                )
                return _run(program, rows, models, request, report)

    def bind(
        self,
        *,
        lms: Chosen | None = None,
        device: str = "auto",
        batch_size: int = 64,
        givens: Values | None = None,
        **values: str | float | None,
    ) -> Target:
        """The log density for one row made of `givens` and `values`: what engines see. Raises
        LmpplError.
        """
        return self._bind(lms, device, batch_size, _settings(givens, values))

    def _bind(self, lms: Chosen | None, device: str, batch_size: int, settings: Values) -> Target:
        from lmppl.density import bind
        from lmppl.lm import load_models

        program, rows, _ = self.configure(settings, [])
        target, _ = bind(
            program, load_models(program, lms or {}, device, quiet), rows[0], batch_size=batch_size
        )
        return target

    def pyro_model(
        self,
        *,
        lms: Chosen | None = None,
        device: str = "auto",
        givens: Values | None = None,
        **values: str | float | None,
    ) -> Callable[[], dict[str, str | None]]:
        """The program as a Pyro model for one row made of `givens` and `values`. Raises
        LmpplError.
        """
        from lmppl.pyro import pyro_model

        return pyro_model(self._bind(lms, device, 64, _settings(givens, values)))


def _run(
    program: ir.Program,
    rows: Sequence[Row],
    models: Mapping[str, LanguageModel],
    request: Request,
    report: Progress,
) -> Posterior:
    """The posterior, or what there is of it by Ctrl-C, with a warning. An error has it with it."""
    from lmppl.run import run

    return _or_what_there_is(lambda kept: run(program, rows, models, request, report, kept))


def _run_by_workers(
    start: Callable[[Opening], Crew],
    program: ir.Program,
    rows: Sequence[Row],
    request: Request,
    ways: Ways,
    report: Progress,
) -> Posterior:
    """As `_run`, by workers; the run is written where the request names a folder."""
    from lmppl.posterior import save
    from lmppl.run.workers import infer_over, require_unfinished, require_workers

    require_workers(program, request)
    folder = request.folder
    with nullcontext() if folder is None else writing(folder, resume=request.resume):
        for note in require_unfinished(request):
            warnings.warn(note.message, stacklevel=3)
        found = _or_what_there_is(
            lambda kept: infer_over(start, program, rows, request, ways, report, kept)
        )
        if folder is not None:
            save(found, folder)
    return found


def _or_what_there_is(run: Callable[[Callable[[Posterior], None]], Posterior]) -> Posterior:
    """What a run finds, or has found by Ctrl-C. run: is given what it tells the latter."""
    kept: list[Posterior] = []
    try:
        return run(kept.append)
    except KeyboardInterrupt:
        if not kept:
            raise
        warnings.warn(f"Ctrl-C: {kept[-1].interrupted}", stacklevel=4)
        return kept[-1]
    except LmpplError as reason:
        reason.posterior = kept[-1] if kept else None
        raise


def first_model(program: ir.Program, lms: Chosen) -> str:
    """The identifier of the model that is loaded first. lms: in place of the program's, by name."""
    return next((identifier_of(model, lms) for model in program.models), "the program")


def _budget(asked: str | None) -> Budget | None:
    """What an argument says of the budget. Raises LmpplError."""
    try:
        return parse_budget(str(asked)) if asked is not None else None
    except ValueError:
        raise LmpplError(learning_findings.bad_budget(str(asked))) from None


def _settings(givens: Values | None, values: Values) -> Values:
    """Values by name from both places. Raises LmpplError where one is in both."""
    if twice := [name for name in givens or {} if name in values]:
        raise LmpplError(run_findings.given_twice(twice[0]))
    return {**(givens or {}), **values}


def as_records(data: Data | None) -> list[Record]:
    """Rows of a .jsonl, .csv or .tsv file, or of rows in memory (see `records_of`); none of None.
    Raises LmpplError.
    """
    if data is None:
        return []
    if isinstance(data, str | Path):
        return read_records(data)
    return records_of(data)


def compile(text_or_path: str | Path) -> CompiledProgram:
    """A program from its text, or from the path of a .lm file. Raises LmpplError with all findings.

    A string is a path where it is one line that ends in ".lm".
    """
    is_path = isinstance(text_or_path, Path) or (
        "\n" not in text_or_path and text_or_path.endswith(".lm")
    )
    if is_path:
        source = read_text(text_or_path, "program")
        analysis = analyse(source, Path(text_or_path).resolve().parent)
    else:
        analysis = analyse(Source("<string>", str(text_or_path)), Path.cwd())
    raise_errors(analysis.findings)
    return CompiledProgram(analysis)
