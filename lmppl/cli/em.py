"""The command that learns a model: em."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rich_click as click

from lmppl.cli.app import COLUMN, PROGRAM, app, compile_or_exit, machine_flags, pairs, show_findings
from lmppl.cli.say import console, say, say_json
from lmppl.data import read_records
from lmppl.screen import shown
from lmppl.settings import asked_for


@app.command()
@click.argument("program", type=PROGRAM)
@click.option(
    "--data", type=click.Path(), required=True, help="Rows to learn from: .jsonl, .csv or .tsv."
)
@COLUMN
@click.option(
    "--held-out",
    type=click.Path(),
    help="Rows whose log evidence says when to stop [default: --data].",
)
@click.option(
    "--engine", default="auto", show_default=True, help="The E-step; `lmppl engines` lists them."
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="Value of a given, a param or a latent.",
)
@click.option(
    "--rounds", type=click.IntRange(min=1), default=4, show_default=True, help="Most M-steps."
)
@click.option(
    "--patience",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Rounds without a rise.",
)
@click.option(
    "--fit",
    multiple=True,
    metavar="KEY=VALUE",
    help="How the M-step fits: steps, learning_rate, rank, ….",
)
@click.option(
    "-o", "options", multiple=True, metavar="KEY=VALUE", help="An option of the E-step's engine."
)
@click.option("--chains", type=int, help="Chains or replicates of the E-step [default: 4].")
@click.option("--num-samples", type=int, help="Draws a chain [default: 100].")
@click.option("--num-warmup", type=int, help="Steps before the first draw [default: 100].")
@click.option("--lm", "lms", multiple=True, metavar="NAME=ID", help="Another model for NAME.")
@click.option("--seed", type=int, default=0, show_default=True, help="Same seed, same rounds.")
@click.option(
    "--out",
    type=click.Path(),
    help="The folder [default: PROG-em]. What is done there is not done again.",
)
@machine_flags
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
def em(program: str, engine: str, out: str | None, as_json: bool, **flags: Any) -> None:
    """Learn a model where latents are not observed: expectation-maximisation of what `learn`
    names.
    """
    from lmppl.em import Fit, Job, expectation_maximisation, require_learnable
    from lmppl.engines import parse_options
    from lmppl.run import Request

    compiled = compile_or_exit(program)
    settings = pairs(flags["settings"], "--set")
    columns = pairs(flags["columns"], "--column")
    lowered, rows, warnings = compiled.configure(settings, read_records(flags["data"]), columns)
    told = read_records(flags["held_out"]) if flags["held_out"] else None
    held_out = rows if told is None else compiled.configure(settings, told, columns)[1]
    show_findings([*compiled.warnings, *warnings], "concise")
    require_learnable(lowered)
    fit = parse_options("--fit", Fit(), pairs(flags["fit"], "--fit"))
    names = ("chains", "num_samples", "num_warmup")
    asked = asked_for(**{name: flags[name] for name in names})
    request = Request(
        engine, asked, pairs(flags["options"], "-o"), flags["seed"], flags["batch_size"],
        lms=pairs(flags["lms"], "--lm"),
    )  # fmt: skip
    folder = Path(out or f"{Path(program).stem}-em")
    lms = request.lms
    with shown() as progress:
        from lmppl.lm import identify, load_models

        def load(learned: Any) -> Any:
            ways = flags["torch_compile"], flags["cuda_graphs"]
            return load_models(lowered, lms, flags["device"], progress, learned, *ways)

        job = Job(
            lowered, rows, held_out, load, request, fit, flags["rounds"], flags["patience"],
            lambda line: say(line, err=True), progress, lambda: identify(lowered, lms, progress),
        )  # fmt: skip
        document = expectation_maximisation(job, folder)
    if as_json:
        say_json(document)
        return

    from lmppl.report import show_rounds

    show_rounds(document, folder, console())
