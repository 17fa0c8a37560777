"""What the names of a program stand for, and whether they may stand where they are read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from lmppl.errors import SHOWN, Diagnostic
from lmppl.expressions import Kind
from lmppl.findings import branches
from lmppl.findings import program as findings
from lmppl.language import ast
from lmppl.language.constants import Constants
from lmppl.source import Source, Span

TEXT = "a named text"
LM, GIVEN, PARAM, HELPER = "a language model", "a given", "a param", "a Python function"
TEXT_LATENT, CHOICE = "a text latent", "a choice"
STATISTIC, EXAMPLES = "a statistic", "a set of worked rows"
DERIVED = "a derived value"
WORKED_TURNS = "a set of worked rows, as turns"
LATENT = (TEXT_LATENT, CHOICE)
Arity = tuple[int, float]  # fewest and most arguments
Extent = tuple[int, int]  # levels and nodes of an expression, what it is derived from in place


@dataclass(frozen=True)
class Symbol:
    """What a name stands for, and where it was defined."""

    role: str
    span: Span
    index: int  # of the statement
    arity: Arity = (0, 0)  # of a helper
    guarded: bool = False  # a latent that need not be there
    # of a derived value: its kind, None where something is wrong; latents that it is read from
    kind: Kind | None = None
    latents: tuple[str, ...] = ()
    extent: Extent = (1, 1)


@dataclass
class Scope:
    """The names of a program, and the findings about its statements, which are gone through in
    order.
    """

    source: Source
    folder: Path  # where relative paths start
    index: int = 0  # of the statement that is looked at
    found: list[Diagnostic] = field(default_factory=list)
    constants: Constants = field(default_factory=dict)  # the named texts
    symbols: dict[str, Symbol] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    linked: set[str] = field(default_factory=set)  # latents that something reads, or that read one
    seen: set[tuple[str, str]] = field(default_factory=set)  # statements about names, by keyword
    noted: set[tuple[str, str, Span | None]] = field(default_factory=set)
    num_unknown: int = 0

    def add(self, finding: Diagnostic) -> None:
        """Note a finding; one about a text that several contexts show is noted once."""
        key = (finding.code, finding.message, finding.span)
        if key not in self.noted:
            self.noted.add(key)
            self.found.append(finding)

    def define(
        self, name: ast.Name, role: str, arity: Arity = (0, 0), guarded: bool = False
    ) -> None:
        """Let a name stand for something; a finding where it does so already, but for latents
        under guards, whose arms share a name.
        """
        first = self.symbols.get(name.text)
        if first is not None and guarded and first.guarded:
            if role == first.role:  # another arm: what reads the name stands behind the last
                self.symbols[name.text] = replace(first, span=name.span, index=self.index)
            else:
                self.add(branches.mixed_arms(self.source, name.span, name.text, first.role, role))
            return
        if first is not None:
            line, _ = self.source.position(first.span.start)
            self.add(findings.duplicate_name(self.source, name.span, name.text, line))
            return
        self.symbols[name.text] = Symbol(role, name.span, self.index, arity, guarded=guarded)

    def named(self, *roles: str) -> dict[str, Symbol]:
        """All names that stand for one of these, in the order of their definition."""
        return {name: symbol for name, symbol in self.symbols.items() if symbol.role in roles}

    def has_role(self, name: str, *roles: str) -> bool:
        """Whether a name stands for one of these."""
        symbol = self.symbols.get(name)
        return symbol is not None and symbol.role in roles

    def resolve(
        self,
        name: str,
        span: Span,
        roles: Iterable[str],
        expected: str,
        source: Source | None = None,
    ) -> Symbol | None:
        """What a name stands for, if it may stand here; else a finding, and None.

        source: where the name stands, if that is a file of its own.
        """
        place = source or self.source
        symbol = self.symbols.get(name)
        if symbol is None:
            meant = self.guesses(roles)
            define = _definition(name, roles)
            self.add(findings.unknown_name(place, span, name, meant, define))
            return None
        self.used.add(name)
        if symbol.role not in roles:
            self.add(findings.wrong_role(place, span, name, symbol.role, expected))
            return None
        if symbol.index == self.index and (source or symbol.span != span):
            self.add(findings.own_name(place, span, name))
            return None
        if symbol.index > self.index:
            line, _ = self.source.position(symbol.span.start)
            self.add(findings.used_before(place, span, name, line))
            return None
        return symbol

    def guesses(self, roles: Iterable[str], also: Iterable[str] = ()) -> list[str]:
        """Names that an unknown one might be meant for; `also` is known everywhere.

        None once more are unknown than are shown: to look for all of them would take long.
        """
        self.num_unknown += 1
        if self.num_unknown > SHOWN:
            return []
        before = [name for name, one in self.named(*roles).items() if one.index < self.index]
        return [*also, *before]

    def again(self, keyword: str, name: str) -> bool:
        """Whether there was such a statement about this name before."""
        known = (keyword, name) in self.seen
        self.seen.add((keyword, name))
        return known

    def settle(self, name: str, kind: Kind | None, latents: Iterable[str], extent: Extent) -> None:
        """Note what a derived value is, once its statement has been looked at."""
        own = self.symbols[name]
        if own.index == self.index:
            self.symbols[name] = replace(own, kind=kind, latents=tuple(latents), extent=extent)

    def latents_of(self, names: Iterable[str]) -> list[str]:
        """Latents among some names, and those that derived ones are read from; each once."""
        found: list[str] = []
        for name in names:
            symbol = self.symbols.get(name)
            if symbol is not None:
                found += [name] if symbol.role in LATENT else symbol.latents
        return list(dict.fromkeys(found))

    def link(self, names: Iterable[str], reader: str | None = None) -> list[str]:
        """Note that these names are read, by `reader` where that is a latent; the latents that
        they stand for.
        """
        latents = self.latents_of(names)
        self.linked.update(latents)
        if latents and reader is not None:
            self.linked.add(reader)
        return latents


def _definition(name: str, roles: Iterable[str]) -> str | None:
    """A statement that would define a name."""
    if GIVEN in roles:
        return f"given {name}"
    return f'lm {name} = "smollm2-135m"' if LM in roles else None


def amount(arity: Arity) -> str:
    """Fewest and most arguments, in words."""
    return f"{arity[0]}" if arity[0] == arity[1] else f"{arity[0]} to {arity[1]}"
