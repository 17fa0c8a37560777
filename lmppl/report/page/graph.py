"""Where the nodes of a program's graph go: in layers from top to bottom, each below all that it reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

CHARACTER = 7.3  # width of one in the label's face, in pixels
HEIGHT = 34.0
GAP, DROP, MARGIN = 26.0, 74.0, 6.0
MOST_CHARACTERS = 30
SLANT = 10.0  # how far the sides of hexagons and parallelograms lean


@dataclass(frozen=True)
class Node:
    """A node: its label, cut to fit, its kind, and where it is."""

    name: str
    label: str
    kind: str
    x: float  # of the middle
    y: float
    width: float

    @property
    def outline(self) -> str:
        """The shape of its kind, as an SVG path about its middle."""
        return outline(self.kind, self.width)


@dataclass(frozen=True)
class Graph:
    """A graph with places: nodes, edges as SVG paths, the kinds that occur, and the size of it all."""

    nodes: tuple[Node, ...]
    edges: tuple[str, ...]
    kinds: tuple[str, ...]
    width: float
    height: float


def layout(graph: Mapping[str, Any]) -> Graph:
    """Give every node a place. Edges to nodes that are not there are left out."""
    kinds = {node["name"]: node["kind"] for node in graph["nodes"]}
    edges = [(one, other) for one, other in graph["edges"] if one in kinds and other in kinds and one != other]
    layers = _ordered(_layers(list(kinds), edges), edges)
    widths = {name: max(44.0, len(_label(name)) * CHARACTER + 28.0) for name in kinds}
    width = max((sum(widths[name] + GAP for name in layer) - GAP for layer in layers), default=0.0) + 2 * MARGIN
    nodes = {node.name: node for node in _placed(layers, kinds, widths, width)}
    paths = tuple(_edge(nodes[one], nodes[other]) for one, other in edges)
    height = max(len(layers) - 1, 0) * DROP + HEIGHT + 2 * MARGIN
    return Graph(tuple(nodes.values()), paths, tuple(dict.fromkeys(kinds.values())), width, height)


def outline(kind: str, width: float) -> str:
    """The shape of a kind: boxes are given, round ends are texts, six sides are choices, slanted ones are weights."""
    right, bottom, lean = width / 2, HEIGHT / 2, SLANT
    if kind in ("text", "observation"):
        inner = right - bottom
        return f"M{-inner},{-bottom}H{inner}A{bottom},{bottom} 0 0 1 {inner},{bottom}H{-inner}A{bottom},{bottom} 0 0 1 {-inner},{-bottom}Z"
    if kind == "choice":
        return f"M{lean - right},{-bottom}H{right - lean}L{right},0L{right - lean},{bottom}H{lean - right}L{-right},0Z"
    if kind == "score":
        return f"M{lean - right},{-bottom}H{right}L{right - lean},{bottom}H{-right}Z"
    return f"M{-right},{-bottom}H{right}V{bottom}H{-right}Z"


def _layers(names: Sequence[str], edges: Sequence[tuple[str, str]]) -> list[list[str]]:
    """The longest way from above is the depth. As many rounds as nodes are enough, and end where edges go in a circle."""
    depth = dict.fromkeys(names, 0)
    for _ in names:
        for one, other in edges:
            depth[other] = min(max(depth[other], depth[one] + 1), len(names))
    used = sorted(set(depth.values()))
    return [[name for name in names if depth[name] == level] for level in used]


def _ordered(layers: list[list[str]], edges: Sequence[tuple[str, str]]) -> list[list[str]]:
    """Each layer in the order of what its nodes read, so that fewer edges cross."""
    place = {name: float(index) for layer in layers[:1] for index, name in enumerate(layer)}
    ordered = layers[:1]
    for layer in layers[1:]:
        read = {name: [place[one] for one, other in edges if other == name and one in place] for name in layer}
        ordered.append(sorted(layer, key=lambda name: sum(read[name]) / len(read[name]) if read[name] else 0.0))
        place |= {name: float(index) for index, name in enumerate(ordered[-1])}
    return ordered


def _placed(
    layers: list[list[str]], kinds: Mapping[str, str], widths: Mapping[str, float], width: float
) -> Iterator[Node]:
    for level, layer in enumerate(layers):
        x = (width - sum(widths[name] + GAP for name in layer) + GAP) / 2
        y = MARGIN + HEIGHT / 2 + level * DROP
        for name in layer:
            yield Node(name, _label(name), kinds[name], x + widths[name] / 2, y, widths[name])
            x += widths[name] + GAP


def _edge(one: Node, other: Node) -> str:
    """A curve that leaves downwards and arrives downwards, with room for the arrow's head."""
    start, end = one.y + HEIGHT / 2, other.y - HEIGHT / 2 - 5
    middle = (start + end) / 2
    return f"M{one.x:.1f},{start:.1f}C{one.x:.1f},{middle:.1f} {other.x:.1f},{middle:.1f} {other.x:.1f},{end:.1f}"


def _label(name: str) -> str:
    return name if len(name) <= MOST_CHARACTERS else name[: MOST_CHARACTERS - 1] + "…"
