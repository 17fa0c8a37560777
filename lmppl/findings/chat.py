"""Findings about conversations, and the templates that models write them by. A constructor each."""

from __future__ import annotations

from collections.abc import Iterable

from lmppl.errors import Diagnostic, did_you_mean, error, warning
from lmppl.source import Source, Span

MOST = 80  # characters of a text that are shown


def no_template(model: str) -> Diagnostic:
    """A context has turns, and its model no way to write them."""
    message = f"the model of `{model}` has no chat template"
    help = (
        'use an instruct model, write the turns as plain text, or name a template: lm LM = "…" '
        '(template = "file.jinja")'
    )
    return error("no-chat-template", message, help=help)


def template_refuses(model: str, problem: str, line: int | None, file: str | None) -> Diagnostic:
    """A template cannot be read, or raises an error of its own. line: of the template; file: that a
    program names.
    """
    whose = f"`{file}`" if file else f"the chat template of `{model}`"
    place = f" (line {line} of the template)" if line else ""
    message = f"{whose} cannot write this conversation"
    return error("chat-template", message, found=f"{problem:.200}{place}")


def template_alters(model: str, role: str, content: str) -> Diagnostic:
    """A template drops, repeats or changes what a turn says."""
    message = f"the chat template of `{model}` does not keep what `{role}` says"
    help = "some take away earlier reasoning, or a system's turn; write the turn in another way"
    return error("template-alters", message, found=f"{content[:MOST]!r}", help=help)


def template_trims(model: str, role: str, content: str) -> Diagnostic:
    """A warning: a template takes away white space around what a turn says."""
    message = f"the chat template of `{model}` takes away white space around what `{role}` says"
    return warning("template-trims", message, found=f"{content[:MOST]!r}")


def untrimmed(model: str, name: str, source: Source, span: Span) -> Diagnostic:
    """A warning: a value of the row has white space that a template would take away, and a context
    keeps.
    """
    message = f"`{name}` has white space at an end that the chat template of `{model}` takes away"
    help = f"it is shown to the model; take it out of the data, or derive a text: strip({name})"
    return warning("untrimmed", message, source, span, help=help)


def no_turn_end(model: str) -> Diagnostic:
    """A warning: a template writes no marker after what an assistant says."""
    message = f"the chat template of `{model}` ends an assistant's turn with no marker"
    help = "a text of this model ends with its end-of-text token, or with `max` or `until`"
    return warning("no-turn-end", message, help=help)


def dated(model: str, date: str | None) -> Diagnostic:
    """A warning: a template writes the day. date: the name of a variable that says it instead,
    where the template reads one.
    """
    message = f"the chat template of `{model}` writes today's date: another day, another density"
    help = f'fix the day: lm {model} = "…" ({date} = "26 Jul 2024")' if date else None
    return warning("dated-template", message, help=help)


def unread_variable(model: str, name: str, known: Iterable[str]) -> Diagnostic:
    """An option of an `lm` is none, and no variable of its template. known: options, and variables
    that it reads.
    """
    message = f"`{name}` is no option of an `lm`, and no variable of the chat template of `{model}`"
    return error("unknown-option", message, help=did_you_mean(name, known))


def bad_template_file(path: str, problem: str) -> Diagnostic:
    """A file that `template` names cannot be read."""
    return error("chat-template", f"`{path}` is no chat template", found=f"{problem:.200}")
