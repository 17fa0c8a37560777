"""Findings about branches: guards, what they read, and names that several statements define."""

from __future__ import annotations

from lmppl import ir
from lmppl.errors import Diagnostic, error
from lmppl.source import Source, Span


def guard_failed(source: Source, span: Span, reason: str) -> Diagnostic:
    """A guard has no value, whatever it guards."""
    help = "it must be true or false for every row and every option that it reads"
    return error("guard-failed", f"`when` has no value: {reason}", source, span, help=help)


def observed_absent(latent: ir.Latent, source: Source) -> Diagnostic:
    """A row has a value of a latent that it has not."""
    assert latent.guard is not None
    message = f"the row has a value of `{latent.name}`, which is not there in it"
    expected = f"no value, as `{latent.guard.written}` does not hold"
    return error("observed-absent", message, source, latent.span, expected=expected)


def guard_on_text(source: Source, span: Span, name: str) -> Diagnostic:
    """A guard reads a text latent, or what is derived from one."""
    return error(
        "guard-on-text",
        f"`{name}` is a text that is drawn, and no guard can read it",
        source,
        span,
        expected="params, givens and choices",
        help=f'let a choice say it: KIND ~ LM("{{{name}}}…") in [" short", " long"], '
        'then `when KIND == " short"`',
    )
