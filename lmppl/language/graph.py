"""The graph of a program: which givens and earlier latents each latent and factor reads. As text or
mermaid.
"""

from __future__ import annotations

from collections.abc import Iterator

from lmppl import ir


def edges(program: ir.Program) -> Iterator[tuple[str, str]]:
    """(what is read, who reads it), in program order; each pair once."""
    for latent in program.latents:
        terms = latent.terms if isinstance(latent, ir.TextLatent) else (latent.term,)
        yield from _once(
            latent.name, [name for term in terms for name in _context_names(term.context)]
        )
    for factor in program.factors:
        yield from _once(factor.name, _factor_names(program, factor))


def _once(reader: str, names: list[str]) -> Iterator[tuple[str, str]]:
    for name in dict.fromkeys(names):
        yield name, reader


def _context_names(context: ir.Context) -> list[str]:
    return [
        part.name
        for part in context.parts
        if isinstance(part, ir.Given | ir.LatentText | ir.WorkedRows)
    ]


def _factor_names(program: ir.Program, factor: ir.Factor) -> list[str]:
    if isinstance(factor, ir.Observation):
        target = [factor.target.name] if isinstance(factor.target, ir.Given) else []
        return [name for term in factor.terms for name in _context_names(term.context)] + target
    return list(ir.reads(factor.expression))


def graph_text(program: ir.Program) -> str:
    """One line a node: what it is and what it reads."""
    reads: dict[str, list[str]] = {}
    for name, reader in edges(program):
        reads.setdefault(reader, []).append(name)
    lines = [f"{name:<20} given" for name in program.givens]
    lines += [f"{examples.name:<20} examples" for examples in program.examples]
    for name, kind in [
        *_latent_kinds(program),
        *((factor.name, "factor") for factor in program.factors),
    ]:
        sources = ", ".join(reads.get(name, []))
        lines.append(f"{name:<20} {kind}{f'  <- {sources}' if sources else ''}")
    return "\n".join(lines)


def _latent_kinds(program: ir.Program) -> list[tuple[str, str]]:
    return [
        (latent.name, "text" if isinstance(latent, ir.TextLatent) else "choice")
        for latent in program.latents
    ]


def graph_document(program: ir.Program) -> dict[str, list]:
    """JSON form: nodes with their kinds, and edges from what is read to its reader."""
    nodes = [(name, "given") for name in program.givens]
    nodes += [(examples.name, "examples") for examples in program.examples]
    nodes += [
        *_latent_kinds(program),
        *((factor.name, _factor_kind(factor)) for factor in program.factors),
    ]
    return {
        "nodes": [{"name": name, "kind": kind} for name, kind in nodes],
        "edges": [list(e) for e in edges(program)],
    }


def _factor_kind(factor: ir.Factor) -> str:
    return {ir.Observation: "observation", ir.Constraint: "constraint", ir.Score: "score"}[
        type(factor)
    ]


def graph_mermaid(program: ir.Program) -> str:
    """A mermaid flowchart: givens as boxes, latents as circles, factors as small boxes."""
    fixed = [*program.givens, *(examples.name for examples in program.examples)]
    names = [
        *fixed,
        *(latent.name for latent in program.latents),
        *(f.name for f in program.factors),
    ]
    ids = {name: f"n{number}" for number, name in enumerate(names)}
    lines = ["flowchart TD"]
    lines += [f'    {ids[name]}["{_quoted(name)}"]' for name in fixed]
    lines += [f'    {ids[name]}(("{_quoted(name)}"))' for name, _ in _latent_kinds(program)]
    lines += [f'    {ids[factor.name]}[/"{_quoted(factor.name)}"/]' for factor in program.factors]
    lines += [f"    {ids[name]} --> {ids[reader]}" for name, reader in edges(program)]
    return "\n".join(lines)


def _quoted(text: str) -> str:
    """Text inside a mermaid label: what would end the label is written as an entity."""
    return (
        text.replace("&", "#amp;").replace('"', "#quot;").replace("<", "#lt;").replace(">", "#gt;")
    )
