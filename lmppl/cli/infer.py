"""Commands on one run: run, summary, diagnose, export."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from lmppl.cli.app import (
    COLUMN,
    DRAWS,
    FINDINGS,
    PROGRAM,
    app,
    budget_of,
    compile_or_exit,
    learned_by,
    machine_flags,
    pairs,
    show,
    show_compared,
    show_findings,
)
from lmppl.cli.deliver import delivering
from lmppl.cli.say import console, say, say_json
from lmppl.compile import first_model
from lmppl.data import read_records
from lmppl.screen import shown
from lmppl.settings import asked_for
from lmppl.storage import UNFINISHED, writing

if TYPE_CHECKING:
    from lmppl import ir
    from lmppl.data import Row
    from lmppl.posterior import Posterior
    from lmppl.run import Request
    from lmppl.screen import Progress

SETTINGS = ("chains", "num_samples", "num_warmup", "thin")  # left to the engine where not given


@app.command()
@click.argument("program", type=PROGRAM)
@click.option(
    "--engine", default="auto", show_default=True, help="How to draw; `lmppl engines` lists them."
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="Value of a given, a param or a latent.",
)
@click.option(
    "--data", type=click.Path(), help="Rows of givens and observed latents: .jsonl, .csv or .tsv."
)
@COLUMN
@click.option("--lm", "lms", multiple=True, metavar="NAME=ID", help="Another model for NAME.")
@click.option("--chains", type=int, help="Chains or replicates [default: 4].")
@click.option("--num-samples", type=int, help="Draws a chain [default: 100].")
@click.option("--num-warmup", type=int, help="Steps before the first draw [default: 100].")
@click.option("--thin", type=int, help="Steps a draw [default: 1].")
@click.option(
    "--budget",
    metavar="N|Ns|none",
    help="Tokens or seconds, all rows together; what it has room for is drawn.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Same seed, same draws.")
@click.option(
    "-o", "options", multiple=True, metavar="KEY=VALUE", help="An option of the engine alone."
)
@click.option(
    "--out", type=click.Path(), help="Write the run into this folder, and what is learned."
)
@click.option("--force", is_flag=True, help="Put the run in place of another that --out holds.")
@click.option(
    "--learned", type=click.Path(), help="Models as `lmppl em` has learned them in this folder."
)
@click.option(
    "--adapter",
    type=click.Path(),
    help="Draw from what an earlier run has learned into this folder.",
)
@click.option(
    "--resume",
    type=click.Path(),
    help="Go on with what was cut short in this folder: training, or rows by --workers.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    metavar="N",
    help="Draw rows by so many processes, a GPU each; rows are kept in --out as they come.",
)
@click.option(
    "--ray",
    metavar="ADDRESS",
    help="The workers are actors of this Ray cluster, or of a `local` one.",
)
@machine_flags
@click.option("--strict", is_flag=True, help="Exit code 1 where the verdict is fail.")
@click.option("-v", "--verbose", is_flag=True, help="Statistics and diagnostics as well.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
@DRAWS
def run(program: str, strict: bool, **flags: Any) -> None:
    """Draw from a program's posterior."""
    compiled = compile_or_exit(program)
    records = read_records(flags["data"]) if flags["data"] else []
    settings, columns = pairs(flags["settings"], "--set"), pairs(flags["columns"], "--column")
    lowered, rows, warnings = compiled.configure(settings, records, columns)
    show_findings([*compiled.warnings, *warnings], "concise")
    with (
        _place(flags["out"], flags["resume"], flags["force"]) as folder,
        delivering(folder, flags["as_json"], flags["verbose"], flags["draws"]) as deliver,
        shown() as progress,
    ):
        infer = _by_workers if _is_spread(flags, folder) else _in_one_process
        posterior = infer(flags, lowered, rows, _request(flags, folder), progress, deliver)
        deliver(posterior)
    if strict and posterior.verdict == "fail":
        sys.exit(FINDINGS)


def _in_one_process(
    flags: Mapping[str, Any],
    program: ir.Program,
    rows: Sequence[Row],
    request: Request,
    progress: Progress,
    deliver: Callable[[Posterior], None],
) -> Posterior:
    """Load the models here, and infer every row."""
    from lmppl.run import begun, prepare, run

    # what cannot run is said before any model is loaded
    chosen = prepare(program, request).engine
    request, notes = begun(request, chosen)
    show_findings(notes, "concise")
    progress(f"loading {first_model(program, request.lms)}", 0, 0)
    from lmppl.lm import load_models

    learned, ways = learned_by(flags["learned"]), (flags["torch_compile"], flags["cuda_graphs"])
    models = load_models(program, request.lms, flags["device"], progress, learned, *ways)
    return run(program, rows, models, request, progress, deliver)


def _is_spread(flags: Mapping[str, Any], folder: Path | None) -> bool:
    """Whether rows are drawn by workers: as is asked for, or as what is gone on with was begun."""
    begun = folder is not None and flags["resume"] is not None and (folder / UNFINISHED).is_dir()
    return flags["workers"] is not None or flags["ray"] is not None or begun


def _by_workers(
    flags: Mapping[str, Any],
    program: ir.Program,
    rows: Sequence[Row],
    request: Request,
    progress: Progress,
    deliver: Callable[[Posterior], None],
) -> Posterior:
    """Have every row inferred by processes that load the models themselves."""
    from lmppl.run.workers import (
        Ways,
        infer_over,
        over_cluster,
        over_processes,
        require_unfinished,
        require_workers,
    )

    require_workers(program, request)
    show_findings(require_unfinished(request), "concise")
    ways = Ways(
        flags["device"], learned_by(flags["learned"]), flags["torch_compile"], flags["cuda_graphs"]
    )
    count, address = flags["workers"] or 1, flags["ray"]
    start = over_cluster(address, count) if address else over_processes(count)
    return infer_over(start, program, rows, request, ways, progress, deliver)


def _place(out: str | None, resume: str | None, force: bool) -> AbstractContextManager[Path | None]:
    """The folder that the run is written into, if any."""
    if out is not None and resume is not None and Path(out).resolve() != Path(resume).resolve():
        raise click.UsageError(
            "--out and --resume exclude each other: training goes on in the folder of --resume"
        )
    folder = resume if out is None else out
    if folder is None:
        return nullcontext()
    return writing(folder, force=force, resume=resume is not None)


def _request(flags: Mapping[str, Any], folder: Path | None) -> Request:
    """What `run` is asked for."""
    from lmppl.run import Request

    settings = asked_for(**{name: flags[name] for name in SETTINGS})
    return Request(
        flags["engine"], settings, pairs(flags["options"], "-o"), flags["seed"],
        flags["batch_size"], folder=folder,
        adapter=Path(flags["adapter"]) if flags["adapter"] else None,
        resume=flags["resume"] is not None,
        budget=budget_of(flags["budget"]) if flags["budget"] else None,
        quick=flags["budget"] is None, lms=pairs(flags["lms"], "--lm"),
    )  # fmt: skip


@app.command()
@click.argument("folder", type=click.Path())
@click.option("-v", "--verbose", is_flag=True, help="Statistics and diagnostics as well.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
@DRAWS
def summary(folder: str, verbose: bool, as_json: bool, draws: bool) -> None:
    """Show a run that `lmppl run --out` has written, or a comparison. Loads no model."""
    from lmppl.compare import DOCUMENT, load_comparison
    from lmppl.posterior import load

    if (Path(folder) / DOCUMENT).exists():
        show_compared(load_comparison(folder), folder, as_json)
    else:
        show(load(folder), as_json, verbose, draws)


@app.command()
@click.argument("folder", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
def diagnose(folder: str, as_json: bool) -> None:
    """Show every check of a run that `lmppl run --out` has written. Exit code 1 where one fails."""

    from lmppl.posterior import load
    from lmppl.report import checks_document, show_checks

    posterior = load(folder)
    if as_json:
        say_json(checks_document(posterior))
    else:
        show_checks(posterior, console())
    sys.exit(FINDINGS if posterior.verdict == "fail" else 0)


@app.command()
@click.argument("folder", type=click.Path())
@click.option(
    "--to",
    "form",
    type=click.Choice(["arviz", "csv", "jsonl", "parquet"]),
    required=True,
    help="The form.",
)
@click.option("--out", type=click.Path(), help="The file to write [default: in FOLDER/export].")
def export(folder: str, form: str, out: str | None) -> None:
    """Write the draws of a run for other tools: netCDF for ArviZ, or a table of a line a draw.
    Loads no model.
    """
    from lmppl.export import export

    say("\n".join(export(folder, form, out)))
