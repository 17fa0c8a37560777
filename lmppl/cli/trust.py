"""Commands that ask whether an engine is right, on data that a program simulates: sbc, bounds."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import rich_click as click

from lmppl.cli.app import (
    COLUMN,
    FINDINGS,
    PROGRAM,
    app,
    compile_or_exit,
    machine_flags,
    pairs,
    show_findings,
)
from lmppl.cli.say import console, say_json
from lmppl.data import read_records
from lmppl.screen import shown
from lmppl.settings import asked_for


def _simulation_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Flags of commands that simulate data from a program."""
    flags = (
        click.option(
            "--set",
            "settings",
            multiple=True,
            metavar="NAME=VALUE",
            help="Value of a given or a param.",
        ),
        click.option(
            "--data",
            type=click.Path(),
            help="Rows that lend givens and lengths: .jsonl, .csv or .tsv.",
        ),
        COLUMN,
        click.option(
            "--lm", "lms", multiple=True, metavar="NAME=ID", help="Another model for NAME."
        ),
        click.option(
            "--seed", type=int, default=0, show_default=True, help="Same seed, same result."
        ),
        click.option(
            "-o",
            "options",
            multiple=True,
            metavar="KEY=VALUE",
            help="An option of the engine alone.",
        ),
        machine_flags,
        click.option(
            "--json", "as_json", is_flag=True, help="Print one JSON document and nothing else."
        ),
    )
    for flag in reversed(flags):
        command = flag(command)
    return command


@app.command()
@click.argument("program", type=PROGRAM)
@click.option(
    "--engine", default="auto", show_default=True, help="What to test; `lmppl engines` lists them."
)
@click.option(
    "--simulations",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    help="Ranks a statistic.",
)
@click.option(
    "--num-samples", type=int, help="Draws a chain, and draws ranked among [default: 31]."
)
@click.option("--chains", type=int, help="Chains or replicates [default: 4].")
@click.option("--num-warmup", type=int, help="Steps before the first draw [default: 100].")
@click.option("--thin", type=int, help="Steps a draw [default: by pilot runs].")
@_simulation_flags
def sbc(program: str, engine: str, simulations: int, **flags: Any) -> None:
    """Test an engine on data that the program simulates. Exit code 1 where its ranks are not
    uniform.
    """
    from lmppl.report import show_calibration
    from lmppl.validation import calibrate

    names = ("num_samples", "chains", "num_warmup", "thin")
    asked = asked_for(**{name: flags[name] for name in names})
    lowered, rows, request = _to_simulate(program, engine, asked, flags)
    with shown() as progress:
        models = _models(lowered, flags, progress)
        found = calibrate(lowered, rows, models, request, simulations, progress)
    _show_found(found, show_calibration, flags["as_json"])
    sys.exit(FINDINGS if found.verdict == "fail" else 0)


@app.command()
@click.argument("program", type=PROGRAM)
@click.option(
    "--simulations",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="Simulated data rows.",
)
@click.option("--num-samples", type=int, default=100, show_default=True, help="Draws a replicate.")
@click.option("--chains", type=int, default=1, show_default=True, help="Replicates a simulation.")
@_simulation_flags
def bounds(program: str, simulations: int, num_samples: int, chains: int, **flags: Any) -> None:
    """Bound the evidence from both sides, and how far what `importance` proposes is from the
    posterior.
    """
    from lmppl.report import show_bounds
    from lmppl.validation import PROPOSER, certify

    shape = {"chains": chains, "num_samples": num_samples}
    lowered, rows, request = _to_simulate(program, PROPOSER, shape, flags)
    with shown() as progress:
        models = _models(lowered, flags, progress)
        found = certify(lowered, rows, models, request, simulations, progress)
    _show_found(found, show_bounds, flags["as_json"])


def _to_simulate(
    path: str, engine: str, asked: dict[str, int], flags: dict[str, Any]
) -> tuple[Any, Any, Any]:
    """A program, its rows and a request. What cannot be simulated or run is said before any model
    is loaded.
    """
    from lmppl.run import Request, prepare
    from lmppl.validation import require_simulation

    compiled = compile_or_exit(path)
    records = read_records(flags["data"]) if flags["data"] else []
    lowered, rows, warnings = compiled.configure(
        pairs(flags["settings"], "--set"), records, pairs(flags["columns"], "--column")
    )
    show_findings([*compiled.warnings, *warnings], "concise")
    require_simulation(lowered)
    request = Request(
        engine, asked, pairs(flags["options"], "-o"), flags["seed"], flags["batch_size"],
        lms=pairs(flags["lms"], "--lm"),
    )  # fmt: skip
    prepare(lowered, request)
    return lowered, rows, request


def _models(program: Any, flags: dict[str, Any], progress: Any) -> Any:
    from lmppl.lm import load_models

    return load_models(
        program,
        pairs(flags["lms"], "--lm"),
        flags["device"],
        progress,
        torch_compile=flags["torch_compile"],
        cuda_graphs=flags["cuda_graphs"],
    )


def _show_found(found: Any, report: Callable[..., None], as_json: bool) -> None:
    """Print a calibration or bounds."""
    if as_json:
        say_json(found.document())
        return

    report(found, console())
