"""How the figures of studies look: colours, axes, legends, labels.

No background, and text in the reader's own colour, so that a page may be dark or light; everything is told
apart by shape or dash as well as by colour (Okabe & Ito 2008); names have the picture's whole width, so that
400 pixels will do.
"""

import contextlib
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import altair

from normlab.lab import statistics
from normlab.store.verdict import Figure

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")
DASHES = ((1, 0), (6, 3), (2, 2), (8, 2, 2, 2), (12, 4), (3, 6))
WORDS = {
    "supported": ("#0072B2", "circle"),
    "contradicted": ("#D55E00", "diamond"),
    "inconclusive": ("#999999", "square"),
    "answered": ("#009E73", "triangle-up"),
}
INK = "currentColor"
"""The page's text colour, dark or light; black where a picture stands alone."""
NAMED = 120
"""Characters of names that a description holds."""
ROW, HEIGHT = 40, 260
TICKS = altair.ExprRef("width < 420 ? 4 : 8")

Rows = list[dict[str, Any]]


def data(rows: Rows) -> altair.Data:
    """In the spec where it is drawn: altair would move InlineData to its top, under a hash. In a tuple, since it
    copies lists, row by row, with the chart at each of its steps.
    """
    return altair.Data(values=tuple(rows))


def finite(values: Mapping[int, float]) -> dict[int, float]:
    """Those that can be drawn."""
    return {key: float(value) for key, value in values.items() if math.isfinite(value)}


def mean(values: Iterable[float]) -> dict[str, float]:
    """Mean and, from two values on, its 95 % t interval, as fields of a row."""
    found = statistics.interval([*values])
    bounds = {} if found.n < 2 else {"low": found.low, "high": found.high}
    return {"mean": found.mean, **bounds}


def axis_of(title: str, percent: bool = False, log: bool = False, empty: bool = False) -> dict[str, Any]:
    """Scale and axis of a quantity; where there is none of it, from 0 to 1."""
    scale = altair.Scale(domain=[0, 1]) if empty else altair.Scale(type="log") if log else altair.Scale(zero=False)
    return {
        "title": title,
        "scale": scale,
        "axis": altair.Axis(format="~%" if percent else altair.Undefined, labelOverlap=True, tickCount=TICKS),
    }


def over(title: str, rows: Rows) -> dict[str, Any]:
    """Likewise for the `x` of a line; no tick between two whole numbers where all are whole."""
    quantity = axis_of(title, empty=not rows)
    if all(float(row["x"]).is_integer() for row in rows):
        quantity["axis"].tickMinStep = 1
    return quantity


def upright(title: str, percent: bool = False, log: bool = False, empty: bool = False) -> dict[str, Any]:
    """Likewise for y, its title above it: turned by 90 degrees a long one would be cut off."""
    quantity = axis_of(title, percent, log, empty)
    quantity["axis"] = altair.Axis(
        format="~%" if percent else altair.Undefined,
        labelOverlap=True,
        tickCount=5,
        titleAngle=0,
        titleAlign="left",
        titleAnchor="end",
        titleBaseline="bottom",
        titleX=0,
        titleY=-8,
    )
    return quantity


def number(field: str, percent: bool = False) -> altair.Tooltip:
    return altair.Tooltip(f"{field}:Q", format=".2%" if percent else ".4~g")


def legend(*, lines: bool = False) -> altair.Legend:
    """Below, in as many columns as there is room for; `lines` shows dashes."""
    columns = altair.ExprRef("width < 420 ? 1 : 2")
    symbol: dict[str, Any] = {"symbolType": "stroke", "symbolSize": 600, "symbolStrokeWidth": 2} if lines else {}
    return altair.Legend(
        orient="bottom", columns=columns, labelLimit=270, symbolLimit=0, symbolOpacity=1, title=None, **symbol
    )


def _cycled(names: Iterable[str], values: Sequence[Any], shifted: bool = False) -> altair.Scale:
    """Value for name, over again where they run out: `shifted`, so that no look comes back before 36 names."""
    size = len(values)
    domain = [*names]
    return altair.Scale(
        domain=domain, range=[values[(i + (i // size if shifted else 0)) % size] for i in range(len(domain))]
    )


def color(names: Iterable[str], field: str = "arm", *, lines: bool = True) -> altair.Color:
    return altair.Color(f"{field}:N", scale=_cycled(names, COLORS), legend=legend(lines=lines))


def dash(names: Iterable[str], field: str = "arm") -> altair.StrokeDash:
    scale = _cycled(names, [[*each] for each in DASHES], True)
    return altair.StrokeDash(f"{field}:N", scale=scale, legend=legend(lines=True))


def shape(names: Iterable[str], field: str = "arm") -> altair.Shape:
    return altair.Shape(f"{field}:N", scale=_cycled(names, SHAPES, True), legend=legend())


def rows(names: Iterable[str], field: str) -> altair.Y:
    """A row for each name, in the given order; `labels` writes the names."""
    return altair.Y(f"{field}:N", sort=None, axis=None, scale=altair.Scale(domain=[*names], padding=0))


def labels(base: altair.Chart, written: Rows) -> altair.Chart:
    """The `label` of each row above what it shows, over the whole width."""
    return (
        base.mark_text(align="left", color=INK, limit=altair.ExprRef("width"), yOffset=-9, x=2)
        .encode(altair.Text("label:N"))
        .properties(data=data(written))
    )


def intervals(
    base: altair.Chart,
    name: str,
    shown: Rows,
    field: str,
    x: Mapping[str, Any],
    percent: bool,
    *marked: Any,
    **mark: Any,
) -> list[altair.Chart]:
    """An interval where there are bounds, and a mark at `field`; `marked` is encoded in the mark alone.

    Vega leaves out the intervals of rows without bounds.
    """
    if not shown:
        return []  # a legend of nothing would be as large as the largest number
    bounds = [number(each, percent) for each in ("low", "high")]
    line = {key: value for key, value in mark.items() if key != "shape"}
    return [
        base.mark_rule(strokeWidth=2, yOffset=13, **line)
        .encode(x=altair.X("low:Q", **x), x2=altair.X2("high:Q"), tooltip=[altair.Tooltip(name), *bounds])
        .properties(data=data(shown)),
        base.mark_point(filled=True, size=90, opacity=1, yOffset=13, **mark)
        .encode(*marked, x=altair.X(f"{field}:Q", **x), tooltip=[altair.Tooltip(name), number(field, percent)])
        .properties(data=data(shown)),
    ]


def named(names: Iterable[str]) -> str:
    """As many of the names as a description holds, at least one, and how many more there are."""
    every = [*names]
    room = itertools.accumulate(len(name) for name in every)
    listed = every[: max(1, sum(taken <= NAMED for taken in room))]
    more = len(every) - len(listed)
    return "; ".join(listed) + (f"; and {more} more" if more else "")


def unchecked() -> contextlib.AbstractContextManager[None]:
    """Within it altair holds no part of a chart against its schema, as it else does at every step, each row of the
    data too: that takes more than half of the time. The tests do it instead.
    """
    return altair.utils.schemapi.debug_mode(False)


def figure(title: str, description: str, chart: Any) -> Figure:
    """The title is the figure's, not the chart's: a page wraps it, a chart would cut it off."""
    spec = chart.properties(description=f"{title}. {description}").configure_view(stroke=None).to_dict(validate=False)
    return Figure(title=title, description=description, spec=spec)
