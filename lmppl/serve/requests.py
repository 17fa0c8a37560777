"""Requests of every form, from their bodies: what is asked, of which program, on which values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lmppl.data import Row, make_rows
from lmppl.errors import LmpplError, did_you_mean
from lmppl.expressions import Record, cell
from lmppl.serve.bodies import is_text, plain, read_json
from lmppl.serve.errors import Refused, of_error
from lmppl.serve.fields import Common, common

if TYPE_CHECKING:
    from lmppl.serve.programs import Served

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
NOT_READ = "is not read: the values of the program's givens are in `givens`"
MOST_ROWS = 10_000


@dataclass(frozen=True)
class Question:
    """One that has a text for an answer. message: what the user said; None where nothing is."""

    common: Common
    message: str | None


def chat(body: Mapping[str, Any]) -> Question:
    """A request for /v1/chat/completions. Raises Refused."""
    found = common(body, ("messages",))
    messages = body.get("messages")
    if messages in (None, []) and found.givens is not None:
        return Question(found, None)
    if not isinstance(messages, list) or not messages:
        raise Refused(400, "bad_field", "`messages` is no list of messages", "messages")
    said = [_message(one, place) for place, one in enumerate(messages)]
    places = [place for place, (role, _) in enumerate(said) if role == "user"]
    if not places and found.givens is None:
        raise Refused(400, "bad_field", "no message is the user's", "messages")
    last = places[-1] if places else None
    unread = sum(1 for place, (_, text) in enumerate(said) if place != last and text)
    if unread:
        left = f"{unread} message{'s' if unread > 1 else ''} beside the user's last"
        warning = f"{left} {'are' if unread > 1 else 'is'} not read: the program writes its prompts"
        found = replace(found, warnings=(*found.warnings, warning))
    return Question(found, None if last is None else said[last][1])


def completion(body: Mapping[str, Any]) -> Question:
    """A request for /v1/completions. Raises Refused."""
    found = common(body, ("prompt",))
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        (prompt,) = prompt
    if prompt is None and found.givens is not None:
        return Question(found, None)
    if not is_text(prompt):
        message = "`prompt` is no text: ask for several rows by /v1/systemone"
        raise Refused(400, "bad_field", message, "prompt")
    return Question(found, prompt)


def rows_asked(body: Mapping[str, Any]) -> tuple[Common, list[Mapping[str, Any]]]:
    """A request for /v1/systemone, and its rows. Raises Refused."""
    found = common(body, ("rows", "seed", "until"), "program")
    rows = body.get("rows")
    if not isinstance(rows, list) or not 1 <= len(rows) <= MOST_ROWS:
        raise Refused(400, "bad_field", f"`rows` is no list of 1 to {MOST_ROWS:,} rows", "rows")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise Refused(400, "bad_field", f"row {number} is no object", "rows")
    return found, rows


def values_of(question: Question, served: Served) -> tuple[Mapping[str, Any], list[str]]:
    """Values of the program's givens that a question brings, and what is to be said of it. Raises
    Refused.
    """
    asked, message = question.common, question.message
    if asked.givens is not None:
        return asked.givens, [f"the user's last message {NOT_READ}"] if message else []
    names = served.givens
    if not names:
        unread = "the user's last message is not read: the program has no given to be asked for"
        return {}, [unread] if message else []
    if len(names) == 1:
        return {names[0]: message}, []
    wanted = ", ".join(names)
    found = read_json(message or "", "messages") if (message or "").lstrip()[:1] == "{" else None
    if not isinstance(found, dict):
        said = f"`{served.name}` has several givens: say a JSON object of {wanted}, or `givens`"
        raise Refused(422, "missing_given", said, "messages")
    return found, []


def make_row(served: Served, values: Mapping[str, Any], name: str) -> Row:
    """The row of some values. name: of them, where findings speak of it. Raises Refused where one
    is missing, or is none, or nothing reads it, or the service has fixed it.
    """
    known = [*served.program.givens, *served.program.names]
    for key in values:
        if key not in known or key in served.fixed:
            raise Refused(422, "unknown_given", _unknown(key, served, known), key[:80])
    cells = {key: cell(plain(value)) for key, value in values.items()}
    record = Record({key: one for key, one in cells.items() if one is not None}, name=name)
    try:
        rows, _ = make_rows(served.program, [record], served.fixed, served.pools)
    except LmpplError as reason:
        raise of_error(reason) from None
    return rows[0]


def _unknown(key: str, served: Served, known: Sequence[str]) -> str:
    if key in served.fixed:
        return f"`{key}` is what the service was started with, and cannot be changed"
    help = did_you_mean(key, known) if key.isidentifier() else None
    return f"`{served.name}` has no given {key!r:.80}{f': {help}' if help else ''}"


def _message(message: Any, place: int) -> tuple[str, str]:
    """Role and text of a message. Raises Refused."""
    where = f"messages[{place}]"
    if not isinstance(message, dict) or message.get("role") not in ROLES:
        raise Refused(400, "bad_field", f"{where} has no role of {', '.join(ROLES)}", "messages")
    content = message.get("content")
    if isinstance(content, list):
        return message["role"], "".join(_part(part, where) for part in content)
    if content is None and message["role"] != "user":
        return message["role"], ""
    if not is_text(content):
        raise Refused(400, "bad_field", f"the content of {where} is no text", "messages")
    return message["role"], content


def _part(part: Any, where: str) -> str:
    if not isinstance(part, dict) or part.get("type") != "text":
        raise Refused(400, "unsupported_field", f"{where} has a part that is no text", "messages")
    if not is_text(part.get("text")):
        raise Refused(400, "bad_field", f"{where} has a part without a text", "messages")
    return part["text"]
