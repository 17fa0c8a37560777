"""Findings about branches: guards, what they read, and names that several statements define."""

from __future__ import annotations

from collections.abc import Mapping

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
    message = f"the row has a value of `{latent.shown}`, which is not there in it"
    expected = f"no value, as `{latent.guard.written}` does not hold"
    return error("observed-absent", message, source, latent.span, expected=expected)


def mixed_arms(source: Source, span: Span, name: str, first: str, second: str) -> Diagnostic:
    """Two statements define one name, as latents of two kinds."""
    message = f"`{name}` is {first} above, and here it is {second}"
    help = "arms of one name are of one kind: give one of them another name"
    return error("mixed-arms", message, source, span, help=help)


def overlapping_arms(
    source: Source,
    latent: ir.Latent,
    line: int,
    case: Mapping[str, object],
    otherwise: str = "always",
) -> Diagnostic:
    """Two statements define one name, and their guards can both hold. line: of the first; case:
    what choices are then; otherwise: when that is, where no choice tells.
    """
    shown = ", ".join(f"{name} is {_value(value)}" for name, value in case.items())
    where = f"where {shown}" if shown else otherwise
    message = f"`{latent.shown}` is defined on line {line} as well, and both hold {where}"
    help = "guards of one name must exclude each other; or give one of them another name"
    return error("overlapping-arms", message, source, latent.span, help=help)


def _value(value: object) -> str:
    return repr(value) if isinstance(value, str) else "absent"


def observed_arm(source: Source, latent: ir.Latent) -> Diagnostic:
    """A row has a value of a name whose arm hangs on what is to be inferred."""
    message = f"the row has a value of `{latent.shown}`, and it is not known of which definition"
    help = f"observe the choices that tell, or leave `{latent.shown}` out of the data"
    return error("observed-arm", message, source, latent.span, help=help)


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
