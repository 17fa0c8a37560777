"""What a program takes and gives, as JSON has it: its entry in the list of models, and JSON schemas
of /v1/systemone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lmppl.serve.programs import Served

VALUE = {"type": ["string", "number", "null"]}
ESTIMATE = {
    "type": ["object", "null"],
    "properties": {"value": {"type": "number"}, "standard_error": {"type": ["number", "null"]}},
    "required": ["value", "standard_error"],
}
UNTIL = {
    "type": "object",
    "properties": {"se": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.5}},
    "required": ["se"],
    "additionalProperties": False,
}
SHARE = {"type": "number", "minimum": 0}


def model_document(served: Served, created: int) -> dict[str, Any]:
    """A program as an entry of /v1/models."""
    return {
        "id": served.name,
        "object": "model",
        "created": created,
        "owned_by": "lmppl",
        "lmppl": {
            "givens": served.givens,
            "answers": {name: served.options(name) for name in served.answers},
            "engine": served.session.engine.name,
            "reply": "likeliest" if served.likeliest else "draw",
            "request": request_schema(served),
            "response": response_schema(served),
        },
    }


def request_schema(served: Served) -> dict[str, Any]:
    """What /v1/systemone takes for this program."""
    program = served.program
    names = [name for name in (*program.givens, *program.names) if name not in served.fixed]
    row = {
        "type": "object",
        "properties": dict.fromkeys(names, VALUE),
        "required": served.givens,
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {
            "program": {"const": served.name},
            "rows": {"type": "array", "items": row, "minItems": 1},
            "seed": {"type": "integer", "minimum": 0},
            "until": UNTIL,
        },
        "required": ["program", "rows"],
        "additionalProperties": False,
    }


def response_schema(served: Served) -> dict[str, Any]:
    """What /v1/systemone gives for this program."""
    answers = {name: _answer(served.options(name)) for name in served.answers}
    found = {
        "answers": {
            "type": "object", "properties": answers, "required": [*answers],
            "additionalProperties": False,
        },
        "verdict": {"enum": ["pass", "warn", "fail"]},
        "log_evidence": {"type": ["number", "null"]},
        "log_evidence_se": {"type": ["number", "null"]},
        "engine": {"type": "string"},
        "draws": {"type": "integer"},
        "seed": {"type": "integer"},
        "time_over": {"type": "boolean"},
        "warnings": {"type": "array", "items": {"type": "string"}},
    }  # fmt: skip
    row = {"type": "object", "properties": found, "required": [*found]}
    failed = {
        "type": "object",
        "properties": {"error": {"type": "object"}},
        "required": ["error"],
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {
            "object": {"const": "systemone"},
            "program": {"const": served.name},
            "rows": {"type": "array", "items": {"oneOf": [row, failed]}},
        },
        "required": ["object", "program", "rows"],
    }


def _answer(options: list[str] | None) -> dict[str, Any]:
    """A name's answer. options: those of a choice; None of a text."""
    shares: dict[str, Any] = {"type": "object", "additionalProperties": SHARE}
    likeliest: dict[str, Any] = {"type": ["string", "null"]}
    if options is not None:
        shares["propertyNames"] = {"enum": options}
        likeliest = {"enum": [*options, None]}
    found = {
        "type": {"const": "text" if options is None else "choice"},
        "likeliest": likeliest,
        "probabilities": shares,
        "mcse": {"type": "object", "additionalProperties": {"type": ["number", "null"]}},
        "rest": SHARE,
        "absent": ESTIMATE,
        "entropy": ESTIMATE,
        "conditional_entropy": ESTIMATE,
        "mutual_information": ESTIMATE,
        "doubts": {"type": "array", "items": {"type": "string"}},
    }
    return {
        "type": "object", "properties": found, "required": [*found],
        "additionalProperties": False,
    }  # fmt: skip
