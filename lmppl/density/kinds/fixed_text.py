"""What factors have in common that score a text which the row or the program fixes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lmppl import ir
from lmppl.density.binder import Binder
from lmppl.density.context import BoundContext, Fixed
from lmppl.density.kinds.guards import BoundGuard, bind_guard, reads_of
from lmppl.density.scoring import Scored
from lmppl.density.terms import BoundTerm
from lmppl.density.views import View
from lmppl.findings import run as run_findings
from lmppl.lm import Tokens


@dataclass(frozen=True)
class FixedText:
    """A text that is scored after contexts that may hold latents."""

    factor: ir.ScoredText
    terms: tuple[BoundTerm, ...]
    tokens: tuple[Tokens, ...]  # per term, under that term's tokenizer
    guard: BoundGuard | None = None

    @property
    def name(self) -> str:
        """The factor's."""
        return self.factor.name

    @property
    def reads(self) -> set[str]:
        """Latents that its contexts show, or that derived texts in them are read from, and that its
        guard reads.
        """
        return set().union(*(term.reads for term in self.terms), reads_of(self.guard))

    @property
    def lengths(self) -> list[tuple[BoundTerm, int]]:
        """Its terms, and how many tokens each scores."""
        return [(term, len(text)) for term, text in zip(self.terms, self.tokens, strict=True)]

    def scored(self, views: Sequence[View]) -> list[Scored]:
        """The text behind the context of each of N states, under each term."""
        owners = range(len(views))
        return [
            term.scored([(text, 0)] * len(views), owners, views)
            for term, text in zip(self.terms, self.tokens, strict=True)
        ]


# --- binding --------------------------------------------------------------------------------------


def bind_target(
    binder: Binder, factor: ir.ScoredText
) -> tuple[tuple[BoundTerm, ...], tuple[Tokens, ...], BoundGuard | None]:
    """Terms of a factor that scores a text, the text's tokens under each, and its guard; findings
    where it is not tokenised as it is written.
    """
    terms = tuple(binder.term(term) for term in factor.terms)
    target = factor.target
    if isinstance(target, ir.Literal):
        text = target.text
        tokens = tuple(
            binder.encode(None, text, term.model, term.context.empty, markers=True)
            for term in terms
        )
    else:
        text = binder.row.givens[target.name]
        tokens = tuple(
            binder.encode(target.name, text, term.model, term.context.empty) for term in terms
        )
    if isinstance(target, ir.Literal) or target.name not in binder.tokens:
        binder.read_back(factor.name, text, tokens[0], terms[0].model, factor.span)
    if text[:1].isalnum() and any(_ends_in_a_word(term.context) for term in terms):
        binder.findings.append(
            run_findings.glued_observation(factor.name, binder.program.source, factor.span)
        )
    return terms, tokens, bind_guard(binder, factor)


def _ends_in_a_word(context: BoundContext) -> bool:
    """Whether a context ends in a letter, a digit or a sentence's end, or in a latent, which mostly
    does.
    """
    if context.tail:
        last = context.tail[-1]
        return not isinstance(last, Fixed) or not last.text[-1:].isspace()
    return bool(context.prompt_text) and not context.prompt_text[-1].isspace()
