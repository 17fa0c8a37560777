"""The graph of a program: which givens, earlier latents and derived values each latent, derived
value and factor reads. As text or mermaid.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lmppl import ir


def edges(program: ir.Program) -> Iterator[tuple[str, str]]:
    """(what is read, who reads it), in program order; each pair once."""
    for part in (*program.latents, *program.derived, *program.factors):
        yield from _once(part.name, part.reads)


def _once(reader: str, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    for name in dict.fromkeys(names):
        yield name, reader


def graph_text(program: ir.Program) -> str:
    """One line a node: what it is and what it reads."""
    reads: dict[str, list[str]] = {}
    for name, reader in edges(program):
        reads.setdefault(reader, []).append(name)
    lines = [f"{name:<20} given" for name in program.givens]
    lines += [f"{examples.name:<20} examples" for examples in program.examples]
    for name, kind in [
        *_latent_kinds(program),
        *((derived.name, derived.kind) for derived in program.derived),
        *((factor.name, "factor") for factor in program.factors),
    ]:
        sources = ", ".join(reads.get(name, []))
        lines.append(f"{name:<20} {kind}{f'  <- {sources}' if sources else ''}")
    return "\n".join(lines)


def _latent_kinds(program: ir.Program) -> list[tuple[str, str]]:
    return [(latent.name, latent.kind) for latent in program.latents]


def graph_document(program: ir.Program) -> dict[str, list]:
    """JSON form: nodes with their kinds, and edges from what is read to its reader."""
    nodes = [(name, "given") for name in program.givens]
    nodes += [(examples.name, "examples") for examples in program.examples]
    parts = (*program.latents, *program.derived, *program.factors)
    nodes += [(part.name, part.kind) for part in parts]
    return {
        "nodes": [{"name": name, "kind": kind} for name, kind in nodes],
        "edges": [list(e) for e in edges(program)],
    }


def graph_mermaid(program: ir.Program) -> str:
    """A mermaid flowchart: givens as boxes, latents as circles, derived values as rounded boxes,
    factors as small boxes.
    """
    fixed = [*program.givens, *(examples.name for examples in program.examples)]
    parts = (*program.latents, *program.derived, *program.factors)
    names = [*fixed, *(part.name for part in parts)]
    ids = {name: f"n{number}" for number, name in enumerate(names)}
    lines = ["flowchart TD"]
    lines += [f'    {ids[name]}["{_quoted(name)}"]' for name in fixed]
    lines += [f'    {ids[name]}(("{_quoted(name)}"))' for name, _ in _latent_kinds(program)]
    lines += [f'    {ids[d.name]}("{_quoted(d.name)}")' for d in program.derived]
    lines += [f'    {ids[factor.name]}[/"{_quoted(factor.name)}"/]' for factor in program.factors]
    lines += [f"    {ids[name]} --> {ids[reader]}" for name, reader in edges(program)]
    return "\n".join(lines)


def _quoted(text: str) -> str:
    """Text inside a mermaid label: what would end the label is written as an entity."""
    return (
        text.replace("&", "#amp;").replace('"', "#quot;").replace("<", "#lt;").replace(">", "#gt;")
    )
