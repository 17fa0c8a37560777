"""What the plots look like, without their data: the browser fills in the rows that are looked at.

Colours are custom properties of the page's style, so a plot follows the theme, and paper, without
being drawn anew. The colour of an engine comes with its data, under `ink`."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import altair as alt

FACE = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', sans-serif"
INK = alt.Color("ink:N", scale=None)
SHAPE = alt.Shape("shape:N", scale=None)
WEAK = "var(--weak)"

Plot = alt.Chart | alt.LayerChart | alt.FacetChart


def charts(document: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Every plot by name, as Vega-Lite. Their data sets are called `points` and `reference`."""
    titles = {column["key"]: column for column in document["columns"]}
    quality = titles.get(document["quality"], {"title": document["quality"], "better": None})
    return _charts(quality["title"], quality["better"] == "low", len(document["engines"]))


@functools.lru_cache(maxsize=8)  # Altair checks each: half a second, the most of what a page takes
def _charts(quality: str, low_is_better: bool, num_engines: int) -> dict[str, dict[str, Any]]:
    return {
        "quality_tokens": _plain(_quality(quality, low_is_better, "tokens decoded and scored")),
        "quality_seconds": _plain(_quality(quality, low_is_better, "seconds")),
        "evidence": _plain(_evidence(num_engines)),
        "densities": _plain(_density()),
        "traces": _plain(_trace()),
        "ranks": _plain(_rank()),
        "lineages": _plain(_lineage()),
        "training": _plain(_training(alt.Scale(zero=False))),
        "training_log": _plain(_training(alt.Scale(type="log"))),
    }


def _plain(chart: Plot) -> dict[str, Any]:
    spec = _themed(chart.properties(width="container")).to_dict()
    return {key: value for key, value in spec.items() if key not in ("$schema", "usermeta")}


def _themed(chart: Plot) -> Plot:
    axis = {
        "labelColor": WEAK, "titleColor": WEAK, "gridColor": "var(--line)", "domain": False,
        "ticks": False,
        "labelFont": FACE, "titleFont": FACE, "labelFontSize": 11, "titleFontSize": 11,
        "titleFontWeight": "normal",
        "labelPadding": 6, "tickCount": 5, "labelLimit": 150, "labelOverlap": "greedy",
        "labelSeparation": 6,
    }  # fmt: skip
    return (
        chart.configure(background="transparent", font=FACE)
        .configure_axis(**axis)
        .configure_view(stroke=None)
    )


def _points(name: str = "points") -> alt.Chart:
    return alt.Chart(alt.NamedData(name))


def _quality(quality: str, low_is_better: bool, cost: str) -> Plot:
    """Better engines are towards the left and, where low is better, the bottom."""
    base = _points().encode(
        x=alt.X(
            "cost:Q",
            scale=alt.Scale(type="log", padding=16, nice=False),
            title=cost,
            axis=alt.Axis(format="~s", grid=False),
        ),
        y=alt.Y("mean:Q", scale=alt.Scale(zero=low_is_better), title=quality),
        color=INK,
        tooltip=[
            alt.Tooltip("engine:N"),
            alt.Tooltip("cost:Q", title=cost, format=",.4~r"),
            alt.Tooltip("mean:Q", title=quality, format=".3f"),
            alt.Tooltip("low:Q", title="from", format=".3f"),
            alt.Tooltip("high:Q", title="to", format=".3f"),
        ],
    )
    line = base.mark_line(strokeWidth=2).encode(detail="engine:N", order="cost:Q")
    bars = base.mark_rule(strokeWidth=1.5, opacity=0.55).encode(y="low:Q", y2="high:Q")
    return alt.layer(line, bars, _dots(base)).properties(height=300)


def _dots(base: alt.Chart) -> alt.Chart:
    return base.mark_point(filled=True, size=70, opacity=1).encode(shape=SHAPE)


def _evidence(num_engines: int) -> Plot:
    """An engine a line, its interval as a bar; the reference crosses all of them."""
    names = alt.Axis(grid=False, labelColor="var(--ink)", labelFontSize=12)
    base = _points().encode(
        y=alt.Y("engine:N", sort=None, title=None, axis=names),
        x=alt.X("mean:Q", scale=alt.Scale(zero=False, padding=12), title="log evidence, nats"),
        color=INK,
        tooltip=[
            alt.Tooltip("engine:N"),
            alt.Tooltip("mean:Q", title="log evidence", format=".3f"),
            alt.Tooltip("low:Q", title="from", format=".3f"),
            alt.Tooltip("high:Q", title="to", format=".3f"),
        ],
    )
    bars = base.mark_rule(strokeWidth=2).encode(x="low:Q", x2="high:Q")
    truth = (
        _points("reference")
        .mark_rule(color="var(--ink)", strokeDash=[4, 3], strokeWidth=1.2)
        .encode(x="mean:Q")
    )
    return alt.layer(truth, bars, _dots(base)).properties(height=30 * num_engines)


def _between(title: str, *, vertical: bool = False) -> Any:
    """An axis whose ends the browser sets, so that all engines are seen on one scale."""
    ends = alt.Scale(
        domainMin=alt.ExprRef("bottom" if vertical else "left"),
        domainMax=alt.ExprRef("top" if vertical else "right"),
        nice=False, zero=False,
    )  # fmt: skip
    return (
        alt.Y("y:Q", scale=ends, title=title, stack=None)
        if vertical
        else alt.X("x:Q", scale=ends, title=title)
    )


def _ends(*names: str) -> list[alt.Parameter]:
    return [alt.param(name=name, value=0) for name in names]


def _density() -> Plot:
    """The reference as a grey shape, and the engine's outline over it."""
    x, y = _between("log density, nats"), _between("mass a nat", vertical=True)
    truth = (
        _points("reference")
        .mark_area(color="var(--line)", line={"color": WEAK, "strokeWidth": 1})
        .encode(x=x, y=y)
    )
    line = (
        _points()
        .mark_line(strokeWidth=2, strokeJoin="round", clip=True)
        .encode(x=x, y=y, color=INK)
    )
    layers = alt.layer(truth, line).add_params(*_ends("left", "right", "bottom", "top"))
    return layers.properties(height=150)


def _chains(mark: alt.Chart, x: Any, y: Any) -> alt.Chart:
    return mark.encode(
        x=x,
        y=y,
        color=INK,
        detail="chain:N",
        tooltip=["chain:N", alt.Tooltip("y:Q", format=".4~r")],
    )


def _trace() -> Plot:
    line = _points().mark_line(strokeWidth=1, strokeJoin="round", clip=True)
    x = alt.X("x:Q", title="draw", scale=alt.Scale(nice=False, zero=False))
    chart = _chains(line, x, _between("log density, nats", vertical=True))
    return chart.add_params(*_ends("bottom", "top")).properties(height=150)


def _rank() -> Plot:
    line = _points().mark_line(strokeWidth=1.5, interpolate="step")
    axis = alt.Axis(grid=False, format="d", tickMinStep=1)
    x = alt.X("x:Q", title="rank among all chains, in bins", scale=alt.Scale(nice=False), axis=axis)
    bars = _chains(line, x, alt.Y("y:Q", title="draws", scale=alt.Scale(zero=True)))
    even = _points("reference").mark_rule(color="var(--ink)", strokeDash=[4, 3]).encode(y="y:Q")
    return alt.layer(bars, even).properties(height=150)


def _lineage() -> Plot:
    line = _points().mark_line(strokeWidth=1.5, interpolate="step-after")
    x = alt.X(
        "x:Q",
        title="resampling",
        scale=alt.Scale(nice=False),
        axis=alt.Axis(format="d", tickMinStep=1),
    )
    y = alt.Y(
        "y:Q",
        title="ancestors left",
        scale=alt.Scale(type="log", domainMin=1),
        axis=alt.Axis(format="~s", grid=False),
    )
    return _chains(line, x, y).properties(height=150)


def _training(scale: alt.Scale) -> Plot:
    tooltip = [alt.Tooltip("x:Q", title="step"), alt.Tooltip("y:Q", title="value", format=".4~r")]
    line = _points().mark_line(strokeWidth=1.5, strokeJoin="round")
    x = alt.X(
        "x:Q", title="step", scale=alt.Scale(nice=False, zero=False), axis=alt.Axis(format="~s")
    )
    y = alt.Y(
        "y:Q",
        title=None,
        scale=scale,
        axis=alt.Axis(format="~g", grid=scale.to_dict().get("type") != "log"),
    )
    return line.encode(x=x, y=y, color=INK, tooltip=tooltip).properties(height=150)
