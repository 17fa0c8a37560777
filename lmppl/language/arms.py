"""Names that several statements define, under guards that exclude each other: an arm each.

Arms become latents of their own, `Z (1)`, `Z (2)`, …, of which a state has one at most. A context
that shows the name shows them one after the other, since those that are not there are nothing; an
expression reads the one that is there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from itertools import combinations
from typing import Any

from lmppl import ir
from lmppl.errors import Diagnostic
from lmppl.expressions import both_hold
from lmppl.findings import branches as findings
from lmppl.source import Source, Span

Arms = Mapping[str, tuple[str, ...]]  # names of the latents that each name stands for


def with_arms(program: ir.Program) -> ir.Program:
    """The program with a latent for each arm, where latents share names."""
    counts = Counter(latent.name for latent in program.latents)
    arms = {name: _numbered(name, count) for name, count in counts.items() if count > 1}
    if not arms:
        return program
    following = {name: iter(own) for name, own in arms.items()}
    latents = tuple(
        replace(latent, name=next(following[latent.name]), arm_of=latent.name)
        if latent.name in arms
        else latent
        for latent in program.latents
    )
    guides = tuple(
        replace(guide, latent=name)
        for guide in program.guides
        for name in arms.get(guide.latent, (guide.latent,))
    )
    return _rewritten(replace(program, latents=latents, guides=guides), arms)


def _numbered(name: str, count: int) -> tuple[str, ...]:
    return tuple(f"{name} ({number})" for number in range(1, count + 1))


def _rewritten(value: Any, arms: Arms) -> Any:
    """A part of a program that reads arms where it read their name."""
    if isinstance(value, ir.Read):
        own = tuple(ir.Read(name, value.span) for name in arms.get(value.name, ()))
        return ir.Apply(ir.ARMS, own, value.span) if own else value
    if isinstance(value, ir.DerivedText):
        names = (arms.get(name, (name,)) for name in value.latents)
        return replace(value, latents=frozenset().union(*names))
    if isinstance(value, tuple) and not isinstance(value, Span):
        return tuple(part for one in value for part in _parts(one, arms))
    if not is_dataclass(value) or isinstance(value, type | Source):
        return value
    own = {field.name: getattr(value, field.name) for field in fields(value) if field.init}
    return replace(value, **{name: _rewritten(part, arms) for name, part in own.items()})


def _parts(value: Any, arms: Arms) -> Iterator[Any]:
    """What stands for one of several: a context that shows a name shows its arms."""
    if isinstance(value, ir.LatentText) and value.name in arms:
        yield from map(ir.LatentText, arms[value.name])
    else:
        yield _rewritten(value, arms)


def overlapping(program: ir.Program) -> Iterator[Diagnostic]:
    """Arms that are both there in some case, whatever the data are."""
    for first, second in combinations(program.latents, 2):
        if first.arm_of and first.arm_of == second.arm_of:
            case = both_hold(program, first, second)
            if case is not None:
                line, _ = program.source.position(first.span.start)
                yield findings.overlapping_arms(program.source, second, line, case)
