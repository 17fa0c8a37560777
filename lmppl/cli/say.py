"""What commands print, and the one way there: what models, files and flags say reaches no terminal
as it is.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import rich_click as click

from lmppl.screen import visible, visible_json, visible_line

if TYPE_CHECKING:
    from rich.console import Console


def say(text: str, *, err: bool = False) -> None:
    """Print lines."""
    _echo(visible(text), err)


def say_line(line: str) -> None:
    """Print a line of JSON."""
    click.echo(visible_line(line))


def say_json(document: Any, indent: int | None = None) -> None:
    """Print one JSON document."""
    click.echo(visible_json(document, indent))


def say_painted(text: str, *, err: bool = False) -> None:
    """Print lines with colours of ours, all else in which is visible already."""
    _echo(text, err)


def _echo(text: str, err: bool) -> None:
    """Print lines. Standard error that takes none is no reason for another end, nor for another
    error.
    """
    try:
        click.echo(text, err=err)
    except OSError:
        if not err:
            raise


def say_as_it_is(text: str) -> None:
    """Print a file's content for another program to read; what a terminal is shown is made
    visible.
    """
    click.echo(visible(text) if sys.stdout.isatty() else text, nl=False)


def console() -> Console:
    """A console of rich's on standard output, whose own colours alone are colours."""
    from rich.console import Console, ConsoleOptions, RenderHook, RenderResult
    from rich.segment import Segment

    class Visible:
        """What something renders to, made visible."""

        def __init__(self, renderable: Any) -> None:
            self._renderable = renderable

        def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
            for part in console.render(self._renderable, options):
                yield part if part.control else Segment(visible(part.text), part.style)

    class Hook(RenderHook):
        def process_renderables(self, renderables: Iterable[Any]) -> list[Any]:  # type: ignore[override]
            return [Visible(renderable) for renderable in renderables]

    made = Console()
    made.push_render_hook(Hook())
    return made
