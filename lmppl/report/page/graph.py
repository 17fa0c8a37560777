"""Where the nodes of a program's graph go: in layers from top to bottom, each below all that it
reads.

An edge that passes a layer has a place of its own there, so that it runs between nodes and not
behind them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

CHARACTER = 7.3  # width of one in the label's face, in pixels
HEIGHT, PASSAGE = 34.0, 14.0
GAP, DROP, MARGIN = 26.0, 74.0, 6.0
MOST_CHARACTERS = 30
LEAN = 10.0  # how far the sides of hexagons and parallelograms slant

Edge = tuple[str, str]


@dataclass(frozen=True)
class Node:
    """A node: its label, cut to fit, its kind, and where its middle is. An edge that passes has no
    kind.
    """

    name: str
    label: str
    kind: str | None
    x: float
    y: float

    @property
    def outline(self) -> str:
        """The shape of its kind, as an SVG path about its middle."""
        return outline(self.kind or "", _width(self.label))


@dataclass(frozen=True)
class Graph:
    """A graph with places: nodes, edges as SVG paths, the kinds that occur, and the size of it
    all.
    """

    nodes: tuple[Node, ...]
    edges: tuple[str, ...]
    kinds: tuple[str, ...]
    width: float
    height: float


def layout(graph: Mapping[str, Any]) -> Graph:
    """Give every node a place. Edges to nodes that are not there are left out."""
    kinds = {node["name"]: node["kind"] for node in graph["nodes"]}
    edges = [
        (one, other)
        for one, other in graph["edges"]
        if one in kinds and other in kinds and one != other
    ]
    depth = _depth(list(kinds), edges)
    routes = [_route(one, other, depth) for one, other in edges]
    depth |= {
        stop: depth[route[0]] + step for route in routes for step, stop in enumerate(route[:-1])
    }
    places = {node.name: node for node in _placed(_ordered(depth, routes), kinds)}
    nodes = tuple(node for node in places.values() if node.kind is not None)
    right = max((node.x + _width(node.label) / 2 for node in nodes), default=0.0)
    stops = [list(map(places.__getitem__, route)) for route in routes]
    paths = tuple(map(_path, stops))
    height = max(depth.values(), default=0) * DROP + HEIGHT + 2 * MARGIN
    return Graph(
        nodes,
        paths,
        tuple(dict.fromkeys(kinds.values())),
        max(right, _right(places)) + MARGIN,
        height,
    )


def outline(kind: str, width: float) -> str:
    """The shape of a kind: boxes are given, round ends are texts, six sides are choices, slanted
    ones are scores, two corners are cut off what is derived.
    """
    right, low = width / 2, HEIGHT / 2
    if kind in ("text", "observation"):
        end, turn = right - low, f"A{low},{low} 0 0 1"
        return f"M{-end},{-low}H{end}{turn} {end},{low}H{-end}{turn} {-end},{-low}Z"
    if kind == "choice":
        upper, lower = (
            f"H{right - LEAN}L{right},0L{right - LEAN},{low}",
            f"H{LEAN - right}L{-right},0Z",
        )
        return f"M{LEAN - right},{-low}{upper}{lower}"
    if kind == "derived":
        cut = f"L{right},{LEAN - low}V{low}H{LEAN - right}L{-right},{low - LEAN}"
        return f"M{-right},{-low}H{right - LEAN}{cut}Z"
    if kind == "score":
        return f"M{LEAN - right},{-low}H{right}L{right - LEAN},{low}H{-right}Z"
    return f"M{-right},{-low}H{right}V{low}H{-right}Z"


def _depth(names: Sequence[str], edges: Sequence[Edge]) -> dict[str, int]:
    """The longest way from above. As many rounds as nodes are enough, and end where edges go in a
    circle.
    """
    depth = dict.fromkeys(names, 0)
    for _ in names:
        for one, other in edges:
            depth[other] = min(max(depth[other], depth[one] + 1), len(names))
    return depth


def _route(one: str, other: str, depth: Mapping[str, int]) -> list[str]:
    """The stops of an edge: one a layer."""
    return [
        one,
        *(f"{one}\0{other}\0{level}" for level in range(depth[one] + 1, depth[other])),
        other,
    ]


def _ordered(depth: Mapping[str, int], routes: Sequence[Sequence[str]]) -> list[list[str]]:
    """Each layer in the order of what is above its nodes, so that fewer edges cross."""
    above: dict[str, list[str]] = {}
    for one, other in (pair for route in routes for pair in pairwise(route)):
        above.setdefault(other, []).append(one)
    layers: list[list[str]] = []
    place: dict[str, float] = {}
    for level in range(max(depth.values(), default=-1) + 1):
        layer = {name: 0.0 for name in depth if depth[name] == level}
        for name in layer:
            read = [place[one] for one in above.get(name, ()) if one in place]
            layer[name] = sum(read) / len(read) if read else 0.0
        layers.append(sorted(layer, key=layer.__getitem__))
        place |= {name: (index + 0.5) / len(layer) for index, name in enumerate(layers[-1])}
    return layers


def _placed(layers: Sequence[Sequence[str]], kinds: Mapping[str, str]) -> Iterator[Node]:
    """Layers are centred above each other."""
    widths = {
        name: _width(_label(name)) if name in kinds else PASSAGE
        for layer in layers
        for name in layer
    }
    spans = [_span(layer, widths) for layer in layers]
    for level, layer in enumerate(layers):
        x = MARGIN + (max(spans) - spans[level]) / 2
        for name in layer:
            label = _label(name) if name in kinds else ""
            yield Node(
                name,
                label,
                kinds.get(name),
                x + widths[name] / 2,
                MARGIN + HEIGHT / 2 + level * DROP,
            )
            x += widths[name] + GAP


def _span(layer: Sequence[str], widths: Mapping[str, float]) -> float:
    """How wide a layer is."""
    return sum(widths[name] + GAP for name in layer) - GAP


def _path(stops: Sequence[Node]) -> str:
    """A curve that leaves downwards and arrives downwards at every stop, with room for the arrow's
    head.
    """
    path = f"M{stops[0].x:.1f},{stops[0].y + HEIGHT / 2:.1f}"
    for one, other in pairwise(stops):
        start = one.y + HEIGHT / 2
        end = other.y - HEIGHT / 2 - (5 if other is stops[-1] else 0)
        middle = (start + end) / 2
        path += f"C{one.x:.1f},{middle:.1f} {other.x:.1f},{middle:.1f} {other.x:.1f},{end:.1f}"
        path += "" if other is stops[-1] else f"V{other.y + HEIGHT / 2:.1f}"
    return path


def _right(places: Mapping[str, Node]) -> float:
    return max((node.x + PASSAGE / 2 for node in places.values()), default=0.0)


def _width(label: str) -> float:
    return max(44.0, len(label) * CHARACTER + 28.0)


def _label(name: str) -> str:
    return name if len(name) <= MOST_CHARACTERS else name[: MOST_CHARACTERS - 1] + "…"
