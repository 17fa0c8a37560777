"""The command that answers: serve."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import Any

import rich_click as click

from lmppl.cli.app import PROGRAM, app, compile_or_exit, machine_flags, pairs, show_findings
from lmppl.cli.say import say
from lmppl.errors import LmpplError
from lmppl.findings import serving as findings
from lmppl.screen import shown
from lmppl.settings import asked_for

SETTINGS = ("chains", "num_samples", "num_warmup", "thin")
MACHINE = ("device", "torch_compile", "cuda_graphs")
LEAST_TOKEN = 8


@app.command()
@click.argument("programs", nargs=-1, required=True, type=PROGRAM)
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option("--port", type=int, default=8000, show_default=True, help="0: any that is free.")
@click.option(
    "--token-env", metavar="NAME", help="The environment's variable that holds the token."
)
@click.option(
    "--engine", default="auto", show_default=True, help="How to draw; `lmppl engines` lists them."
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="Value of a given, a param or a latent, for all requests.",
)
@click.option("--lm", "lms", multiple=True, metavar="NAME=ID", help="Another model for NAME.")
@click.option("--chains", type=int, help="Chains or replicates [default: 4].")
@click.option("--num-samples", type=int, help="Draws a chain [default: 100].")
@click.option("--num-warmup", type=int, help="Steps before the first draw [default: 100].")
@click.option("--thin", type=int, help="Steps a draw [default: 1].")
@click.option("--seed", type=int, help="Of requests without one [default: one each].")
@click.option(
    "-o", "options", multiple=True, metavar="KEY=VALUE", help="An option of the engine alone."
)
@click.option(
    "--until", metavar="se=X", help="Draw until the answer's standard errors are below X."
)
@click.option("--timeout", type=float, help="Seconds that a request has [default: 60].")
@click.option("--max-body", type=int, help="Bytes of a request [default: 1000000].")
@click.option("--body-timeout", type=float, help="Seconds for a body to come [default: 10].")
@click.option("--window", type=float, help="Seconds that rows are gathered [default: 0.005].")
@click.option("--max-batch", type=int, help="Rows of one inference [default: 64].")
@click.option("--max-queue", type=int, help="Rows that may wait [default: 1024].")
@click.option("--grace", type=float, help="Seconds for requests at the end [default: 10].")
@machine_flags
def serve(programs: tuple[str, ...], host: str, port: int, **flags: Any) -> None:
    """Answer requests by programs: OpenAI's form, or rows with probabilities for answers."""
    from lmppl.serve import Serving, load_programs, open_socket, require_names, require_packages

    require_packages()
    from lmppl.serve import make_server

    names = require_names(programs)
    compiled = {name: compile_or_exit(path) for name, path in zip(names, programs, strict=True)}
    for one in compiled.values():
        show_findings(one.warnings, "concise")
    serving = _serving(flags, Serving)
    with open_socket(host, port, serving.token) as bound:
        from lmppl.run import Request

        request = Request(
            flags["engine"], asked_for(**{name: flags[name] for name in SETTINGS}),
            pairs(flags["options"], "-o"), batch_size=flags["batch_size"],
            lms=pairs(flags["lms"], "--lm"),
        )  # fmt: skip
        machine = {name: flags[name] for name in MACHINE}
        settings = pairs(flags["settings"], "--set")
        url = f"http://{f'[{host}]' if ':' in host else host}:{bound.getsockname()[1]}"
        with ExitStack() as loaded:
            with shown() as progress:
                served = loaded.enter_context(
                    load_programs(compiled, settings, request, machine, progress)
                )
            open_at = f"serving {', '.join(names)} at {url}"
            make_server(served, serving, lambda: say(open_at)).answer(bound)
    say("stopped", err=True)


def _serving(flags: dict[str, Any], kind: Any) -> Any:
    """Limits and habits. Raises LmpplError, one finding a bad one."""
    from lmppl.engines import require_ranges

    limits = ("timeout", "max_body", "body_timeout", "window", "max_batch", "max_queue", "grace")
    asked = asked_for(**{name: flags[name] for name in (*limits, "seed")})
    token = None if flags["token_env"] is None else _token(flags["token_env"])
    serving = kind(token, until=_until(flags["until"]), **asked)
    require_ranges("serve", serving)
    return serving


def _token(name: str) -> str:
    """The token that a variable holds. Raises LmpplError."""
    token = os.environ.get(name, "")
    if len(token) < LEAST_TOKEN or any(not "!" <= letter <= "~" for letter in token):
        raise LmpplError(findings.bad_token(name))
    return token


def _until(text: str | None) -> float | None:
    """What --until says. Raises UsageError."""
    if text is None:
        return None
    name, _, number = text.replace(" ", "").partition("=")
    try:
        found = float(number)
    except ValueError:
        found = 0.0
    if name != "se" or not 0 < found < 0.5:
        raise click.UsageError(f"--until {text}: expected se=X, X above 0 and below 0.5")
    return found
