"""From a comparison, as plain JSON, to one HTML file. Whatever a model wrote stays text on the way.

Nothing in the file is fetched, and its content security policy says so to the browser: scripts run by their hash alone,
so a draw that got past the escaping still would not run."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

import altair
import vl_convert
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lmppl.report.page.charts import charts
from lmppl.report.page.graph import layout, outline
from lmppl.report.page.table import number, table

PACKAGE = "lmppl.report.page"
SCRIPTS = ("page.js", "plots.js", "draws.js", "start.js")  # in this order, as one
VEGA_LITE = altair.SCHEMA_VERSION.rpartition(".")[0]  # the version that the plots are written for
FIGURES = 6  # significant ones that the browser gets: more than any plot or table shows


def render(document: Mapping[str, Any]) -> str:
    """One self-contained HTML file that shows the comparison."""
    library, script = _library(), _script()
    page = _environment().get_template("page.html.jinja")
    html = page.render(
        document=document,
        table=table(document),
        graph=layout(document["graph"]),
        outline=outline,
        data=_shortened({**document, "charts": charts(document)}),
        style=Markup(_text("page.css")),
        library=Markup(library),
        script=Markup(script),
        policy=_policy(library, script),
    )
    return html.encode("utf-8", "replace").decode("utf-8")  # half a surrogate pair cannot be written to a file


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(PACKAGE, ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    environment.filters["number"] = number
    return environment


def _policy(*scripts: str) -> str:
    hashes = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")


@cache
def _library() -> str:
    """Vega-Embed with all that it needs, as one script. Line ends as a browser reads them, or the hash would differ."""
    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", VEGA_LITE)
    return bundle.replace("\r\n", "\n").replace("</script", "<\\/script")


def _script() -> str:
    return "\n".join(['"use strict";', *(_text(name) for name in SCRIPTS)])


def _text(name: str) -> str:
    return (resources.files(PACKAGE) / name).read_text(encoding="utf-8")


def _shortened(value: Any) -> Any:
    """The same JSON with floats cut to what can be seen; it halves a large page. What is not finite is null."""
    if isinstance(value, float):
        return float(f"{value:.{FIGURES}g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _shortened(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_shortened(entry) for entry in value]
    return value
