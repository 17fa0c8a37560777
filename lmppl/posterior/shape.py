"""What a run's files must hold to be read: the shape of `run.json`, of a draw, and what they must
have in common.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from lmppl.diagnosis import Diagnostics
from lmppl.shapes import (
    Misfit,
    among,
    anything,
    either,
    fields,
    listed,
    mapped,
    maybe,
    number,
    seed,
    text,
    truth,
    whole,
    within,
)

NUMBERS = either(
    listed(maybe(number)), maybe(number)
)  # a diagnostic: one, or one a chain or replicate
CHECK = fields(
    {
        "name": text,
        "status": among("pass", "warn", "fail"),
        "value": maybe(number),
        "threshold": maybe(number),
        "message": text,
    }
)


def _text_and_line(value: Any) -> None:
    """A constraint's text, and its line."""
    listed(anything)(value)
    if len(value) != 2:
        raise Misfit("is no text with its line")
    text(value[0])
    whole(value[1])


def _interval(value: Any) -> None:
    """A lower end, null where it is −∞, and an upper one."""
    listed(maybe(number))(value)
    if len(value) != 2 or value[1] is None:
        raise Misfit("is no interval")


COUPLING = fields(
    {"meeting_times": listed(maybe(number))},
    {"lag": whole, "total_variation_after_warmup": maybe(number)},
)
# figures that are more than a number, or one a chain; any other field of Diagnostics is
OF_THEIR_OWN = {
    "method": text,
    "log_evidence_interval": maybe(_interval),
    "lineages": listed(listed(whole)),
    "only_value": either(maybe(number), truth),
    "coupling": COUPLING,
    "unguided": listed(_text_and_line),
}
FIGURES = dict.fromkeys((own.name for own in dataclasses.fields(Diagnostics)), NUMBERS)
FIGURES = {name: OF_THEIR_OWN.get(name, form) for name, form in FIGURES.items() if name != "others"}
DIAGNOSTICS = fields({}, {**FIGURES, "importance": fields({}, FIGURES), "checks": listed(CHECK)})
LAW = mapped(number)
TOKENS = mapped(listed(whole))
STATISTIC = either(maybe(number), among("inf", "-inf"))
SUPPORTED = fields(
    {"values": mapped(maybe(text)), "tokens": TOKENS, "probability": number},
    {
        "log_density": maybe(number),
        "factors": mapped(maybe(number)),
        "statistics": mapped(STATISTIC),
        "derived": mapped(maybe(text)),
    },
)
ESTIMATE = fields({"value": number, "standard_error": maybe(number)})
UNCERTAINTY = fields(
    {"standard_errors": mapped(maybe(number))},
    {
        "entropy": maybe(ESTIMATE),
        "conditional_entropy": maybe(ESTIMATE),
        "mutual_information": maybe(ESTIMATE),
        "doubts": listed(text),
        "absent": ESTIMATE,
    },
)
ROW = fields(
    {
        "givens": mapped(either(text, maybe(number))),
        "log_evidence": maybe(number),
        "log_evidence_se": maybe(number),
        "predictions": mapped(LAW),
        "diagnostics": DIAGNOSTICS,
        "warnings": listed(text),
    },
    {
        "support": listed(SUPPORTED),
        "prior": mapped(LAW),
        "uncertainty": mapped(UNCERTAINTY),
        "slopes": mapped(ESTIMATE),
    },
)
MODEL = fields({"identifier": text}, rest=maybe(text))
PROGRAM = fields({"path": text, "text": text, "sha256": text})
RUN = fields(
    {
        "program": PROGRAM,
        "engine": text,
        "seed": seed,
        "models": mapped(MODEL),
        "options": fields(
            {"chains": whole, "num_samples": whole, "engine_reason": text},
            {
                "num_warmup": whole,
                "thin": whole,
                "params": mapped(number),
                "budget": fields({"amount": number, "unit": text, "again": text}),
            },
        ),
        "rows": listed(ROW),
        "cost": fields(
            {"tokens_decoded": number, "tokens_scored": number, "seconds": number}, rest=number
        ),
    },
    {
        "interrupted": truth,
        "reason": text,
        "rows_done": whole,
        "rows_asked": whole,
        "made_from": mapped(anything),
        "finished": text,
        "versions": mapped(text),
    },
)
DRAW = fields(
    {
        "row": whole,
        "chain": whole,
        "draw": whole,
        "values": mapped(maybe(text)),
        "tokens": TOKENS,
        "log_density": maybe(number),
        "factors": mapped(maybe(number)),
        "log_weight": maybe(number),
        "log_proposal": maybe(number),
    },
    {"statistics": mapped(STATISTIC), "derived": mapped(maybe(text))},
)


def require_run(document: Mapping[str, Any], draws: Sequence[Any]) -> None:
    """Raise Misfit, which says the place, where a run's document or one of its draws is not what it
    must be.
    """
    within("run.json", RUN, document)
    first: dict[int, Mapping[str, Any]] = {}
    for place, draw in enumerate(draws, 1):
        within(f"draws.jsonl:{place}", DRAW, draw)
        _require_alike(first.setdefault(draw["row"], draw), draw, f"draws.jsonl:{place}")
    for place, row in enumerate(document["rows"]):
        _require_support(row, first.pop(place, None), f"run.json.rows[{place}]")
    if first:
        raise Misfit(
            f"draws.jsonl has draws of row {next(iter(first))}, run.json has "
            f"{len(document['rows'])} rows"
        )


def _require_alike(first: Mapping[str, Any], other: Mapping[str, Any], place: str) -> None:
    """Raise where two states of one row differ in what was drawn."""
    for part in ("values", "tokens", "factors", "derived"):
        if first.get(part, {}).keys() != other.get(part, {}).keys():
            raise Misfit(f"has other {part} than the first of its row", place)
    if other["tokens"].keys() != other["values"].keys():
        raise Misfit("has tokens of other latents than it has values of", place)


def _require_support(row: Mapping[str, Any], draw: Mapping[str, Any] | None, place: str) -> None:
    """Raise where the law of a row, or its prior, is of other latents than its draws."""
    support = row.get("support", [])
    first = draw or next(iter(support), None)
    for state in support:
        _require_alike(support[0], state, f"{place}.support")
    if support and draw and support[0]["values"].keys() != draw["values"].keys():
        raise Misfit("is of other latents than the draws", f"{place}.support")
    if first is not None and not row.get("prior", {}).keys() <= first["values"].keys():
        raise Misfit("is of other latents than the draws", f"{place}.prior")
