"""The figures of a study, as complete Vega-Lite with its data, for the verdict to keep."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import altair

from normlab.lab import look
from normlab.lab.look import axis_of, data, number, over, upright
from normlab.store.verdict import Figure, Finding

POINTED = 30
"""Points of a line up to which each is marked."""


def points(
    title: str,
    values: Mapping[str, Mapping[int, float]],
    *,
    axis: str,
    percent: bool,
    unusable: Mapping[str, int] = {},
) -> Figure:
    """Arm to seed to value: every seed a point, and each arm's mean with its 95 % t interval.

    `unusable` counts an arm's seeds that are in no mean; they are told at the arm.
    """
    arms = list(dict.fromkeys([*values, *unusable]))
    seeds = {arm: look.finite(values.get(arm, {})) for arm in arms}
    labels = [
        {"arm": arm, "label": f"{arm} · {unusable[arm]} unusable" if unusable.get(arm) else arm} for arm in arms
    ]
    rows = [{"arm": arm, "seed": seed, "value": y} for arm in arms for seed, y in seeds[arm].items()]
    means = [{"arm": arm, **look.mean(seeds[arm].values())} for arm in arms if seeds[arm]]
    x = axis_of(axis, percent, empty=not rows)
    base = altair.Chart().encode(y=look.rows(arms, "arm"))
    chart = altair.layer(
        look.labels(base, labels),
        base.mark_point(filled=True, size=40, opacity=0.9, color=look.COLORS[0], yOffset=3)
        .encode(
            x=altair.X("value:Q", **x),
            tooltip=[altair.Tooltip("arm:N"), altair.Tooltip("seed:O"), number("value", percent)],
        )
        .properties(data=data(rows)),
        *look.intervals(base, "arm:N", means, "mean", x, percent, color=look.INK, shape="diamond"),
    ).properties(height=look.ROW * len(arms), width="container")
    told = "Every seed a point, a diamond the mean of each arm with its 95 % interval"
    return look.figure(title, f"{told}: {look.named(arms)}", chart)


def sweep(
    title: str,
    values: Mapping[str, Mapping[float, Mapping[int, float]]],
    *,
    x: str,
    axis: str,
    percent: bool,
    log: bool = True,
) -> Figure:
    """Arm to x to seed to value: every seed a point, a line through the means; x logarithmic if all are above 0."""
    kept = [(arm, at, look.finite(seeds)) for arm, line in values.items() for at, seeds in line.items()]
    rows: look.Rows = [
        {"arm": arm, "x": at, "seed": seed, "value": y} for arm, at, seeds in kept for seed, y in seeds.items()
    ]
    means = [{"arm": arm, "x": at, **look.mean(seeds.values())} for arm, at, seeds in kept if seeds]
    y = upright(axis, percent, empty=not rows)
    base = altair.Chart().encode(
        look.color(values, lines=False),
        x=altair.X("x:Q", **axis_of(x, log=log and all(row["x"] > 0 for row in rows), empty=not rows)),
    )
    chart = altair.layer(
        base.mark_line(strokeWidth=2).encode(y=altair.Y("mean:Q", **y)).properties(data=data(means)),
        base.mark_point(filled=True, size=40, opacity=0.7)
        .encode(
            look.shape(values),
            y=altair.Y("value:Q", **y),
            tooltip=[altair.Tooltip("arm:N"), number("x"), altair.Tooltip("seed:O"), number("value", percent)],
        )
        .properties(data=data(rows)),
    ).properties(width="container", height=look.HEIGHT)
    told = f"{axis} against {x}, every seed a point, lines through the means"
    return look.figure(title, f"{told}: {look.named(values)}", chart)


def curves(
    title: str,
    values: Mapping[str, Mapping[int, Sequence[tuple[float, float]]]],
    *,
    x: str,
    axis: str,
    percent: bool,
) -> Figure:
    """Arm to seed to (x, y): a thin line a seed; where all have an x, their mean and its 95 % t interval."""
    rows, means = [], []
    for arm, seeds in values.items():
        lines = {seed: {at: float(y) for at, y in line if math.isfinite(y)} for seed, line in seeds.items()}
        rows += [{"arm": arm, "seed": s, "x": at, "value": y} for s, line in lines.items() for at, y in line.items()]
        shared = sorted(set.intersection(*(set(line) for line in lines.values()))) if lines else []
        means += [{"arm": arm, "x": at, **look.mean(line[at] for line in lines.values())} for at in shared]
    y = upright(axis, percent, empty=not rows)
    lone = len({row["x"] for row in rows}) == 1  # a line of one point is not seen
    base = altair.Chart().encode(look.color(values), x=altair.X("x:Q", **over(x, rows)))
    bounded = [row for row in means if "low" in row]
    told, bounds = [altair.Tooltip("arm:N"), number("x")], [number("low", percent), number("high", percent)]
    chart = altair.layer(
        base.mark_area(opacity=0.18)
        .encode(y=altair.Y("low:Q", **y), y2=altair.Y2("high:Q"), tooltip=[*told, *bounds])
        .properties(data=data(bounded)),
        base.mark_line(strokeWidth=1, opacity=0.45, point=lone)
        .encode(look.dash(values), y=altair.Y("value:Q", **y), detail=altair.Detail("seed:N"))
        .properties(data=data(rows)),
        base.mark_line(strokeWidth=2.5, point=lone)
        .encode(look.dash(values), y=altair.Y("mean:Q", **y), tooltip=[*told, number("mean", percent)])
        .properties(data=data(means)),
    ).properties(width="container", height=look.HEIGHT)
    about = f"{axis} over {x}, a thin line a seed, thick their mean with its 95 % interval"
    return look.figure(title, f"{about}: {look.named(values)}", chart)


def percentiles(
    title: str, values: Mapping[str, Sequence[tuple[float, float, float, float]]], *, x: str, axis: str
) -> Figure:
    """Arm to (step, low, middle, high): for each arm, one below another on the same axes, a band and its middle."""
    views = []
    for arm, line in values.items():
        rows = [
            dict(zip(("x", "low", "middle", "high"), map(float, point), strict=True))
            for point in line
            if all(map(math.isfinite, point))
        ]
        y = axis_of(axis)
        y["axis"] = altair.Axis(minExtent=44, maxExtent=44, tickCount=4)
        base = altair.Chart().encode(
            x=altair.X("x:Q", **over(x, rows)), tooltip=[number(name) for name in ("x", "low", "middle", "high")]
        )
        views.append(
            altair.layer(
                base.mark_area(opacity=0.25, color=look.COLORS[0]).encode(
                    y=altair.Y("low:Q", **y), y2=altair.Y2("high:Q")
                ),
                base.mark_line(color=look.COLORS[0], strokeWidth=2).encode(y=altair.Y("middle:Q", **y)),
                data=data(rows),
            ).properties(
                width=560,
                height=110,
                title=altair.TitleParams(arm, anchor="start", fontSize=12, fontWeight="normal", limit=300),
            )
        )
    chart = altair.vconcat(*views, spacing=14).resolve_scale(x="shared", y="shared")
    return look.figure(title, f"{axis} over {x}, a band and its middle for each of {look.named(values)}", chart)


def effects(title: str, findings: Sequence[Finding], *, margin: float | None, percent: bool) -> Figure:
    """Each finding's effect with the interval that decided, one below another; dashed lines at +-`margin`."""
    shown = dict(_apart(findings))
    rows = [
        {"rule": rule, "word": each.word, "effect": each.effect, "low": each.low, "high": each.high, "n": each.n}
        for rule, each in shown.items()
        if each.effect is not None
    ]
    labels = [
        {"rule": rule, "label": rule if each.effect is not None else f"nothing to show (n = {each.n}): {rule}"}
        for rule, each in shown.items()
    ]
    words = [word for word in look.WORDS if any(row["word"] == word for row in rows)]
    colors, shapes = (
        altair.Scale(domain=words, range=[look.WORDS[word][which] for word in words]) for which in (0, 1)
    )
    x = axis_of("effect", percent, empty=not rows and not margin)
    base = altair.Chart().encode(y=look.rows(shown, "rule"))
    lines = [{"at": 0.0}] if margin is None else [{"at": -margin}, {"at": 0.0}, {"at": margin}]
    chart = altair.layer(
        altair.Chart(data(lines))
        .mark_rule(color=look.INK, opacity=0.5)
        .encode(
            x=altair.X("at:Q", **x),
            strokeDash=altair.condition("datum.at == 0", altair.value([1, 0]), altair.value([4, 4])),
        ),
        look.labels(base, labels),
        *look.intervals(
            base.encode(altair.Color("word:N", scale=colors, legend=look.legend())),
            "rule:N",
            rows,
            "effect",
            x,
            percent,
            altair.Shape("word:N", scale=shapes, legend=look.legend()),
        ),
    ).properties(height=look.ROW * len(shown), width="container")
    told = "Each effect with the interval that decided" + (
        "" if margin is None else f", dashed ±{margin:.2%}" if percent else f", dashed ±{margin:g}"
    )
    return look.figure(title, f"{told}: {look.named(shown)}", chart)


def _apart(findings: Sequence[Finding]) -> Iterator[tuple[str, Finding]]:
    """Rules as names of rows, of which no two are the same."""
    for number_, each in enumerate(findings):
        again = any(other.rule == each.rule for other in findings[:number_])
        yield (f"{each.rule} ({number_ + 1})" if again else each.rule), each


def paths(
    title: str, values: Mapping[str, Sequence[tuple[float, float]]], *, x: str, axis: str, log: bool = False
) -> Figure:
    """Name to (x, y): one line a name, with points on a short one; y logarithmic, if `log`, where all are above 0."""
    rows: look.Rows = [
        {"name": name, "x": at, "value": float(y)}
        for name, line in values.items()
        for at, y in line
        if math.isfinite(y)
    ]
    pointed = max(map(len, values.values()), default=0) <= POINTED
    y = upright(axis, log=log and all(row["value"] > 0 for row in rows), empty=not rows)
    chart = (
        altair.Chart(data(rows))
        .mark_line(strokeWidth=2, point=pointed)
        .encode(
            look.color(values, "name"),
            look.dash(values, "name"),
            x=altair.X("x:Q", **over(x, rows)),
            y=altair.Y("value:Q", **y),
            tooltip=[altair.Tooltip("name:N"), number("x"), number("value")],
        )
        .properties(width="container", height=look.HEIGHT)
    )
    return look.figure(title, f"{axis} over {x}, one line for each of {look.named(values)}", chart)


def scatter(title: str, values: Mapping[str, tuple[float, float]], *, x: str, axis: str, log: bool = True) -> Figure:
    """Name to (x, y), each a point with its name; an axis is logarithmic, if `log`, where all on it are above 0."""
    kept = {name: pair for name, pair in values.items() if all(map(math.isfinite, pair))}
    order = sorted(kept, key=lambda name: kept[name][0])
    left, right = order[: (len(order) + 1) // 2], order[(len(order) + 1) // 2 :]
    above = [all(pair[which] > 0 for pair in kept.values()) for which in (0, 1)]
    base = altair.Chart().encode(
        x=altair.X("x:Q", **axis_of(x, log=log and above[0], empty=not kept)),
        y=altair.Y("value:Q", **upright(axis, log=log and above[1], empty=not kept)),
        tooltip=[altair.Tooltip("name:N"), number("x"), number("value")],
    )

    def rows(names: Iterable[str]) -> altair.Data:
        return data([{"name": name, "x": float(kept[name][0]), "value": float(kept[name][1])} for name in names])

    limit = altair.ExprRef("width * 0.4")
    # A name in the right half stands before its point, so that none runs out of the picture.
    names = [
        base.mark_text(align="left", dx=8, color=look.INK, limit=limit)
        .encode(altair.Text("name:N"))
        .properties(data=rows(left)),
        base.mark_text(align="right", dx=-8, color=look.INK, limit=limit)
        .encode(altair.Text("name:N"))
        .properties(data=rows(right)),
    ]
    marks = base.mark_point(filled=True, size=60, opacity=0.8, color=look.COLORS[0]).properties(data=rows(kept))
    chart = altair.layer(marks, *names).properties(width="container", height=look.HEIGHT + 60)
    return look.figure(title, f"{axis} against {x}, a point for each of {look.named(kept)}", chart)
