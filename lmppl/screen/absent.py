"""How people see the text of a latent that a state has not, which is None wherever values go."""

from __future__ import annotations

ABSENT = "(absent)"


def named(text: str | None) -> str:
    """A text as it is, or that it is absent."""
    return ABSENT if text is None else text


def quoted(text: str | None) -> str:
    """A text in quotes, or that it is absent, without quotes."""
    return ABSENT if text is None else repr(text)
