"""The command that asks whether a model tells the truth about its own probabilities."""

from __future__ import annotations

import sys

import rich_click as click

from lmppl.cli.app import FINDINGS, app
from lmppl.cli.say import console, say_json
from lmppl.screen import shown

PATIENCE = 30.0


@app.command()
@click.argument("model")
@click.option("--adapter", help="A PEFT folder, or the name of a served adapter.")
@click.option("--dtype", help="float32 or bfloat16, of a model that is loaded here.")
@click.option("--revision", help="Of a model of the Hugging Face hub.")
@click.option("--tokenizer", help="Of a served model: a folder or a hub id.")
@click.option("--key", metavar="VARIABLE", help="Of the environment, that holds a server's key.")
@click.option(
    "--patience",
    type=click.FloatRange(min=0),
    default=PATIENCE,
    show_default=True,
    help="Seconds that a silent server is waited for.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--thorough", is_flag=True, help="Eight times the draws, and long windows filled.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
def doctor(
    model: str,
    patience: float,
    device: str,
    thorough: bool,
    as_json: bool,
    **options: str | None,
) -> None:
    """Check whether MODEL tells the truth about its own probabilities.

    MODEL is what a program writes behind `lm LM =`: an alias, a folder, `table:FILE`,
    `llama.cpp:FILE`, or the address of a server, http://host:8000/v1#name. Exit code 1 where a
    check fails.
    """
    from lmppl.doctor import THOROUGH, Sizes, examine
    from lmppl.report import show_report

    asked: dict[str, str | float] = {"patience": patience}
    asked |= {name: value for name, value in options.items() if value is not None}
    sizes = THOROUGH if thorough else Sizes()
    with shown() as progress:
        report = examine(model, sizes, options=asked, device=device, progress=progress)
    if as_json:
        say_json(report.document)
    else:
        show_report(report, console())
    sys.exit(FINDINGS if report.verdict == "fail" else 0)
