"""Commands on several engines: compare, report."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import rich_click as click

from lmppl import ir
from lmppl.cli.app import PROGRAM, app, compile_or_exit, pairs, progress_bar, show_compared, show_findings, write_file
from lmppl.errors import LmpplError, did_you_mean, error
from lmppl.records import Record, read_records


@app.command()
@click.argument("program", type=PROGRAM)
@click.option("--engines", required=True, metavar="A,B,…", help="What to compare; LABEL=ENGINE names an entry.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="Value of a given, a param or a latent.")
@click.option("--data", type=click.Path(), help="Rows of givens and observed latents: .jsonl or .csv.")
@click.option("--train", type=click.Path(), help="Rows that engines which learn are trained on [default: --data].")
@click.option("--hold-out", multiple=True, metavar="NAME", help="A latent's column: not observed, but compared with.")
@click.option(
    "--against",
    default="auto",
    show_default=True,
    metavar="REFERENCE",
    help="exact, bounds, an engine or a label; auto: exact where it can be had, else annealed and bounds.",
)
@click.option("--seeds", type=click.IntRange(min=1), default=4, show_default=True, help="Runs of every engine.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="The first of the seeds.")
@click.option(
    "--budget",
    default="10k",
    show_default=True,
    metavar="N|Ns|none",
    help="Tokens, or seconds, that a run may spend on a data row; none: engines' own settings.",
)
@click.option("-o", "options", multiple=True, metavar="LABEL.KEY=VALUE", help="An option or setting of one entry.")
@click.option("--lm", "lms", multiple=True, metavar="NAME=ID", help="Another model for NAME.")
@click.option("--out", type=click.Path(), help="The comparison's folder [default: PROG-compare]. Kept runs are reused.")
@click.option("--report", is_flag=True, help="Write report.html into the folder as well.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--batch-size", type=click.IntRange(min=1), default=64, show_default=True, help="Rows at once.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
def compare(program: str, engines: str, options: tuple[str, ...], report: bool, as_json: bool, **flags: Any) -> None:
    """Run several engines on one program: which is right, how right, at what price."""
    from lmppl.compare.entries import parse_entries, require_options

    compiled = compile_or_exit(program)
    budget = _budget(flags["budget"])
    settings = pairs(flags["settings"], "--set")
    records = read_records(flags["data"]) if flags["data"] else []
    latents = {latent.name: latent for latent in compiled.program.latents}
    rest, held_out = _hold_out(records, flags["hold_out"], list(latents))
    lowered, rows, warnings = compiled.configure(settings, rest)
    show_findings([*compiled.warnings, *warnings], "concise")
    examples, lessons = rows, rows
    if flags["train"]:  # labels are learned from, texts of latents are for those who imitate
        taught = read_records(flags["train"])
        texts = [name for name in flags["hold_out"] if isinstance(latents[name], ir.TextLatent)]
        examples = compiled.configure(settings, taught)[1]
        lessons = compiled.configure(settings, [_without(record, texts) for record in taught])[1]
    entries = parse_entries(engines, options)
    require_options(lowered, entries)
    folder = Path(flags["out"] or f"{Path(program).stem}-compare")
    from lmppl.compare.comparison import compare as run_all
    from lmppl.compare.run import Plan
    from lmppl.compare.store import opened

    with opened(folder) as store, progress_bar() as progress:
        from lmppl.lm.load import load_models

        models = load_models(lowered, pairs(flags["lms"], "--lm"), flags["device"], progress)
        plan = Plan(
            lowered, rows, lessons, examples, held_out or [{}] * len(rows), models, entries, budget, flags["seeds"],
            flags["seed"], flags["batch_size"], flags["against"], told=_tell, progress=progress,
        )  # fmt: skip
        try:
            document = run_all(plan, store, shlex.join(["lmppl", *sys.argv[1:]]))
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"what is done is kept in `{folder}`; the same command goes on") from None
    show_compared(document, folder, as_json)
    if report:
        _write_report(folder)


def _budget(text: str) -> Any:
    from lmppl.compare.sizes import parse_budget

    try:
        return parse_budget(text)
    except ValueError:
        raise click.UsageError(f"--budget {text}: expected tokens (20000, 20k), seconds (90s) or none") from None


def _hold_out(
    records: Sequence[Record], names: Sequence[str], latents: Sequence[str]
) -> tuple[list[Record], list[Mapping[str, str]]]:
    """Records without the columns held out, and those columns. Raises LmpplError where there is no such column."""
    columns = {name for record in records for name in record.values}
    for name in names:
        if name not in latents or name not in columns:
            known = [latent for latent in latents if latent in columns]
            message = f"`--hold-out {name}` is no latent that the data have a column of"
            raise LmpplError(error("no-column", message, help=did_you_mean(name, known)))
    kept = [_without(record, names) for record in records]
    held: list[Mapping[str, str]] = [
        {name: str(record.values[name]) for name in names if name in record.values} for record in records
    ]
    return kept, held


def _without(record: Record, names: Sequence[str]) -> Record:
    return Record({k: v for k, v in record.values.items() if k not in names}, record.source, record.span)


def _tell(line: str) -> None:
    click.echo(line, err=True)


@app.command()
@click.argument("folder", type=click.Path())
@click.option("--out", type=click.Path(), help="The page [default: report.html in the folder].")
def report(folder: str, out: str | None) -> None:
    """Write a page, one HTML file, on a comparison or a run. Loads no model."""
    _write_report(Path(folder), Path(out) if out else None)


def _write_report(folder: Path, out: Path | None = None) -> None:
    from lmppl.report.page.document import page_document
    from lmppl.report.page.render import render

    text = render(page_document(folder))
    place = out or folder / "report.html"
    write_file(place, text)
    click.echo(f"wrote {place} ({len(text.encode()) / 1e6:.1f} MB)", err=True)
