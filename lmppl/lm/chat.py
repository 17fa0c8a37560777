"""How a model writes a conversation: its chat template, a Jinja text that comes with it.

It is rendered by transformers, in a sandbox. What it is given are data: values are never read as a
template.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any

Variable = str | float | bool
Message = tuple[str, str]  # a role, and what it says
# a block of transformers' own, which changes nothing of what is written
GENERATION = re.compile(r"{%-?\s*(?:end)?generation\s*-?%}")
TODAY = "strftime_now"  # what templates call that write the day
DATE = "date_string"  # what says the day instead, in those that take one
THINKING = "thinking", "enable_thinking"  # what people call it, and what templates do


class TemplateProblem(Exception):
    """A template cannot be read, or refuses a conversation. line: of the template, from 1."""

    def __init__(self, problem: str, line: int | None = None) -> None:
        super().__init__(problem)
        self.problem, self.line = problem, line


@dataclass(frozen=True)
class ChatTemplate:
    """A Jinja template of conversations, and the variables that it reads besides."""

    text: str
    variables: Mapping[str, Variable] = field(default_factory=dict)
    file: str | None = None  # where a program names one

    def __hash__(self) -> int:
        return hash((self.text, tuple(self.variables.items()), self.file))

    @cached_property
    def reads(self) -> frozenset[str]:
        """Names of the variables that it reads. Raises TemplateProblem."""
        from jinja2 import TemplateError, meta
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        environment = ImmutableSandboxedEnvironment(extensions=["jinja2.ext.loopcontrols"])
        try:
            tree = environment.parse(GENERATION.sub("", self.text))
            return frozenset(meta.find_undeclared_variables(tree))
        except TemplateError as reason:
            raise _problem(reason) from None

    def unread(self, variables: Mapping[str, Variable]) -> list[str]:
        """Names among these that it does not read."""
        return [name for name in variables if _name_in(self.reads, name) not in self.reads]

    @property
    def dated(self) -> bool:
        """Whether it writes the day on which it is rendered."""
        return TODAY in self.reads and DATE not in self.variables

    def with_variables(self, variables: Mapping[str, Variable]) -> ChatTemplate:
        """The same template with more variables."""
        known = {_name_in(self.reads, name): value for name, value in variables.items()}
        return replace(self, variables={**self.variables, **known})

    def render(self, messages: Sequence[Message], *, opened: bool) -> str:
        """A conversation as the model is shown it. opened: the assistant's next turn is begun.

        Raises TemplateProblem.
        """
        return _rendered(self, tuple(messages), opened)

    @cached_property
    def closing(self) -> str:
        """What is written behind what an assistant says; nothing where that cannot be told."""
        messages = ("user", "QUESTION"), ("assistant", "ANSWER")
        try:
            return self.render(messages, opened=False).rpartition("ANSWER")[2]
        except TemplateProblem:
            return ""


def _name_in(reads: frozenset[str], name: str) -> str:
    """A variable by the name that a template has for it."""
    usual, common = THINKING
    return common if name == usual and usual not in reads and common in reads else name


@lru_cache(maxsize=256)  # rows of one program share their conversations' form
def _rendered(template: ChatTemplate, messages: tuple[Message, ...], opened: bool) -> str:
    from jinja2 import TemplateError
    from transformers.utils.chat_template_utils import render_jinja_template

    conversation: Any = [{"role": role, "content": content} for role, content in messages]
    variables: dict[str, Any] = dict(template.variables)
    try:
        (rendered,), _ = render_jinja_template(
            conversations=[conversation],
            chat_template=template.text,
            add_generation_prompt=opened,
            **variables,
        )
    except TemplateError as reason:
        raise _problem(reason) from None
    except (TypeError, ValueError, KeyError, AttributeError, IndexError, ArithmeticError) as reason:
        raise TemplateProblem(f"{type(reason).__name__}: {reason}") from None
    return rendered


def _problem(reason: Any) -> TemplateProblem:
    """What Jinja says, and the line that it says it of."""
    return TemplateProblem(reason.message or type(reason).__name__, getattr(reason, "lineno", None))
