"""Commands on several engines: compare, report."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import rich_click as click

from lmppl.cli.app import (
    COLUMN,
    FAILURE,
    PROGRAM,
    app,
    budget_of,
    compile_or_exit,
    learned_by,
    machine_flags,
    pairs,
    show_bug,
    show_compared,
    show_findings,
    write_file,
)
from lmppl.cli.say import say
from lmppl.screen import shown


@app.command()
@click.argument("program", type=PROGRAM)
@click.option(
    "--engines",
    required=True,
    metavar="A,B,…",
    help="What to compare; LABEL=ENGINE names an entry.",
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
@click.option(
    "--train",
    type=click.Path(),
    help="Rows that engines which learn are trained on [default: --data].",
)
@click.option(
    "--hold-out",
    multiple=True,
    metavar="NAME",
    help="A latent's column: not observed, but compared with.",
)
@click.option(
    "--against",
    default="auto",
    show_default=True,
    metavar="REFERENCE",
    help=(
        "exact, bounds, none, an engine or a label; auto: exact where it can be had, else "
        "annealed and bounds."
    ),
)
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    default=4,
    show_default=True,
    help="Runs of every engine.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="The first of the seeds.")
@click.option(
    "--budget",
    default="10k",
    show_default=True,
    metavar="N|Ns|none",
    help="Tokens, or seconds, that a run may spend on a data row; none: engines' own settings.",
)
@click.option(
    "-o",
    "options",
    multiple=True,
    metavar="LABEL.KEY=VALUE",
    help="An option or setting of one entry.",
)
@click.option("--lm", "lms", multiple=True, metavar="NAME=ID", help="Another model for NAME.")
@click.option(
    "--learned", type=click.Path(), help="Models as `lmppl em` has learned them in this folder."
)
@click.option(
    "--out",
    type=click.Path(),
    help="The comparison's folder [default: PROG-compare]. Kept runs are reused.",
)
@click.option("--report", is_flag=True, help="Write report.html into the folder as well.")
@machine_flags
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
def compare(
    program: str, engines: str, options: tuple[str, ...], report: bool, as_json: bool, **flags: Any
) -> None:
    """Run several engines on one program: which is right, how right, at what price.

    Exit code 2 where a bug in lmppl has stopped one of them.
    """
    from lmppl.compare import ComparisonRequest, prepare, run

    compiled = compile_or_exit(program)
    named = (
        "data",
        "train",
        "hold_out",
        "seeds",
        "seed",
        "against",
        "device",
        "torch_compile",
        "cuda_graphs",
        "batch_size",
    )
    request = ComparisonRequest(
        engines, options, pairs(flags["settings"], "--set"), budget=budget_of(flags["budget"]),
        lms=pairs(flags["lms"], "--lm"), columns=pairs(flags["columns"], "--column"),
        learned=learned_by(flags["learned"]), **{name: flags[name] for name in named},
    )  # fmt: skip
    job, warnings = prepare(compiled, request)
    show_findings([*compiled.warnings, *warnings], "concise")
    folder = Path(flags["out"] or f"{Path(program).stem}-compare")
    with shown() as progress:
        command = shlex.join(["lmppl", *sys.argv[1:]])
        document = run(request, job, folder, command, _tell, progress)
    show_compared(document, folder, as_json)
    if report:
        _write_report(folder)
    bugs = [
        f"{entry['label']}: {entry['bug']}" for entry in document["entries"] if entry.get("bug")
    ]
    for bug in bugs:
        show_bug(bug)
    if bugs:
        sys.exit(FAILURE)


def _tell(line: str) -> None:
    say(line, err=True)


@app.command()
@click.argument("folder", type=click.Path())
@click.option("--out", type=click.Path(), help="The page [default: report.html in the folder].")
def report(folder: str, out: str | None) -> None:
    """Write a page, one HTML file, on a comparison or a run. Loads no model."""
    _write_report(Path(folder), Path(out) if out else None)


def _write_report(folder: Path, out: Path | None = None) -> None:
    from lmppl.report.page import page_of

    text = page_of(folder)
    place = out or folder / "report.html"
    write_file(place, text)
    say(f"wrote {place} ({len(text.encode()) / 1e6:.1f} MB)", err=True)
