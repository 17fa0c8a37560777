"""The `lmppl` command: reads flags, calls the stages, prints. Everything heavy is imported when it is used.

Exit codes: 0 clean, 1 findings in a program or a failed check of a run (`diagnose`) or an engine (`sbc`), 2 usage or
failure, 130 interrupted. No traceback reaches a user.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import rich_click as click

from lmppl import __version__
from lmppl.compile import Analysis, CompiledProgram, analyse
from lmppl.data import read_records, read_text
from lmppl.errors import Diagnostic, LmpplError
from lmppl.report.diagnostics import render_concise, render_full, to_document

FINDINGS, FAILURE, INTERRUPTED = 1, 2, 130
FORMATS = click.Choice(["full", "concise", "json"])
PROGRAM = click.Path(dir_okay=True)


class _Commands(click.RichGroup):
    """Commands whose Ctrl-C says what it left behind, and ends with the exit code of an interrupt."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as reason:
            click.echo(": ".join(["interrupted", *map(str, reason.args)]), err=True)
            sys.exit(INTERRUPTED)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="lmppl")
def app() -> None:
    """Probabilistic programs over text, and engines that draw from their posterior."""


# --- programs as text -----------------------------------------------------------------------------


@app.command()
@click.argument("programs", nargs=-1, required=True, type=PROGRAM)
@click.option("--output-format", type=FORMATS, default="full", show_default=True, help="How findings are written.")
def check(programs: tuple[str, ...], output_format: str) -> None:
    """Find what is wrong with programs, without running them. Exit code 1 where there are findings."""
    findings = [finding for path in programs for finding in read_program(path).findings]
    if output_format == "json":
        click.echo(json.dumps([to_document(finding) for finding in findings], ensure_ascii=False, indent=1))
    elif findings:
        show_findings(findings, output_format, err=False)
    else:
        click.echo(f"{len(programs)} program{'s' if len(programs) > 1 else ''} checked: nothing found.")
    sys.exit(FINDINGS if findings else 0)


@app.command("format")
@click.argument("programs", nargs=-1, required=True, type=PROGRAM)
@click.option("--check", "only_check", is_flag=True, help="Write nothing; exit code 1 where a file would change.")
@click.option("--stdout", is_flag=True, help="Print the text instead of writing it back.")
def format_command(programs: tuple[str, ...], only_check: bool, stdout: bool) -> None:
    """Write programs in the canonical form. Comments are kept, and the meaning."""
    from lmppl.syntax.format import format_program

    changed = 0
    for path in programs:
        source = read_text(path, "program")
        text, findings = format_program(source)
        if findings:
            show_findings(findings, "full")
            sys.exit(FINDINGS)
        if stdout:
            click.echo(text, nl=False)
        elif text != Path(path).read_bytes().decode("utf-8"):
            changed += 1
            click.echo(f"{path}: {'would be changed' if only_check else 'changed'}")
            if not only_check:
                _write_whole(Path(path), text)
    sys.exit(FINDINGS if only_check and changed else 0)


@app.command()
@click.argument("program", type=PROGRAM)
@click.option(
    "--stage", type=click.Choice(["ast", "ir", "density"]), default="ir", show_default=True, help="What to show."
)
@click.option("--value", "values", multiple=True, metavar="NAME=TEXT", help="Value of a latent: shows the log density.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="Value of a given, a param or a latent.")
@click.option("--lm", "lms", multiple=True, metavar="NAME=ID", help="Another model for NAME.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
def explain(
    program: str, stage: str, values: tuple[str, ...], settings: tuple[str, ...], lms: tuple[str, ...], device: str
) -> None:
    """Show what a program means: its tree, its latents and factors, or the log density of a value."""
    from lmppl.explain import explain_density, explain_ir, explain_tree

    if stage == "ast":
        click.echo(explain_tree(read_program(program).tree))
        return
    compiled = compile_or_exit(program)
    if stage == "density" or values:
        fixed = {**pairs(settings, "--set"), **pairs(values, "--value")}
        with progress_bar() as progress:
            text = explain_density(compiled, fixed, pairs(lms, "--lm"), device, progress)
        click.echo(text)
    else:
        click.echo(explain_ir(compiled.program))


@app.command()
@click.argument("program", type=PROGRAM)
@click.option("--format", "form", type=click.Choice(["text", "mermaid"]), default="text", show_default=True)
def graph(program: str, form: str) -> None:
    """Show which names a program's latents and factors read."""
    from lmppl.graph import graph_mermaid, graph_text

    compiled = compile_or_exit(program)
    click.echo(graph_text(compiled.program) if form == "text" else graph_mermaid(compiled.program))


# --- running --------------------------------------------------------------------------------------


@app.command()
@click.argument("program", type=PROGRAM)
@click.option("--engine", default="auto", show_default=True, help="How to draw; `lmppl engines` lists them.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="Value of a given, a param or a latent.")
@click.option("--data", type=click.Path(), help="Rows of givens and observed latents: .jsonl or .csv.")
@click.option("--lm", "lms", multiple=True, metavar="NAME=ID", help="Another model for NAME.")
@click.option("--chains", type=click.IntRange(min=1), help="Chains or replicates [default: 4].")
@click.option("--num-samples", type=click.IntRange(min=1), help="Draws a chain [default: 100].")
@click.option("--num-warmup", type=click.IntRange(min=0), help="Steps before the first draw [default: 100].")
@click.option("--thin", type=click.IntRange(min=1), help="Steps a draw [default: 1].")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Same seed, same draws.")
@click.option("-o", "options", multiple=True, metavar="KEY=VALUE", help="An option of the engine alone.")
@click.option("--out", type=click.Path(), help="Write the run into this folder, and what is learned.")
@click.option("--adapter", type=click.Path(), help="Draw from what an earlier run has learned into this folder.")
@click.option("--resume", type=click.Path(), help="Go on with training that was cut short in this folder.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--batch-size", type=click.IntRange(min=1), default=64, show_default=True, help="Rows at once.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
def run(
    program: str,
    engine: str,
    settings: tuple[str, ...],
    data: str | None,
    lms: tuple[str, ...],
    chains: int | None,
    num_samples: int | None,
    num_warmup: int | None,
    thin: int | None,
    seed: int,
    options: tuple[str, ...],
    out: str | None,
    adapter: str | None,
    resume: str | None,
    device: str,
    batch_size: int,
    as_json: bool,
) -> None:
    """Draw from a program's posterior."""
    compiled = compile_or_exit(program)
    records = read_records(data) if data else []
    lowered, rows, warnings = compiled.configure(pairs(settings, "--set"), records)
    show_findings([*compiled.warnings, *warnings], "concise")
    flags = {"chains": chains, "num_samples": num_samples, "num_warmup": num_warmup, "thin": thin}
    asked = {name: value for name, value in flags.items() if value is not None}
    if out and resume and Path(out).resolve() != Path(resume).resolve():
        raise click.UsageError("--out and --resume exclude each other: training goes on in the folder of --resume")
    out = out or resume
    if out:
        from lmppl.results import require_writable

        require_writable(out)
    from lmppl.driver import Request, prepare
    from lmppl.driver import run as infer

    places = {"folder": Path(out) if out else None, "adapter": Path(adapter) if adapter else None}
    request = Request(engine, asked, pairs(options, "-o"), seed, batch_size, **places, resume=resume is not None)
    prepare(lowered, request)  # what cannot run is said before any model is loaded
    with progress_bar() as progress:
        from lmppl.lm.load import load_models

        models = load_models(lowered, pairs(lms, "--lm"), device, progress)
        posterior = infer(lowered, rows, models, request, progress)
    if out:
        from lmppl.results import save

        save(posterior, out)
    show(posterior, as_json)


@app.command()
@click.argument("folder", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
def summary(folder: str, as_json: bool) -> None:
    """Show a run that `lmppl run --out` has written. Loads no model."""
    from lmppl.results import load

    show(load(folder), as_json)


@app.command()
@click.argument("folder", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
def diagnose(folder: str, as_json: bool) -> None:
    """Show every check of a run that `lmppl run --out` has written. Exit code 1 where one fails."""
    from rich.console import Console

    from lmppl.report.checks import checks_document, show_checks
    from lmppl.results import load

    posterior = load(folder)
    if as_json:
        click.echo(json.dumps(checks_document(posterior), ensure_ascii=False, allow_nan=False))
    else:
        show_checks(posterior, Console())
    sys.exit(FINDINGS if posterior.verdict == "fail" else 0)


@app.command()
@click.argument("folder", type=click.Path())
@click.option("--to", "form", type=click.Choice(["arviz", "csv", "jsonl", "parquet"]), required=True, help="The form.")
@click.option("--out", type=click.Path(), help="The file to write [default: in FOLDER/export].")
def export(folder: str, form: str, out: str | None) -> None:
    """Write the draws of a run for other tools: netCDF for ArviZ, or a table of a line a draw. Loads no model."""
    from lmppl.export import export

    click.echo("\n".join(export(folder, form, out)))


# --- is an engine right? --------------------------------------------------------------------------


def _simulation_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Flags of commands that simulate data from a program."""
    flags = (
        click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="Value of a given or a param."),
        click.option("--data", type=click.Path(), help="Rows that lend givens and lengths: .jsonl or .csv."),
        click.option("--lm", "lms", multiple=True, metavar="NAME=ID", help="Another model for NAME."),
        click.option(
            "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Same seed, same result."
        ),
        click.option("-o", "options", multiple=True, metavar="KEY=VALUE", help="An option of the engine alone."),
        click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda."),
        click.option("--batch-size", type=click.IntRange(min=1), default=64, show_default=True, help="Rows at once."),
        click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else."),
    )
    for flag in reversed(flags):
        command = flag(command)
    return command


@app.command()
@click.argument("program", type=PROGRAM)
@click.option("--engine", default="auto", show_default=True, help="What to test; `lmppl engines` lists them.")
@click.option("--simulations", type=click.IntRange(min=1), default=50, show_default=True, help="Ranks a statistic.")
@click.option("--num-samples", type=click.IntRange(min=1), help="Draws a chain, and draws ranked among [default: 31].")
@click.option("--chains", type=click.IntRange(min=1), help="Chains or replicates [default: 4].")
@click.option("--num-warmup", type=click.IntRange(min=0), help="Steps before the first draw [default: 100].")
@click.option("--thin", type=click.IntRange(min=1), help="Steps a draw [default: by pilot runs].")
@_simulation_flags
def sbc(program: str, engine: str, simulations: int, **flags: Any) -> None:
    """Test an engine on data that the program simulates. Exit code 1 where its ranks are not uniform."""
    from lmppl.calibrate import calibrate
    from lmppl.report.certificates import show_calibration

    names = ("num_samples", "chains", "num_warmup", "thin")
    asked = {name: flags[name] for name in names if flags[name] is not None}
    lowered, rows, request = _to_simulate(program, engine, asked, flags)
    with progress_bar() as progress:
        models = _models(lowered, flags, progress)
        found = calibrate(lowered, rows, models, request, simulations, progress)
    _show_found(found, show_calibration, flags["as_json"])
    sys.exit(FINDINGS if found.verdict == "fail" else 0)


@app.command()
@click.argument("program", type=PROGRAM)
@click.option("--simulations", type=click.IntRange(min=1), default=20, show_default=True, help="Simulated data rows.")
@click.option("--num-samples", type=click.IntRange(min=1), default=100, show_default=True, help="Draws a replicate.")
@click.option("--chains", type=click.IntRange(min=1), default=1, show_default=True, help="Replicates a simulation.")
@_simulation_flags
def bounds(program: str, simulations: int, num_samples: int, chains: int, **flags: Any) -> None:
    """Bound the evidence from both sides, and how far what `importance` proposes is from the posterior."""
    from lmppl.certificates import certify
    from lmppl.report.certificates import show_bounds

    shape = {"chains": chains, "num_samples": num_samples}
    lowered, rows, request = _to_simulate(program, "importance", shape, flags)
    with progress_bar() as progress:
        models = _models(lowered, flags, progress)
        found = certify(lowered, rows, models, request, simulations, progress)
    _show_found(found, show_bounds, flags["as_json"])


def _to_simulate(path: str, engine: str, asked: dict[str, int], flags: dict[str, Any]) -> tuple[Any, Any, Any]:
    """A program, its rows and a request. What cannot be simulated or run is said before any model is loaded."""
    from lmppl.driver import Request, pick_engine
    from lmppl.simulate import require_simulation

    compiled = compile_or_exit(path)
    records = read_records(flags["data"]) if flags["data"] else []
    lowered, rows, warnings = compiled.configure(pairs(flags["settings"], "--set"), records)
    show_findings([*compiled.warnings, *warnings], "concise")
    require_simulation(lowered)
    pick_engine(lowered, engine)
    return lowered, rows, Request(engine, asked, pairs(flags["options"], "-o"), flags["seed"], flags["batch_size"])


def _models(program: Any, flags: dict[str, Any], progress: Any) -> Any:
    from lmppl.lm.load import load_models

    return load_models(program, pairs(flags["lms"], "--lm"), flags["device"], progress)


def _show_found(found: Any, report: Callable[..., None], as_json: bool) -> None:
    """Print a calibration or bounds."""
    if as_json:
        click.echo(json.dumps(found.document(), ensure_ascii=False, allow_nan=False))
        return
    from rich.console import Console

    report(found, Console())


@app.command()
def engines() -> None:
    """List the engines and their options."""
    from dataclasses import fields

    from lmppl.engines import ENGINE_NAMES, engine

    for name in ENGINE_NAMES:
        entry = engine(name)
        click.echo(f"{name:<12} {entry.summary}")
        for option in fields(entry.options):
            click.echo(f"{'':<14}-o {option.name}={option.default}")


@app.command()
@click.option("--fetch", metavar="ALIAS", help="Fetch a model into the cache.")
@click.option("--remove", metavar="ALIAS", help="Remove a model from the cache.")
@click.option("--verify", is_flag=True, help="Compare every file with its checksum.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
def models(fetch: str | None, remove: str | None, verify: bool, as_json: bool) -> None:
    """List the models that lmppl knows by name, and fetch them."""
    from lmppl.lm import models as cache

    if remove:
        gone = cache.remove(cache.find_alias(remove))
        click.echo(f"{remove}: {'removed' if gone else 'was not there'}", err=as_json)
    if fetch:
        with progress_bar() as progress:
            cache.ensure(cache.find_alias(fetch), progress)
    entries = []
    for entry in cache.list_models():
        broken = verify and entry.state == "ready" and not cache.is_whole(entry.path, thorough=True)
        state = "broken" if broken else entry.state
        entries.append({"alias": entry.alias.name, "title": entry.alias.title, "licence": entry.alias.licence,
                        "state": state, "bytes": entry.size, "path": str(entry.path)})  # fmt: skip
    if as_json:
        click.echo(json.dumps(entries, ensure_ascii=False, indent=1))
        return
    for line in entries:
        size = f"{line['bytes'] / 1e6:,.0f} MB in {line['path']}" if line["state"] != "absent" else "not fetched yet"
        click.echo(f"{line['alias']:<14} {line['state']:<7} {line['title']} ({line['licence']}), {size}")


# --- shared ---------------------------------------------------------------------------------------


def read_program(path: str) -> Analysis:
    """Analysis of a program file. Raises LmpplError where it cannot be read."""
    return analyse(read_text(path, "program"), Path(path).resolve().parent)


def compile_or_exit(path: str) -> CompiledProgram:
    """A program without errors; otherwise shows its findings and leaves with exit code 1."""
    analysis = read_program(path)
    if analysis.program is None:
        show_findings(analysis.findings, "full")
        sys.exit(FINDINGS)
    return CompiledProgram(analysis)


def pairs(texts: Iterable[str], flag: str) -> dict[str, str]:
    """NAME=VALUE flags as a mapping."""
    result = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise click.UsageError(f"{flag} {text}: expected NAME=VALUE")
        result[name.strip()] = value
    return result


def show_findings(findings: Iterable[Diagnostic], form: str, err: bool = True) -> None:
    """Print findings, on standard error unless they are what was asked for."""
    color = (sys.stderr if err else sys.stdout).isatty() and "NO_COLOR" not in os.environ
    for finding in findings:
        text = render_concise(finding) if form == "concise" else render_full(finding, color) + "\n"
        click.echo(text, err=err)


def show(posterior: Any, as_json: bool) -> None:
    """Print a posterior."""
    if as_json:
        click.echo(json.dumps(posterior.document(), ensure_ascii=False, allow_nan=False))
        return
    from rich.console import Console

    from lmppl.report.run import show_posterior

    show_posterior(posterior, Console())


@contextmanager
def progress_bar():
    """A progress callback that draws a bar on standard error, or nothing but notices where it is no terminal."""
    if not sys.stderr.isatty():
        yield _notices()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from lmppl.engines.contract import VARYING

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, Any] = {}

        def report(what: str, done: int, total: int) -> None:
            name = what.partition(VARYING)[0]
            if name not in tasks:
                for task in tasks.values():
                    bar.update(task, visible=False)
                tasks[name] = bar.add_task(what)
            bar.update(tasks[name], description=what, completed=done, total=total)

        yield report


def _notices() -> Callable[[str, int, int], None]:
    """Says once what takes long where there is no terminal: fetching and converting."""
    said: set[str] = set()

    def report(what: str, done: int, total: int) -> None:
        if what.startswith(("downloading", "converting", "the cached")) and what not in said:
            said.add(what)
            click.echo(f"lmppl: {what}", err=True)

    return report


def _write_whole(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8", newline="\n")
    partial.replace(path)


def main() -> None:
    """Entry point of the `lmppl` command."""
    if os.environ.get("RANK", "0") != "0":  # of several processes that train together, the first speaks
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    try:
        app(standalone_mode=True)
    except LmpplError as reason:
        show_findings(reason.diagnostics, "full")
        sys.exit(FAILURE)
    except KeyboardInterrupt:
        click.echo("interrupted", err=True)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILURE)
    except Exception as reason:  # anything else is ours, and we say so
        if "LMPPL_TRACEBACK" in os.environ:
            traceback.print_exc()
        message = f"{type(reason).__name__}: {reason}"
        click.echo(f"error[internal]: this is a bug in lmppl: {message}", err=True)
        click.echo("  = help: report it with the program; LMPPL_TRACEBACK=1 shows where it happened", err=True)
        sys.exit(FAILURE)
