"""From a comparison or a run to one HTML file. Whatever a model wrote stays text on the way.

Nothing in the file is fetched, and its content security policy says so to the browser: scripts run
by their hash alone, so a draw that got past the escaping still would not run."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping
from functools import cache
from typing import Any

import altair
import vl_convert
from markupsafe import Markup

from lmppl.diagnosis import ENTRIES
from lmppl.report.page.charts import charts
from lmppl.report.page.environment import environment, text_of
from lmppl.report.page.graph import layout, outline
from lmppl.report.page.table import table
from lmppl.shapes import Document

# in this order, as one, before a page's own
SHARED = (
    "page.js",
    "plots.js",
    "draws.js",
    "shared.js",
)
VEGA_LITE = altair.SCHEMA_VERSION.rpartition(".")[0]  # the version that the plots are written for
FIGURES = 6  # significant ones that the browser gets: more than any plot or table shows


def render(document: Document) -> str:
    """One self-contained HTML file that shows the comparison."""
    return _page(
        "page.html.jinja",
        "start.js",
        {**document, "charts": charts(document)},
        document=document,
        table=table(document),
        style=Markup(text_of("page.css")),
    )


def render_run(document: Document) -> str:
    """One self-contained HTML file that shows a run, of what run.run_document gives."""
    plots = charts({"columns": [], "quality": "", "engines": document["data"]["engines"]})
    answer = (
        environment()
        .get_template("answer.html.jinja")
        .render(answer=document["answer"], style=None)
    )
    return _page(
        "run.html.jinja",
        "run.js",
        {
            **document["data"],
            "charts": {name: plots[name] for name in ("densities", "traces", "ranks", "lineages")},
        },
        document=document,
        answer=Markup(answer),
        statistics=ENTRIES,
        style=Markup(text_of("page.css") + text_of("answer.css")),
    )


def _page(
    template: str,
    start: str,
    data: Mapping[str, Any],
    *,
    document: Mapping[str, Any],
    **values: Any,
) -> str:
    library, script = _library(), _script(start)
    html = (
        environment()
        .get_template(template)
        .render(
            document=document,
            graph=layout(document["graph"]),
            outline=outline,
            data=_shortened(data),
            library=Markup(library),
            script=Markup(script),
            policy=_policy(library, script),
            **values,
        )
    )
    return html.encode("utf-8", "replace").decode(
        "utf-8"
    )  # half a surrogate pair cannot be written to a file


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
    """Vega-Embed with all that it needs, as one script. Line ends as a browser reads them, or the
    hash would differ.
    """
    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", VEGA_LITE)
    return bundle.replace("\r\n", "\n").replace("</script", "<\\/script")


def _script(own: str) -> str:
    return "\n".join(['"use strict";', *(text_of(name) for name in (*SHARED, own))])


def _shortened(value: Any) -> Any:
    """The same JSON with floats cut to what can be seen; it halves a large page. What is not finite
    is null.
    """
    if isinstance(value, float):
        return float(f"{value:.{FIGURES}g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _shortened(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_shortened(entry) for entry in value]
    return value
