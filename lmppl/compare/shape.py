"""What the files of a comparison must hold to be read: the shape of its document, and of texts that
a page shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from lmppl.compare.columns import GROUPS
from lmppl.posterior import MODEL, PROGRAM
from lmppl.shapes import (
    Misfit,
    among,
    anything,
    fields,
    listed,
    mapped,
    maybe,
    number,
    text,
    truth,
    whole,
)

MOST_DIGITS = 9  # of a number in the table


def _digits(value: Any) -> None:
    whole(value)
    if value > MOST_DIGITS:
        raise Misfit(f"is more than {MOST_DIGITS} digits")


def _inside(value: Any) -> None:
    """A folder within the comparison's."""
    text(value)
    path = PurePosixPath(value.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or "\0" in value:
        raise Misfit("is a place outside the comparison's folder")


NUMBER = maybe(number)
INTERVAL = fields({"mean": NUMBER, "low": NUMBER, "high": NUMBER}, rest=NUMBER)
MEASURES = mapped(maybe(INTERVAL))
BOUND = fields({"mean": NUMBER, "error": NUMBER})
COLUMN = fields(
    {
        "key": text,
        "title": text,
        "group": among(*GROUPS),
        "help": text,
        "better": maybe(among("low", "high")),
        "digits": _digits,
        "unit": text,
    }
)
ENTRY = fields(
    {
        "label": text,
        "engine": text,
        "options": mapped(anything),
        "reason": maybe(text),
        "verdict": maybe(among("pass", "warn", "fail")),
        "findings": listed(text),
        "measures": MEASURES,
        "curve": listed(fields({"tokens": NUMBER, "seconds": NUMBER, "measures": MEASURES})),
        "training": maybe(fields({"tokens": number, "seconds": number})),
        "runs": listed(_inside),
    },
    {"bug": maybe(text), "over": maybe(text), "fits": listed(_inside)},
)
GRAPH = fields(
    {"nodes": listed(fields({"name": text, "kind": text})), "edges": listed(listed(text))}
)
COMPARISON = fields(
    {
        "format": whole,
        "complete": truth,
        "made": text,
        "command": text,
        "versions": mapped(text),
        "program": PROGRAM,
        "graph": GRAPH,
        "models": mapped(MODEL),
        "budget": maybe(fields({"amount": number, "unit": text})),
        "seeds": whole,
        "reference": fields({"kind": text, "title": text, "note": text}, {"run": maybe(_inside)}),
        "bounds": maybe(
            fields(
                {
                    "lower": BOUND,
                    "upper": BOUND,
                    "gap": BOUND,
                    "num_samples": whole,
                    "simulations": whole,
                }
            )
        ),
        "quality": text,
        "columns": listed(COLUMN),
        "entries": listed(ENTRY),
        "advice": fields({"headline": text, "reasons": listed(text)}, {"label": maybe(text)}),
        "rows": listed(fields({"givens": mapped(maybe(text)), "log_evidence": NUMBER})),
    }
)
TEXTS = listed(
    listed(
        fields(
            {
                "values": mapped(text),
                "log_density": NUMBER,
                "factors": mapped(NUMBER),
                "tokens": maybe(anything),
            }
        )
    )
)


def require_comparison(document: Mapping[str, Any]) -> None:
    """Raise Misfit, which says the place, where a comparison's document is not what it must be."""
    COMPARISON(document)
    if not document["entries"]:
        raise Misfit("has no entries")
    nodes = [node["name"] for node in document["graph"]["nodes"]]
    for edge in document["graph"]["edges"]:
        if (
            len(edge) != 2
            or not {*edge} <= {*nodes}
            or nodes.index(edge[0]) >= nodes.index(edge[1])
        ):
            raise Misfit("is no arrow from one node to a later one", "graph.edges")
    for place, entry in enumerate(document["entries"]):
        if entry["reason"] is None and not entry["runs"]:
            raise Misfit("has no runs, and no reason why", f"entries[{place}]")
        if entry["reason"] is None and entry["verdict"] is None:
            raise Misfit("has runs and no verdict", f"entries[{place}]")
        if entry["training"] is not None and not entry.get("fits"):
            raise Misfit("has learned, and no folder of what", f"entries[{place}]")
