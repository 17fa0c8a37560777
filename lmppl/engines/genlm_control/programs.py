"""Which programs mean the same to genlm-control as they do here, and why the others do not.

It draws one text from one model, under a regular expression. Three things are read differently
there, and programs that would show it are refused: expressions that go beyond ASCII (`.`, `[^a]`
and classes like `\\d` are all of Unicode here, printable ASCII there); texts that `until` ends
before they match, which stay possible there; and texts that are cut at `max`, which are given an
end token there and none here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from lmppl import ir
from lmppl.expressions import PRELUDE, GrammarError, is_empty, read_pattern

# A pattern both sides read alike: characters, ASCII classes, groups, alternatives, and how often.
SHARED = re.compile(
    r"""(?: (?: [^\W_] | [_\ !"\#%&',/:;<=>@`~-]      # characters that stand for themselves
              | \\ (?: [nt] | [\\\[\].^$*+?{}()|/-] )  # and those that need a backslash
              | \[ (?: (?: [^\W_] | [_\ !"\#%',/:;<=>@`.$*+?{}()|] | \\ (?: [nt] | [\\\[\]^/-] ) )
                       (?: - (?: [^\W_] | [_\ !"\#%',/:;<=>@`.$*+?{}()|] ) )? )+ \]
              | \) )
            (?: [*+?] | \{ \d+ (?: , \d* )? \} )?
          | \( (?: \?: )? | \| )*""",
    re.ASCII | re.VERBOSE,
)


def pattern_of(program: ir.Program) -> str | None:
    """The regular expression that is all a program asks of its only text; None where it asks for
    something else.
    """
    if len(program.factors) != 1 or not program.constraints:
        return None
    match program.constraints[0].expression:
        case ir.Apply("matches", (ir.Read(name), ir.Pattern(text))) if (
            name == program.latents[0].name
        ):
            return text
    return None


def cannot(program: ir.Program) -> str | None:
    """Why a program is out of reach; None where genlm-control samples from the same law."""
    return next(_reasons(program), None)


def _reasons(program: ir.Program) -> Iterator[str]:
    """Reasons, each looked for only where those before it do not hold."""
    if len(program.latents) != 1 or not program.texts:
        yield "it draws one text and no choices"
        return
    (latent,) = program.texts
    if len(latent.terms) != 1 or latent.terms[0].power != 1:
        yield f"it draws from one model at power 1, and `{latent.name}` has another prior"
        return
    if any(part.guard is not None for part in (latent, *program.factors)):
        yield "it knows nothing of `when`"
        return
    yield from _model(program, latent.terms[0].model)
    pattern = pattern_of(program)
    if pattern is None:
        yield f"it takes one constraint, `matches({latent.name}, /…/)`, and no other factor"
    elif not SHARED.fullmatch(pattern):
        yield (
            "it reads other texts into the regular expression; characters, ASCII classes such as "
            "[a-z], groups, `|` "
            "and repetition mean the same to both"
        )
    else:
        yield from _ends(latent, pattern)


def _model(program: ir.Program, name: str) -> Iterator[str]:
    declaration = next(declaration for declaration in program.models if declaration.name == name)
    for what in ("revision", "adapter"):
        if vars(declaration)[what] is not None:
            yield f"it loads `{name}` by itself, without the {what} that the program asks for"


def _ends(latent: ir.TextLatent, pattern: str) -> Iterator[str]:
    """Texts that would end differently there."""
    if latent.until is None:
        if not _none_of(pattern, f"/(?s:.){{{latent.maximum},}}/"):
            yield (
                f"a text of {latent.maximum} characters or more could be cut at `max`, where it "
                f"adds an end token and "
                "lmppl none; raise `max`, or write `until`"
            )
        return
    until = json.dumps(latent.until, ensure_ascii=False)
    if not _none_of(pattern, f"~(ANY {until})") or not _none_of(pattern, f"ANY {until} SOME"):
        yield (
            f"it would take texts that `until` ends before they match; every text of the regular "
            f"expression must hold "
            f"{latent.until!r} at its end and nowhere else"
        )


def _none_of(pattern: str, terminal: str) -> bool:
    """Whether no text that a pattern matches is certain to be in a terminal of llguidance as
    well.
    """
    try:
        return is_empty(
            f"{PRELUDE}start: T\nT: ({read_pattern(pattern).terminal}) & ({terminal})\n"
        )
    except GrammarError:
        return False
