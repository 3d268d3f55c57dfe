"""The curve of a run: loss above, accuracies below, over epochs."""

import math
from typing import Any, NamedTuple

import altair

from normlab.store import Record

WIDTH = 560
LINE = 44
"""Characters of a title that a screen of 400 pixels holds."""
TICKS = 12
POINTS = 30
"""Epochs up to which every one is marked by a point; of more only those at a tick, which do not hide the line."""


class _Series(NamedTuple):
    """How accuracies are drawn: told apart by shape and dash too, in print and by the colour-blind."""

    label: str
    color: str
    shape: str
    dash: tuple[int, int] = (1, 0)


# Colours of Okabe & Ito 2008; a series looks the same whichever others there are.
_SERIES = {
    "train_accuracy": _Series("training, as the weights move", "#0072B2", "circle"),
    "validation_accuracy": _Series("validation, running statistics", "#009E73", "square", (2, 2)),
    "test_accuracy": _Series("test, running statistics", "#D55E00", "triangle-up", (6, 3)),
}
_PRECISE = _Series("test, recomputed statistics", "#D55E00", "diamond")


def curve(record: Record) -> altair.VConcatChart:
    """Training loss, training accuracy and accuracies under running statistics after every epoch, and at the
    end, as a diamond, test accuracy under recomputed statistics.
    """
    recipe, broken = record.recipe, record.result.nonfinite
    facts = [
        f"{recipe.optimizer}, lr {recipe.lr:g}, batch {recipe.batch_size}, seed {recipe.seed}; trial {record.trial}"
    ]
    if broken:
        facts.append(f"the loss was not finite at epoch {broken.epoch}, step {broken.step}: training ended there")
    title = f"{recipe.model} on {recipe.data}"
    return (
        altair.vconcat(_loss(record), _accuracies(record))
        .properties(
            title=altair.TitleParams(
                title if len(title) <= LINE else [recipe.model, f"on {recipe.data}"], subtitle=facts, anchor="start"
            ),
            description=f"Training loss and accuracies of {title} over epochs 1 to {len(record.result.epochs)}",
        )
        .configure_view(stroke=None)
    )


def _loss(record: Record) -> altair.Chart:
    epochs = [epoch.model_dump() for epoch in record.result.epochs if epoch.train_loss is not None]
    scale = altair.Undefined if epochs else altair.Scale(domain=[0, 1])
    count = len(record.result.epochs)
    return (
        altair.Chart(altair.Data(values=epochs))
        .mark_line(point={"color": "#444"} if count <= POINTS else False, color="#444")
        .encode(
            x=_x(count),
            y=altair.Y("train_loss:Q", title="training loss (nats)", axis=altair.Axis(format="~g"), scale=scale),
            tooltip=["epoch:Q", altair.Tooltip("train_loss:Q", format=".4f")],
        )
        .properties(width=WIDTH, height=160)
    )


def _accuracies(record: Record) -> altair.LayerChart | altair.FacetChart:
    count, precise = len(record.result.epochs), record.result.precise
    rows = [
        {"epoch": epoch.epoch, "accuracy": accuracy, "series": series.label}
        for epoch in record.result.epochs
        for name, series in _SERIES.items()
        if (accuracy := getattr(epoch, name)) is not None
    ]
    marked = [row for row in rows if count <= POINTS or row["epoch"] % _step(count) == 0]
    final = (
        []
        if precise is None or precise.test_accuracy is None
        else [{"epoch": count, "accuracy": precise.test_accuracy, "series": _PRECISE.label}]
    )
    drawn = {row["series"] for row in rows + final}
    series = [each for each in (*_SERIES.values(), _PRECISE) if each.label in drawn]
    legend = altair.Legend(orient="bottom", columns=2, labelLimit=280, symbolSize=90, symbolStrokeWidth=0)

    def told_apart(channel: Any, values: list[Any]) -> Any:
        scale = altair.Scale(domain=[each.label for each in series], range=values)
        return channel("series:N", title=None, legend=legend, scale=scale)

    encoded = altair.Chart().encode(
        x=_x(count),
        y=altair.Y("accuracy:Q", title="accuracy", scale=_accuracy_scale([row["accuracy"] for row in rows + final])),
        color=told_apart(altair.Color, [each.color for each in series]),
    )
    lines = encoded.mark_line().encode(told_apart(altair.StrokeDash, [[*each.dash] for each in series]))
    points = encoded.mark_point(filled=True, opacity=1).encode(
        told_apart(altair.Shape, [each.shape for each in series]),
        tooltip=["series:N", "epoch:Q", altair.Tooltip("accuracy:Q", format=".4f")],
    )
    return altair.layer(
        lines.properties(data=altair.Data(values=rows)),
        points.properties(data=altair.Data(values=marked)).encode(size=altair.value(45)),
        points.properties(data=altair.Data(values=final)).encode(size=altair.value(130)),
    ).properties(width=WIDTH, height=220)


def _step(count: int) -> int:
    """Epochs between two ticks: a round number, so that at most a dozen are needed."""
    return next(step for ten in range(9) for step in (10**ten, 2 * 10**ten, 5 * 10**ten) if count <= TICKS * step)


def _x(count: int) -> altair.X:
    """Ticks at whole epochs, where Vega would put some between two; room for a point at either end."""
    step, margin = _step(count), max(0.5, count / 50)
    return altair.X(
        "epoch:Q",
        title="epoch",
        axis=altair.Axis(values=[*range(step, count + 1, step)], format="d"),
        scale=altair.Scale(domain=[1 - margin, count + margin], nice=False),
    )


def _accuracy_scale(shares: list[float]) -> altair.Scale:
    """The twentieths around what there is, and never a span of nothing."""
    low, high = math.floor(min(shares) * 20), math.ceil(max(shares) * 20)
    return altair.Scale(domain=[max(0, low - (low == high)) / 20, min(20, high + (low == high)) / 20])
