"""Commands on programs as text: check, format, explain, graph. None runs a program."""

from __future__ import annotations

import sys
from pathlib import Path

import rich_click as click

from lmppl.cli.app import (
    FINDINGS,
    FORMATS,
    PROGRAM,
    app,
    compile_or_exit,
    pairs,
    read_program,
    show_findings,
    write_file,
)
from lmppl.cli.say import say, say_as_it_is, say_json
from lmppl.data import read_text
from lmppl.errors import Diagnostic, abridged, to_document
from lmppl.screen import shown


@app.command()
@click.argument("programs", nargs=-1, required=True, type=PROGRAM)
@click.option(
    "--output-format",
    type=FORMATS,
    default="full",
    show_default=True,
    help="How findings are written.",
)
def check(programs: tuple[str, ...], output_format: str) -> None:
    """Find what is wrong with programs, without running them. Exit code 1 where there are
    findings.
    """
    findings = [finding for path in programs for finding in _findings(path)]
    if output_format == "json":
        say_json([to_document(finding, more) for finding, more in abridged(findings)], indent=1)
    elif findings:
        show_findings(findings, output_format, err=False)
    else:
        say(f"{len(programs)} program{'s' if len(programs) > 1 else ''} checked: nothing found.")
    sys.exit(FINDINGS if findings else 0)


def _findings(path: str) -> list[Diagnostic]:
    """What is wrong with a program: its text, or that its models cannot do what it asks of them."""
    from lmppl.run import unable_as_written

    analysis = read_program(path)
    unable = [] if analysis.program is None else list(unable_as_written(analysis.program))
    return [*analysis.findings, *unable]


@app.command("format")
@click.argument("programs", nargs=-1, required=True, type=PROGRAM)
@click.option(
    "--check",
    "only_check",
    is_flag=True,
    help="Write nothing; exit code 1 where a file would change.",
)
@click.option("--stdout", is_flag=True, help="Print the text instead of writing it back.")
def format_command(programs: tuple[str, ...], only_check: bool, stdout: bool) -> None:
    """Write programs in the canonical form. Comments are kept, and the meaning."""
    from lmppl.language import format_program

    changed = 0
    for path in programs:
        source = read_text(path, "program")
        text, findings = format_program(source)
        if findings:
            show_findings(findings, "full")
            sys.exit(FINDINGS)
        if stdout:
            say_as_it_is(text)
        elif text != Path(path).read_bytes().decode("utf-8"):
            changed += 1
            say(f"{path}: {'would be changed' if only_check else 'changed'}")
            if not only_check:
                write_file(Path(path), text)
    sys.exit(FINDINGS if only_check and changed else 0)


@app.command()
@click.argument("program", type=PROGRAM)
@click.option(
    "--stage",
    type=click.Choice(["ast", "ir", "density"]),
    default="ir",
    show_default=True,
    help="What to show.",
)
@click.option(
    "--value",
    "values",
    multiple=True,
    metavar="NAME=TEXT",
    help="Value of a latent: shows the log density.",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="Value of a given, a param or a latent.",
)
@click.option("--lm", "lms", multiple=True, metavar="NAME=ID", help="Another model for NAME.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
def explain(
    program: str,
    stage: str,
    values: tuple[str, ...],
    settings: tuple[str, ...],
    lms: tuple[str, ...],
    device: str,
) -> None:
    """Show what a program means: its tree, its latents and factors, or the log density of a
    value.
    """
    from lmppl.report import explain_density, explain_ir, explain_tree

    if stage == "ast":
        say(explain_tree(read_program(program).tree))
        return
    compiled = compile_or_exit(program)
    if stage == "density" or values:
        fixed = {**pairs(settings, "--set"), **pairs(values, "--value")}
        with shown() as progress:
            text = explain_density(compiled, fixed, pairs(lms, "--lm"), device, progress)
        say(text)
    else:
        say(explain_ir(compiled.program))


@app.command()
@click.argument("program", type=PROGRAM)
@click.option(
    "--format", "form", type=click.Choice(["text", "mermaid"]), default="text", show_default=True
)
def graph(program: str, form: str) -> None:
    """Show which names a program's latents and factors read."""
    from lmppl.language import graph_mermaid, graph_text

    compiled = compile_or_exit(program)
    say(graph_text(compiled.program) if form == "text" else graph_mermaid(compiled.program))
