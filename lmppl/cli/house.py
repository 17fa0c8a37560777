"""Commands on what there is: engines, models."""

from __future__ import annotations

import re

import rich_click as click

from lmppl.cli.app import app
from lmppl.cli.say import say, say_json
from lmppl.errors import LmpplError
from lmppl.findings import run as run_findings
from lmppl.screen import shown


@app.command()
@click.argument("name", required=False)
def engines(name: str | None) -> None:
    """List the engines and their options; with a NAME, say what its options are."""
    from dataclasses import fields

    from lmppl.engines import ENGINE_NAMES, engine

    if name is not None:
        _describe(name)
        return
    for known in ENGINE_NAMES:
        entry = engine(known)
        say(f"{known:<14} {entry.summary}")
        for option in fields(entry.options):
            say(f"{'':<14}-o {option.name}={option.default}")


def _describe(name: str) -> None:
    """One engine's options in words, with what they are where nothing is said."""
    from dataclasses import fields

    from lmppl.engines import ENGINE_NAMES, engine
    from lmppl.settings import ranges_of

    if name not in ENGINE_NAMES:
        raise LmpplError(run_findings.unknown_engine(name, ENGINE_NAMES))
    entry = engine(name)
    say(f"{name}: {entry.summary}")
    words, ranges = option_words(entry.options), ranges_of(entry.options)
    for option in fields(entry.options):
        default = f"{option.default}" if option.default not in ("", ()) else "nothing"
        allowed = f"; {ranges[option.name]}" if option.name in ranges else ""
        say(
            (
                f"  -o {option.name}=…  [default: {default}{allowed}]\n      "
                f"{words.get(option.name, '')}"
            ).rstrip()
        )
    if not fields(entry.options):
        say("  no options of its own")


def option_words(options: type) -> dict[str, str]:
    """What each option is, by name: the comment that stands above it or beside it."""
    import inspect

    words: dict[str, str] = {}
    for kind in reversed(options.__mro__[:-1]):
        above: list[str] = []
        for line in inspect.getsource(kind).splitlines():
            if alone := re.fullmatch(r" {4}# (.*)", line):
                above.append(alone[1])
                continue
            if option := re.match(r" {4}(\w+): [^#]*(?:# (.*))?", line):
                words[option[1]] = " ".join([*above, option[2] or ""]).strip()
            above = []
    return words


@app.command()
@click.option("--fetch", metavar="ALIAS", help="Fetch a model into the cache.")
@click.option("--remove", metavar="ALIAS", help="Remove a model from the cache.")
@click.option("--verify", is_flag=True, help="Compare every file with its checksum.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
def models(fetch: str | None, remove: str | None, verify: bool, as_json: bool) -> None:
    """List the models that lmppl knows by name, and fetch them."""
    from lmppl.lm.transformers import models as cache

    if remove:
        gone = cache.remove(cache.find_alias(remove))
        say(f"{remove}: {'removed' if gone else 'was not there'}", err=as_json)
    if fetch:
        with shown() as progress:
            cache.ensure(cache.find_alias(fetch), progress)
    entries = []
    for entry in cache.list_models():
        broken = verify and entry.state == "ready" and not cache.is_whole(entry.path, thorough=True)
        state = "broken" if broken else entry.state
        entries.append(
            {
                "alias": entry.alias.name,
                "title": entry.alias.title,
                "licence": entry.alias.licence,
                "state": state,
                "bytes": entry.size,
                "path": str(entry.path),
            }
        )
    if as_json:
        say_json(entries, indent=1)
        return
    width = max(len(line["alias"]) for line in entries)
    for line in entries:
        megabytes = f"{line['bytes'] / 1e6:,.0f} MB"
        if line["state"] != "absent":
            size = f"{megabytes} in {line['path']}"
        else:
            fetched = f"not converted yet, {megabytes} fetched"
            size = fetched if line["bytes"] else "not fetched yet"
        about = f"{line['title']} ({line['licence']}), {size}"
        say(f"{line['alias']:<{width}} {line['state']:<7} {about}")
