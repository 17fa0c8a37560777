"""Fields of requests: those that are read, those that change nothing and are said, and those that
a program cannot do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lmppl.errors import did_you_mean
from lmppl.serve.bodies import is_text, real_number, whole_number
from lmppl.serve.errors import Refused
from lmppl.settings import LAST_SEED

MOST_REPLIES = 128
READ = ("model", "n", "seed", "stream", "stream_options", "givens", "reply", "until")
# they say who asks, or what is kept of it elsewhere: no law hangs on them
ASIDE = (
    "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key",
    "prompt_cache_retention", "verbosity", "reasoning_effort",
)  # fmt: skip
# what would change the law that tokens are drawn from, and its neutral value
LAW: Mapping[str, Any] = {
    "temperature": 1.0, "top_p": 1.0, "top_k": None, "min_p": None, "presence_penalty": 0.0,
    "frequency_penalty": 0.0, "repetition_penalty": 1.0, "max_tokens": None,
    "max_completion_tokens": None, "min_tokens": None, "stop": None, "logit_bias": None,
}  # fmt: skip
# what asks for a reply of another form, and the values that do not
FORMS: Mapping[str, tuple[Any, ...]] = {
    "tools": ([],), "tool_choice": ("none", "auto"), "functions": ([],),
    "function_call": ("none", "auto"), "parallel_tool_calls": (True, False),
    "response_format": ({"type": "text"},), "logprobs": (False, 0.0), "top_logprobs": (0.0,),
    "echo": (False,), "suffix": ("",), "best_of": (1.0,), "modalities": (["text"],), "audio": (),
    "prediction": (), "web_search_options": (),
}  # fmt: skip
REPLIES = ("draw", "likeliest")


@dataclass(frozen=True)
class Common:
    """What requests of every form may say. seed, reply, until: None where they do not."""

    model: str
    n: int = 1
    seed: int | None = None
    reply: str | None = None
    until: float | None = None
    stream: bool = False
    usage: bool = False  # a stream is to end with it
    givens: Mapping[str, Any] | None = None
    warnings: tuple[str, ...] = ()


def common(body: Mapping[str, Any], own: tuple[str, ...], name: str = "model") -> Common:
    """The fields that all forms share. own: names of the others that this form reads; name: of the
    field that names the program. Raises Refused.
    """
    body = {key: value for key, value in body.items() if value is not None}
    _require_known(body, own, name)
    if name not in body:
        raise Refused(400, "missing_field", f"the body has no `{name}`", name)
    return Common(
        _text(body, name),
        _whole(body, "n", 1, 1, MOST_REPLIES),
        _whole(body, "seed", None, 0, LAST_SEED),
        _reply(body),
        until(body.get("until")),
        _truth(body, "stream"),
        _usage(body),
        _givens(body),
        tuple(_changes_nothing(body)),
    )


def until(value: Any) -> float | None:
    """The standard error that draws are made for: `{"se": 0.02}`. Raises Refused."""
    if value is None:
        return None
    found = real_number(value["se"]) if isinstance(value, dict) and [*value] == ["se"] else None
    if found is None or not 0 < found < 0.5:
        message = '`until` is {"se": NUMBER}, the number above 0 and below 0.5'
        raise Refused(400, "bad_field", message, "until")
    return found


def _require_known(body: Mapping[str, Any], own: tuple[str, ...], name: str) -> None:
    """Raise Refused for a field that nobody knows, and for one that asks for another reply."""
    read = {name, *own, *(READ if name == "model" else ())}
    known = {*read, *((*ASIDE, *LAW, *FORMS) if name == "model" else ())}
    for key, value in body.items():
        if key not in known:
            help = did_you_mean(key, known) if key.isidentifier() else None
            message = f"there is no field {key!r:.80}{f': {help}' if help else ''}"
            raise Refused(400, "unknown_field", message, key[:80])
        if key in FORMS and key not in read and _value(value) not in FORMS[key]:
            message = f"`{key}` asks for what a program's reply does not have"
            raise Refused(400, "unsupported_field", message, key)


def _value(value: Any) -> Any:
    """A value of JSON, a number as one."""
    number = real_number(value)
    return value if number is None else number


def _changes_nothing(body: Mapping[str, Any]) -> list[str]:
    """What is said of fields that would change the law: the program says it, and nothing else."""
    asked = [name for name in LAW if name in body and _value(body[name]) not in (LAW[name], [], {})]
    return [f"`{name}` changes nothing: the program is the law of its answer" for name in asked]


def _text(body: Mapping[str, Any], name: str) -> str:
    if not is_text(body[name]):
        raise Refused(400, "bad_field", f"`{name}` is no text", name)
    return body[name]


def _whole(body: Mapping[str, Any], name: str, usual: Any, least: int, most: int) -> Any:
    if name not in body:
        return usual
    found = whole_number(body[name])
    if found is None or not least <= found <= most:
        message = f"`{name}` is no whole number from {least} to {most}"
        raise Refused(400, "bad_field", message, name)
    return found


def _truth(body: Mapping[str, Any], name: str) -> bool:
    found = body.get(name, False)
    if not isinstance(found, bool):
        raise Refused(400, "bad_field", f"`{name}` is neither true nor false", name)
    return found


def _reply(body: Mapping[str, Any]) -> str | None:
    found = body.get("reply")
    if found is not None and found not in REPLIES:
        raise Refused(400, "bad_field", '`reply` is neither "draw" nor "likeliest"', "reply")
    return found


def _usage(body: Mapping[str, Any]) -> bool:
    options = body.get("stream_options", {})
    if not isinstance(options, dict):
        raise Refused(400, "bad_field", "`stream_options` is no object", "stream_options")
    return options.get("include_usage") is True


def _givens(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    found = body.get("givens")
    if found is not None and not isinstance(found, dict):
        raise Refused(400, "bad_field", "`givens` is no object", "givens")
    return found
