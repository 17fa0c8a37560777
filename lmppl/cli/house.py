"""Commands on what there is: engines, models."""

from __future__ import annotations

import json

import rich_click as click

from lmppl.cli.app import app
from lmppl.progress import shown


@app.command()
def engines() -> None:
    """List the engines and their options."""
    from dataclasses import fields

    from lmppl.engines import ENGINE_NAMES, engine

    for name in ENGINE_NAMES:
        entry = engine(name)
        click.echo(f"{name:<14} {entry.summary}")
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
        with shown() as progress:
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
