"""The group that commands hang on, and what they share: reading programs, flags, showing findings.

Everything heavy is imported when it is used.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import rich_click as click

from lmppl.cli.say import console, say, say_json, say_painted
from lmppl.compile import Analysis, CompiledProgram, analyse
from lmppl.data import read_text
from lmppl.errors import Diagnostic, LmpplError, abridged, error, render_concise, render_full
from lmppl.interrupts import INTERRUPTED
from lmppl.language import SURROGATE
from lmppl.screen import visible
from lmppl.settings import FORMS, Budget, parse_budget
from lmppl.shapes import Document
from lmppl.version import VERSION

FINDINGS, FAILURE = 1, 2
SHOWN = 30  # rows that are shown of those on disk
FORMATS = click.Choice(["full", "concise", "json"])
PROGRAM = click.Path(dir_okay=True)
DRAWS = click.option("--draws", is_flag=True, help="With --json: every draw as well.")
COLUMN = click.option(
    "--column", "columns", multiple=True, metavar="NAME=COLUMN", help="The column that holds NAME."
)

_MACHINE = (
    click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda."),
    click.option(
        "--torch-compile", is_flag=True, help="Decode by a compiled step: pays in long runs."
    ),
    click.option(
        "--cuda-graphs/--no-cuda-graphs",
        default=True,
        help="Record decoding steps where there is CUDA.",
    ),
    click.option("--batch-size", type=int, default=64, show_default=True, help="Rows at once."),
)


def machine_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Flags of every command that runs a model: where, and how."""
    for flag in reversed(_MACHINE):
        command = flag(command)
    return command


@contextmanager
def _visible_usage() -> Iterator[None]:
    """Usage errors repeat what was typed: as a terminal may be shown it."""
    try:
        yield
    except click.ClickException as reason:
        said = reason.format_message()
        if visible(said) == said:
            raise
        raise click.UsageError(visible(said), getattr(reason, "ctx", None)) from None


class _Commands(click.RichGroup):
    """Commands whose Ctrl-C says what it left behind, and ends with the exit code of an
    interrupt.
    """

    def make_context(self, *args: Any, **more: Any) -> click.Context:
        with _visible_usage():
            return super().make_context(*args, **more)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with _visible_usage():
                return super().invoke(ctx)
        except KeyboardInterrupt as reason:
            say(": ".join(["interrupted", *map(str, reason.args)]), err=True)
            sys.exit(INTERRUPTED)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(VERSION, prog_name="lmppl")
def app() -> None:
    """Probabilistic programs over text, and engines that draw from their posterior."""


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
        if SURROGATE.search(text):
            raise click.UsageError(f"{flag} {name.strip()}: the value is not UTF-8")
        result[name.strip()] = value
    return result


def budget_of(text: str) -> Budget | None:
    """What --budget says. Raises UsageError."""
    try:
        return parse_budget(text)
    except ValueError:
        raise click.UsageError(f"--budget {text}: expected {FORMS} or none") from None


def learned_by(folder: str | None) -> dict[str, Path]:
    """Adapters of models, by name, that `lmppl em` has kept in a folder. Raises LmpplError."""
    from lmppl.em import learned_adapters

    return learned_adapters(Path(folder)) if folder else {}


def show_findings(findings: Iterable[Diagnostic], form: str, err: bool = True) -> None:
    """Print findings, on standard error unless they are what was asked for."""
    color = (sys.stderr if err else sys.stdout).isatty() and "NO_COLOR" not in os.environ
    for finding, more in abridged(findings):
        text = render_concise(finding) if form == "concise" else render_full(finding, color) + "\n"
        say_painted(text, err=err)
        if more:
            say(f"… and {more} more of this kind: {finding.severity}[{finding.code}]\n", err=err)


def show_bug(message: str) -> None:
    """Print that lmppl itself has failed."""
    say(f"error[internal]: this is a bug in lmppl: {message}", err=True)
    say("  = help: report it with the program; LMPPL_TRACEBACK=1 shows where it happened", err=True)


def show(posterior: Any, as_json: bool, verbose: bool = False, draws: bool = False) -> None:
    """Print a posterior; that it was cut short, on standard error. verbose: with statistics and
    diagnostics; draws: every draw, in JSON."""
    if posterior.interrupted is not None:
        say(
            f"lmppl: this run was {posterior.interrupted} ({posterior.interrupted.reason})",
            err=True,
        )
    if as_json:
        say_json(posterior.document(draws))
        return

    from lmppl.posterior import KeptRows
    from lmppl.report import show_posterior

    rows = posterior.rows
    if not isinstance(rows, KeptRows) or len(rows) <= SHOWN:
        show_posterior(posterior, console(), verbose)
        return
    # of rows on disk, some are read: many would take much time and memory
    show_posterior(replace(posterior, rows=rows[:SHOWN]), console(), verbose)
    counted = Counter(rows.verdicts)
    told = ", ".join(f"{counted[status]:,} {status}" for status in ("fail", "warn", "pass"))
    say(f"\nthese are the first {SHOWN} of {len(rows):,} rows; verdicts of all: {told}")


def show_compared(document: Document, folder: str | Path, as_json: bool) -> None:
    """Print a comparison."""
    if as_json:
        say_json(document)
        return

    from lmppl.report import show_comparison

    show_comparison(document, Path(folder), console())


def write_file(path: Path, text: str) -> None:
    """Write a text file whole or not at all. Raises LmpplError."""
    from lmppl.posterior import write_whole

    try:
        write_whole(path, text)
    except OSError as reason:
        message = f"`{path}` cannot be written: {reason.strerror or reason}"
        raise LmpplError(error("unwritable-file", message)) from None
